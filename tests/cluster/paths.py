"""Paths of the cluster's files: everything is in one cache folder of the user, so that one `rm -r` removes it all.

Only apt writes elsewhere. A second clone of the repository shares the cache.
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
    """`$XDG_CACHE_HOME/finetune-operator`, created if absent."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(base).resolve() / "finetune-operator"
    root.mkdir(parents=True, exist_ok=True)
    return root


def cache_dir(*parts: str) -> Path:
    """A folder of the cache, created if absent."""
    path = cache_root().joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def cluster_dir(name: str) -> Path:
    """The folder of the cluster called `name`; not created here."""
    return cache_root() / "clusters" / name


@contextmanager
def lock(name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a machine-wide lock: two test runs must not build the same thing concurrently."""
    with (cache_dir("locks") / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def lock_if_free(name: str) -> Iterator[bool]:
    """Try to take a lock; yields whether it is held. For cleanup that can wait."""
    with (cache_dir("locks") / name).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
