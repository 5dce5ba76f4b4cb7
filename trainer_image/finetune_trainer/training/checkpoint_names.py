"""Names of checkpoint folders, and which is the newest by name. Their content is in `checkpoint.py`. Needs no torch."""

from pathlib import Path

PREFIX = "step-"


def folder_name(step: int) -> str:
    """The folder name of a step's checkpoint."""
    return f"{PREFIX}{step:08d}"


def checkpoints_in(root: Path) -> list[Path]:
    """The checkpoints below `root`, newest last."""
    return sorted(path for path in root.glob(f"{PREFIX}*") if path.is_dir()) if root.is_dir() else []


def newest_step(root: Path) -> int | None:
    """Step of the newest checkpoint; None if there is none or the volume cannot be read."""
    try:
        numbers = [path.name.removeprefix(PREFIX) for path in checkpoints_in(root)]
    except OSError:
        return None
    return max((int(number) for number in numbers if number.isdecimal()), default=None)
