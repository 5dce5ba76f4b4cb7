"""Where the cluster keeps things: everything in one cache folder of the user, so that one `rm -r` removes all of it.

Nothing is written elsewhere but by apt. A second clone of the repository finds the same cache and is warm with it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
KUBE_MODULE = Path(__file__).resolve().parent / "kube"


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/finetune-operator`, made when absent."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(base).resolve() / "finetune-operator"
    root.mkdir(parents=True, exist_ok=True)
    return root


def cache_dir(*parts: str) -> Path:
    """A folder of the cache, made when absent."""
    path = cache_root().joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def cluster_dir(name: str) -> Path:
    """Where the cluster called `name` keeps its own files; not made here."""
    return cache_root() / "clusters" / name


@contextmanager
def lock(name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock among the processes of this machine: two test runs must not build the same thing into one place."""
    with (cache_dir("locks") / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def lock_if_free(name: str) -> Iterator[bool]:
    """Hold a lock unless somebody else does; gives whether it is held. For tidying that can wait."""
    with (cache_dir("locks") / name).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
