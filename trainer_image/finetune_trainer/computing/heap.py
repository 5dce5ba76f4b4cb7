"""Returns freed memory that the C library keeps to the system: for glibc, elsewhere does nothing."""

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Free whole pages between blocks in use; new allocations then have to map pages again."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
