"""What the C library keeps of freed memory, given back to the system: with glibc, elsewhere nothing happens."""

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Free what lies between blocks that are in use, page by page; whoever needs it again waits for empty pages."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
