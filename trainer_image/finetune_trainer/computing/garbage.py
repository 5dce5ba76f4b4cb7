"""Python's garbage collector, beside libraries of half a million objects that all stay until the process ends.

It walks over them again and again while they are imported, and whenever Accelerate asks for a collection, which it does
before and after each training: a sixth of the processor time of a short job.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

_YOUNG_OBJECTS = 50_000
"""That many new ones between two looks of the collector, where they are functions and classes."""


def import_for_good(*modules: str) -> None:
    """Import `modules`, and have the collector pass over all that is there by then.

    A model that was loaded before would be kept with it, so it has to come first; once in a process is enough.

    Raises:
        ModuleNotFoundError: this image lacks one of them.
    """
    with _seldom_collected():
        for module in modules:
            import_module(module)
    gc.freeze()
    atexit.register(gc.unfreeze)  # or Triton counts up all of its own as leaks


@contextmanager
def _seldom_collected() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(_YOUNG_OBJECTS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
