"""Answers → measures, and whether a difference is more than chance. Pure: it asks no model and reads no clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_api.evaluation import FIELD_OF_METRIC, Compared, Differences, Interval, Metric, Scores, Verdict
from finetune_trainer.evaluation.measures import MEASURES

Numbers = NDArray[np.float64]

RESAMPLES = 10_000
_CELLS = 4_000_000  # of the table of resamples that is held at once
_DIGITS = 6
_TINY = 1e-9  # what rounding of means may leave of a difference that is none
_LARGEST_EXPONENT = 100.0


@dataclass(frozen=True)
class Measured:
    """One contestant's values, metric by metric: [rows], NaN where a row has no value."""

    values: Mapping[Metric, Numbers]

    def of_row(self, place: int) -> dict[str, float]:
        """The values of one row by metric, without those that it has not."""
        found: dict[str, float] = {metric: float(values[place]) for metric, values in self.values.items()}
        return {metric: value for metric, value in found.items() if not math.isnan(value)}

    def mean(self, metric: Metric) -> float | None:
        """Mean over the rows that have a value; None where none has."""
        found = self.values[metric]
        found = found[~np.isnan(found)]
        return round(float(found.mean()), _DIGITS) if len(found) else None


def measured(metrics: Sequence[Metric], answers: Sequence[str | None], completions: Sequence[str]) -> Measured:
    """The values of all answers. None as an answer is a row that was not answered: it has no value."""
    return Measured(
        {
            metric: np.array(
                [_value(metric, said, wanted) for said, wanted in zip(answers, completions, strict=True)], dtype=float
            )
            for metric in metrics
        }
    )


def _value(metric: Metric, answer: str | None, completion: str) -> float:
    value = None if answer is None else MEASURES[metric](answer, completion)
    return math.nan if value is None else value


def scores(found: Measured, loss: float | None = None) -> Scores:
    """Means of all metrics, with loss and perplexity where the loss is known."""
    return Scores(**means(found), **losses(loss))


def means(found: Measured) -> dict[str, float | None]:
    """Means by the name of their field."""
    return {FIELD_OF_METRIC[metric]: found.mean(metric) for metric in found.values}


def losses(loss: float | None) -> dict[str, float | None]:
    """Loss in nats per token and perplexity, exp(loss). Neither where the loss is no finite number."""
    if loss is None or not math.isfinite(loss):
        return {}
    perplexity = math.exp(loss) if loss < _LARGEST_EXPONENT else None
    return {"loss": round(loss, _DIGITS), "perplexity": perplexity and round(perplexity, _DIGITS)}


def against(tuned: Measured, baseline: Measured, decisive: Metric, *, loss: float | None = None) -> Compared:
    """A baseline's scores, the intervals of tuned minus baseline, and the verdict of the decisive metric."""
    intervals = {
        FIELD_OF_METRIC[metric]: interval(tuned.values[metric] - baseline.values[metric]) for metric in tuned.values
    }
    decided = intervals[FIELD_OF_METRIC[decisive]]
    return Compared(
        **means(baseline),
        **losses(loss),
        verdict=verdict(decided) if decided else None,
        difference=Differences(**intervals) if any(intervals.values()) else None,
    )


def interval(differences: Numbers, *, seed: int = 0) -> Interval | None:
    """95 % interval of the mean difference by the paired bootstrap, percentile method (Efron 1979, Koehn 2004).

    Rows are drawn with replacement. Rows with the same difference are alike, so drawing rows is drawing how often each
    value comes: a multinomial. None where no row has a value on both sides.
    """
    differences = differences[~np.isnan(differences)]
    rows = len(differences)
    if rows == 0:
        return None
    values, counts = np.unique(differences, return_counts=True)
    chance = np.random.default_rng(seed)
    portion = max(1, _CELLS // len(values))
    found = []
    for start in range(0, RESAMPLES, portion):
        drawn = chance.multinomial(rows, counts / rows, size=min(portion, RESAMPLES - start))
        found.append(drawn @ values / rows)
    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return Interval(low=_clean(low), high=_clean(high))


def _clean(value: float) -> float:
    return 0.0 if abs(value) < _TINY else round(float(value), _DIGITS)


def verdict(difference: Interval) -> Verdict:
    """Whether the interval lies above, below or around zero."""
    if difference.low > 0:
        return "Better"
    return "Worse" if difference.high < 0 else "NoDifference"


def overall(verdicts: Sequence[Verdict | None]) -> Verdict | None:
    """The least favourable one: tuning was worth it if nothing that was tried does as well."""
    given = [one for one in verdicts if one is not None]
    order: tuple[Verdict, ...] = ("Worse", "NoDifference", "Better")
    return min(given, key=order.index, default=None)
