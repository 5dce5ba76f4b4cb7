"""Pointers of Git LFS, found in place of large files if a repository was cloned without it."""

from pathlib import Path

_BEGIN = b"version https://git-lfs"


def is_pointer(path: Path) -> bool:
    """Whether the file is a pointer instead of the real file."""
    with path.open("rb") as file:
        return file.read(len(_BEGIN)) == _BEGIN


def problem(path: Path) -> str:
    """The problem, with the fix for the source that it was copied from."""
    return f"{path.name} is a pointer of Git LFS, not the file itself (git lfs pull, where the model was cloned)"
