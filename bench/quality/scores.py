"""Scores of one-word answers out of three classes, and their spread over seeds. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev


@dataclass(frozen=True)
class Scores:
    """Fractions: accuracy; F1 per class, as a plain mean and weighted by the frequency of the class."""

    accuracy: float
    macro_f1: float
    weighted_f1: float


def scores(answers: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> Scores:
    """An answer outside of the classes is wrong, and counts against the right class."""
    pairs = list(zip(answers, labels, strict=True))
    f1 = [_f1(pairs, one) for one in classes]
    counts = [sum(label == one for label in labels) for one in classes]
    weighted = sum(value * count for value, count in zip(f1, counts, strict=True)) / len(pairs)
    return Scores(sum(answer == label for answer, label in pairs) / len(pairs), mean(f1), weighted)


def _f1(pairs: Sequence[tuple[str, str]], one: str) -> float:
    """2 TP / (2 TP + FP + FN); 0 if the class neither occurs nor is answered."""
    hits = sum(answer == label == one for answer, label in pairs)
    either = sum(answer == one for answer, _ in pairs) + sum(label == one for _, label in pairs)
    return 2 * hits / either if either else 0.0


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation, formatted for a table."""
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{mean(values):.3f}"
