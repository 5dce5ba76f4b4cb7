"""Which contenders do which task: for speed, and for whether all learn the same from the same rows."""

import math
from dataclasses import dataclass, replace
from typing import Any

from bench.trainer.work import Task

Contender = tuple[str, dict[str, Any]]

_BF16 = {"precision": "BFloat16"}
_FP32 = {"precision": "Float32"}


@dataclass(frozen=True)
class Race:
    """One task, and its contenders."""

    task: Task
    contenders: tuple[Contender, ...]

    @property
    def tasks(self) -> list[Task]:
        """The task for each contender."""
        return [replace(self.task, contender=name, **own) for name, own in self.contenders]


def named(task: Task) -> str:
    """A contender's name on the page."""
    return task.contender + ("" if task.precision == "Auto" else f"-{task.precision.lower()}")


def _race(shape: str, lengths: str, batch: int, *contenders: str | Contender, **about: Any) -> Race:
    task = Task("", shape, lengths, batch, **({"steps": 20} | about))
    return Race(task, tuple((one, {}) if isinstance(one, str) else one for one in contenders))


IN_ORDER = ("ours", "transformers", "trl-in-order", "llamafactory", "unsloth")
"""Contenders that take rows in order, in 32 bits on a CPU: their losses are comparable step by step."""

AGREEMENT = _race(
    "tiny", "ragged-cpu", 16, "ours-padded", *IN_ORDER, steps=40, warm_up=1, seconds=math.inf, held_out=64,
    learning_rate=1e-2, **_FP32,
)  # fmt: skip

CPU = _race(
    "135M", "ragged-cpu", 16, "ours", ("ours", _FP32), "trl-defaults", "transformers", ("trl-grouped", _BF16),
    ("unsloth-slim", _BF16), ("llamafactory-slim", _BF16), "unsloth", "llamafactory", ("transformers", _BF16),
    ("trl-packing", _BF16), warm_up=1,
)  # fmt: skip

_PEERS = (
    "trl-defaults", "trl-liger", "trl-packing", "trl-packing-liger", "transformers", "llamafactory",
    "llamafactory-slim", "unsloth", "unsloth-slim",
)  # fmt: skip
_PEERS_OF_LONG_ROWS: tuple[str | Contender, ...] = (
    ("trl-liger", {"each": 2}), "trl-defaults", ("unsloth", {"each": 2}), ("unsloth-slim", {"each": 2}),
)  # fmt: skip
"""Rows of equal length need no packing."""

_FOUR_BITS = ("ours-eager", "ours", "ours-unfused-eager", "trl-packing-liger", "unsloth-slim")
"""The best setting of each for QLoRA."""

_DROPOUT = ("ours-dropout", "ours-eager-dropout")

GPU = (
    *(_race(shape, "ragged", 32, "ours-eager", "ours", *_PEERS, *_DROPOUT) for shape in ("0.5B", "1.5B", "8B")),
    _race("8B-nf4", "ragged", 32, *_FOUR_BITS),
    *(_race(shape, "fixed", 8, "ours", "ours-eager", *_PEERS_OF_LONG_ROWS) for shape in ("1.5B", "8B")),
)


def races(device: str) -> tuple[Race, ...]:
    """All races on `cpu` or `cuda`."""
    return {"cpu": (AGREEMENT, CPU), "cuda": GPU}[device]
