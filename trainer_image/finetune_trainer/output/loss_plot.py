"""loss.svg: both loss curves of a run, legible in a README. Reads metrics and writes no file."""

import io
import os
import tempfile
from typing import Any

from finetune_trainer.attempt.metrics import Metrics

_TRAIN, _VALIDATION, _INK = "#8fb3d9", "#c4572e", "#333333"
_FONT, _SIZE, _LEFT = 11, (8, 4.5), 0.11
"""Font size in points, size of the picture in inches, fraction of its width left of the axes."""
_POINTS = 72
"""Per inch."""
_SPIKE, _FEW = 10, 0.02
"""Up to this fraction of steps is cut off if they are this many times higher than the rest, which would be hidden."""


def draw(record: Metrics, *, title: str) -> str:
    """The plot as SVG: each step as a faint line, running mean and validation points as strong ones."""
    os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())  # a pod's home is read-only
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with mpl.rc_context({"svg.hashsalt": "finetune", "font.size": _FONT, "axes.edgecolor": _INK}):
        figure = Figure(figsize=_SIZE)
        # Fixed margins and title position: computing them would draw everything twice.
        axes = figure.subplots(gridspec_kw={"left": _LEFT, "right": 0.96, "bottom": 0.12, "top": 0.88})
        _curves(axes, record)
        axes.set_title(title, color=_INK, fontsize=_fitting(title), loc="left", y=1.06)  # above a power of ten
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(f"loss ({unit(record)})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.ticklabel_format(axis="y", scilimits=(-3, 5))
        axes.grid(color="#e6e6e6")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        return drawn.getvalue()


def _fitting(title: str) -> float:
    """The font size at which a title fits into one line."""
    from matplotlib.textpath import TextPath

    width = TextPath((0, 0), title, size=_FONT).get_extents().width if title else 0
    return _FONT * min(1.0, (1 - _LEFT) * _SIZE[0] * _POINTS / max(width, 1))


def unit(record: Metrics) -> str:
    """The unit of the record's losses."""
    return "nats per pair" if any("pairs" in line for line in record.lines) else "nats per completion token"


def _curves(axes: Any, record: Metrics) -> None:
    steps = [line for line in record.lines if "loss" in line]
    checks = [line for line in record.lines if "validationLoss" in line]
    numbers, losses = [line["step"] for line in steps], [line["loss"] for line in steps]
    validation = [line["validationLoss"] for line in checks]
    top = highest_shown(losses, validation)
    above = sum(loss > top for loss in losses)
    many = len(losses) > 20
    style = {"alpha": 0.6} if many else {"marker": "."}  # a line through a single point is invisible
    label = "training, each step" + (f" ({above} above, up to {max(losses):.3g})" if above else "")
    axes.plot(numbers, losses, color=_TRAIN, linewidth=1, label=label, **style)
    if many:
        axes.plot(
            numbers,
            running_mean([min(loss, top) for loss in losses]),
            color="#2f6db3",
            linewidth=2,
            label="training, running mean",
        )
    if checks:
        axes.plot(
            [line["step"] for line in checks], validation, "o-", color=_VALIDATION, linewidth=2, label="validation"
        )
    axes.set_ylim(*ends_of_axis(losses, validation, top))


def ends_of_axis(losses: list[float], validation: list[float], top: float) -> tuple[float, float | None]:
    """From zero to slightly above the highest loss; a loss of own code may be negative. None: where the curve ends."""
    return 1.05 * min([0.0, *losses, *validation]), max(1.05 * top, 0.0) or None


def running_mean(values: list[float], weight: float = 0.1) -> list[float]:
    """Exponential mean, corrected for its start: the first value is the first mean."""
    means, total, norm = [], 0.0, 0.0
    for value in values:
        total = (1 - weight) * total + weight * value
        norm = (1 - weight) * norm + weight
        means.append(total / norm)
    return means


def highest_shown(losses: list[float], validation: list[float]) -> float:
    """Upper end of the axis: the highest loss, except for single steps far above all others."""
    usual = sorted(losses)[: max(1, len(losses) - int(_FEW * len(losses)))]
    below = max([*usual[-1:], *validation], default=0.0)
    highest = max([*losses, *validation], default=0.0)
    return 2 * below if highest > _SPIKE * below > 0 else highest
