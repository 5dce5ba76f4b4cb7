"""The next of what is read is made in a thread, while the one before is looked at: disks, stores and hashes overlap.

Only work that leaves Python's lock alone gains by it, in pieces that take milliseconds each.
"""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(found: Generator[T, None, None]) -> Generator[T, None, None]:
    """The same, in the same order; what it raises is raised here, behind all that came before it.

    Closing it waits for what is being made, and closes `found`.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="reads-ahead") as thread:
            coming = thread.submit(next, found, None)
            while (one := coming.result()) is not None:
                coming = thread.submit(next, found, None)
                yield one
    finally:
        found.close()
