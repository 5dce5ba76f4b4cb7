"""Pointers of Git LFS: what stands in place of large files where a repository was cloned without it."""

from pathlib import Path

_BEGIN = b"version https://git-lfs"


def is_pointer(path: Path) -> bool:
    """Whether the file is a pointer to what it should be."""
    with path.open("rb") as file:
        return file.read(len(_BEGIN)) == _BEGIN


def in_words(path: Path) -> str:
    """What is wrong with it, and what mends the place that it was copied from."""
    return f"{path.name} is a pointer of Git LFS, not the file itself (git lfs pull, where the model was cloned)"
