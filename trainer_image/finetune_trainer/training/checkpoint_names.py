"""Which checkpoint is the newest, by its name alone; what is in one is `checkpoint.py`'s matter. Needs no torch."""

from pathlib import Path

PREFIX = "step-"


def folder_name(step: int) -> str:
    """What the checkpoint of a step is called."""
    return f"{PREFIX}{step:08d}"


def checkpoints_in(root: Path) -> list[Path]:
    """The checkpoints below `root`, the newest last."""
    return sorted(path for path in root.glob(f"{PREFIX}*") if path.is_dir()) if root.is_dir() else []


def newest_step(root: Path) -> int | None:
    """Step of the newest checkpoint; None where there is none, or the volume does not answer now."""
    try:
        numbers = [path.name.removeprefix(PREFIX) for path in checkpoints_in(root)]
    except OSError:
        return None
    return max((int(number) for number in numbers if number.isdecimal()), default=None)
