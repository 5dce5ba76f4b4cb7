"""Answers → metrics, and whether a difference is more than chance. Pure: asks no model and reads no clock.

Rows are processed in portions; memory does not grow with their number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finetune_api.evaluation import FIELD_OF_METRIC, Compared, Differences, Interval, Metric, Scores, Verdict
from finetune_trainer.evaluation.measures import MEASURES, spoken

Numbers = NDArray[np.float64]

RESAMPLES = 10_000
_CELLS = 4_000_000  # limit of the table of resamples in memory
_STEPS = 2048
"""Bins per unit: values in the same bin are treated as equal, at their mean."""

_CHANCE = 0.05
"""Significance level: how often two equal models may be told apart."""

_DIGITS = 6
_TINY = 1e-9  # rounding error of a difference of zero
_LARGEST_EXPONENT = 100.0


@dataclass(frozen=True)
class Measured:
    """One contestant's values for a portion of the rows: by metric, [rows], NaN if a row has no value."""

    values: Mapping[Metric, Numbers]

    def of_row(self, place: int) -> dict[str, float]:
        """The values of one row by metric, without missing ones."""
        found: dict[str, float] = {metric: float(values[place]) for metric, values in self.values.items()}
        return {metric: value for metric, value in found.items() if not math.isnan(value)}


@dataclass
class Spread:
    """A histogram of values, with their exact sums.

    Metrics are between 0 and 1, so there are at most 2 * _STEPS + 1 bins, also for differences.
    """

    cells: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Count and sum of the values in each bin."""

    def add(self, values: Numbers) -> None:
        """Add values, [rows]; NaN is skipped."""
        values = values[~np.isnan(values)]
        places, which = np.unique(np.rint(values * _STEPS).astype(np.int64), return_inverse=True)
        counts, sums = np.bincount(which), np.bincount(which, weights=values)
        for place, count, total in zip(places.tolist(), counts.tolist(), sums.tolist(), strict=True):
            before, so_far = self.cells.get(place, (0, 0.0))
            self.cells[place] = (before + count, so_far + total)

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(count for count, _ in self.cells.values())

    @property
    def mean(self) -> float | None:
        """Their mean; None if there are none."""
        total = math.fsum(total for _, total in self.cells.values())
        return round(total / self.count, _DIGITS) if self.cells else None

    def interval(self, *, seed: int = 0) -> Interval | None:
        """95 % interval of the mean by the bootstrap, percentile method (Efron 1979, Koehn 2004); None without values.

        Rows are drawn with replacement. Rows with the same value are interchangeable, so it suffices to draw how
        often each value occurs: a multinomial. A few rows that are alike by chance would give a narrow interval: if
        the difference may be chance (`_may_be_chance`), the interval is extended to zero.
        """
        rows = self.count
        if rows == 0:
            return None
        counts, sums = np.array([self.cells[place] for place in sorted(self.cells)]).T
        values, chance = sums / counts, np.random.default_rng(seed)
        found = [chance.multinomial(rows, counts / rows, size=size) @ values / rows for size in _resamples(len(values))]
        low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
        if (low > 0 or high < 0) and self._may_be_chance(chance):
            low, high = min(low, 0.0), max(high, 0.0)
        return Interval(low=_clean(low), high=_clean(high))

    def _may_be_chance(self, chance: np.random.Generator) -> bool:
        """Whether two equal models would differ as much on more than _CHANCE of all test sets.

        For equal models each row's difference could as well have the other sign: draws all signs at random and
        counts how often the sum is as far from zero (Fisher's randomisation test, 1935, § 21). Valid for any number
        of rows; fewer than six differing rows never pass, since 2 / 2^5 is more than 5 %. Rows with the same value
        are interchangeable, so it suffices to draw binomials.
        """
        sizes: dict[int, tuple[int, float]] = {}
        for place, (count, total) in self.cells.items():
            if place:
                before, so_far = sizes.get(abs(place), (0, 0.0))
                sizes[abs(place)] = (before + count, so_far + abs(total))
        if not sizes:
            return True
        counts, sums = np.array(list(sizes.values())).T
        values = sums / counts
        far = abs(math.fsum(total for place, (_, total) in self.cells.items() if place))
        if far**2 >= -2 * math.log(_CHANCE / 2) * float(counts @ values**2):
            return False  # decided by Hoeffding's inequality (1963), without drawing
        signs = counts.astype(np.int64)
        drawn = [
            (2 * chance.binomial(signs, 0.5, (size, len(values))) - signs) @ values for size in _resamples(len(values))
        ]
        as_far = int((np.abs(np.concatenate(drawn)) >= far - _TINY).sum())
        return (as_far + 1) / (RESAMPLES + 1) > _CHANCE


def _resamples(columns: int) -> list[int]:
    """Split the resamples into batches, so that a table with so many columns stays small."""
    portion = max(1, _CELLS // columns)
    return [min(portion, RESAMPLES - start) for start in range(0, RESAMPLES, portion)]


@dataclass
class Standing:
    """One contestant's results over the rows so far, and the tuned model's lead over it."""

    own: dict[Metric, Spread] = field(default_factory=dict)
    lead: dict[Metric, Spread] = field(default_factory=dict)
    unfinished_thoughts: int = 0
    """Answers that consist of an unfinished thought."""
    asked: int = 0
    """Number of rows."""
    compared_on: int = 0
    """Rows that both models answered."""

    @property
    def is_sample(self) -> bool:
        """Whether both answered at least half of the rows: fewer are no representative sample."""
        return 2 * self.compared_on >= self.asked

    def undecided(self) -> str | None:
        """A note if some rows were answered by both, but too few for a verdict; otherwise None."""
        if self.is_sample or not self.compared_on:
            return None
        return f"no verdict by answers on {self.compared_on} of {self.asked} rows"

    def add(self, tuned: Measured, own: Measured) -> None:
        """Add the values of both models for a portion of the rows."""
        for metric, values in own.values.items():
            self.own.setdefault(metric, Spread()).add(values)
            self.lead.setdefault(metric, Spread()).add(tuned.values[metric] - values)

    def means(self) -> dict[str, float | None]:
        """Means of all metrics, by field name."""
        return {FIELD_OF_METRIC[metric]: found.mean for metric, found in self.own.items()}

    def scores(self, loss: float | None = None) -> Scores:
        """Means of all metrics, with loss and perplexity if the loss is known."""
        return Scores(**self.means(), **losses(loss))

    def compared(self, decisive: Metric, *, loss: float | None = None) -> Compared:
        """A baseline's scores, the paired intervals of tuned minus baseline, and the verdict of the decisive metric.

        Without a verdict if fewer than half of the rows were answered by both.
        """
        intervals = {FIELD_OF_METRIC[metric]: found.interval() for metric, found in self.lead.items()}
        decided = intervals.get(FIELD_OF_METRIC[decisive])
        return Compared(
            **self.means(),
            **losses(loss),
            verdict=verdict(decided) if decided and self.is_sample else None,
            difference=Differences(**intervals) if any(intervals.values()) else None,
        )


def measured(metrics: Sequence[Metric], answers: Sequence[str | None], completions: Sequence[str]) -> Measured:
    """The values of all answers. An answer of None means that the row was not answered: it has no value."""
    return Measured(
        {
            metric: np.array(
                [_value(metric, said, wanted) for said, wanted in zip(answers, completions, strict=True)], dtype=float
            )
            for metric in metrics
        }
    )


def _value(metric: Metric, answer: str | None, completion: str) -> float:
    value = None if answer is None else MEASURES[metric](spoken(answer), spoken(completion))
    return math.nan if value is None else value


def losses(loss: float | None) -> dict[str, float | None]:
    """Loss in nats per token and perplexity, exp(loss). Empty if the loss is not a finite number."""
    if loss is None or not math.isfinite(loss):
        return {}
    perplexity = math.exp(loss) if loss < _LARGEST_EXPONENT else None
    return {"loss": round(loss, _DIGITS), "perplexity": perplexity and round(perplexity, _DIGITS)}


def interval(differences: Numbers) -> Interval | None:
    """`Spread.interval` for values that are all in memory."""
    found = Spread()
    found.add(differences)
    return found.interval()


def _clean(value: float) -> float:
    return 0.0 if abs(value) < _TINY else round(float(value), _DIGITS)


def verdict(difference: Interval) -> Verdict:
    """Whether the interval is above, below or around zero."""
    if difference.low > 0:
        return "Better"
    return "Worse" if difference.high < 0 else "NoDifference"


def overall(verdicts: Sequence[Verdict | None]) -> Verdict | None:
    """The least favourable verdict: tuning was worth it only if it beats everything that was tried."""
    given = [one for one in verdicts if one is not None]
    order: tuple[Verdict, ...] = ("Worse", "NoDifference", "Better")
    return min(given, key=order.index, default=None)
