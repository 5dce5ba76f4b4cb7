"""Returns freed memory that the C library keeps to the system: for glibc, elsewhere does nothing."""

import ctypes
from functools import cache
from typing import Any


def trim() -> None:
    """Free whole pages between blocks in use; new allocations then have to map pages again."""
    malloc_trim = _malloc_trim()
    if malloc_trim is not None:
        malloc_trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
