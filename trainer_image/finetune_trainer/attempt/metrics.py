"""The full record of a run, metrics.jsonl: one line per optimizer step, one per validation.

Lines are {"step", "epoch", "loss", "learningRate", "gradNorm", "tokens", "completionTokens"} and {"step", "epoch",
"validationLoss"}. Losses are nats per completion token. In preference training there are "pairs" instead of
"completionTokens", losses are per pair, and both kinds of lines have "rewardAccuracy", "rewardMargin" and
"chosenLoss", nats per token of the chosen answers. Own code may report only tokens: {"step", "epoch", "tokens"}. The
record is drawn in `output/loss_plot.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune_api.job_status import LOSS_POINTS, Loss, LossPoint
from finetune_api.trainer import thin
from finetune_trainer.storage.durable import text_in, volume_error, whole_file, write_errors

FILE = "metrics.jsonl"
_MEASURES = ("rewardAccuracy", "rewardMargin")
CHOSEN_LOSS = "chosenLoss"


class Metrics:
    """The record at `path`, in memory and on disk. Call `keep_until` with the checkpoint's step before resuming.

    The system decides when lines reach the disk: each checkpoint has a copy of those of its steps.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = list(_read(path)) if path.exists() else []

    def keep_until(self, step: int, saved: Path | None = None) -> None:
        """Drop all lines after `step`, also on disk: a resumed run writes these steps again.

        `saved` is a checkpoint's copy of the record, used if more lines were lost here.
        """
        known = [self.lines, *([list(_read(saved))] if saved and saved.is_file() else [])]
        self.lines = max(([line for line in lines if line["step"] <= step] for lines in known), key=len)
        self.write(self.path)

    def write(self, path: Path) -> None:
        """Write all lines to a file, atomically."""
        whole_file(path, self.text().encode())

    def text(self) -> str:
        """All lines as text."""
        return "".join(map(_as_line, self.lines))

    def add(self, **line: Any) -> None:
        """Append one line."""
        self.lines.append(line)
        with write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_as_line(line))

    def has_validation(self, step: int) -> bool:
        """Whether the validation loss after this step is known."""
        return any(line["step"] == step and "validationLoss" in line for line in self.lines)

    @property
    def tokens(self) -> int:
        """Tokens of all steps, without padding."""
        return sum(line.get("tokens", 0) for line in self.lines)

    def curves(self) -> Loss:
        """Both curves with at most LOSS_POINTS points: training as weighted means over windows of equal length."""
        steps = [line for line in self.lines if "loss" in line]
        checks = [line for line in self.lines if "validationLoss" in line]
        validation = [_point(line["step"], line["validationLoss"], line) for line in checks]
        return Loss(train=_windows(steps), validation=thin(validation, LOSS_POINTS))


def _windows(steps: list[dict[str, Any]]) -> list[LossPoint]:
    """Windows end at multiples of their length, so that old points of a curve stay when new ones are added."""
    length = -(-len(steps) // (LOSS_POINTS - 1)) if len(steps) > LOSS_POINTS else 1
    return [_mean(steps[start : start + length]) for start in range(0, len(steps), length)]


def _mean(window: list[dict[str, Any]]) -> LossPoint:
    weights = [line["pairs"] if "pairs" in line else line["completionTokens"] for line in window]
    means = {
        name: sum(line[name] * weight for line, weight in zip(window, weights, strict=True)) / sum(weights)
        for name in ("loss", *_MEASURES)
        if name in window[0]
    }
    return _point(window[-1]["step"], means["loss"], means)


def _point(step: int, loss: float, measures: dict[str, Any]) -> LossPoint:
    accuracy, margin = (measures.get(name) for name in _MEASURES)
    return LossPoint(step=step, value=loss, reward_accuracy=accuracy, reward_margin=margin)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a record: a killed writer may have left a partial last line, or the file is not a record.

    Raises:
        TrainerError: ArtifactFailed, or StoreUnavailable: it is a folder, or cannot be read.
    """
    try:
        written = text_in(path, errors="replace")
    except OSError as error:
        step = f"Remove {path}, or let the trainer read and write it, and try again (in a cluster by spec.retryNonce)."
        raise volume_error(f"{path} could not be read", error, step) from error
    for text in written.splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            return
        if not (isinstance(line, dict) and isinstance(line.get("step"), int)):
            return
        yield line


def _as_line(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"
