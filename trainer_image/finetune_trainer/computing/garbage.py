"""Python's garbage collector with libraries of half a million objects that live until the process ends.

It traverses them again and again during imports, and whenever Accelerate requests a collection, before and after each
training: a sixth of the CPU time of a short job.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

_YOUNG_OBJECTS = 50_000
"""Collection threshold during imports, which create functions and classes."""


def import_and_freeze(*modules: str) -> None:
    """Import `modules`, then exclude all existing objects from garbage collection.

    A model loaded before would never be freed, so call this first; once per process is enough.

    Raises:
        ModuleNotFoundError: this image lacks one of them.
    """
    with _seldom_collected():
        for module in modules:
            import_module(module)
    gc.freeze()
    atexit.register(gc.unfreeze)  # otherwise Triton reports its objects as leaks


@contextmanager
def _seldom_collected() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
