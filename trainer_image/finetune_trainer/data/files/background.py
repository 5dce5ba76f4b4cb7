"""What another thread does while rows are looked at: what does not hold Python's lock, as looking at them does.

To hand something over takes as long as looking at hundreds of rows. So each should be worth thousands.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

PIECE = 4 * 1024 * 1024
"""Of a file that is hashed at a time."""


def ahead(found: Iterator[T]) -> Iterator[T]:
    """The same, one by one, in the same order, made by another thread; an error comes where it would have come.

    Two are asked for at any time: the thread begins one as soon as it has ended one, and needs not wait for the lock to
    be told.
    """
    with ThreadPoolExecutor(1) as other:
        asked = deque(other.submit(next, found, None) for _ in range(2))
        while (one := asked.popleft().result()) is not None:
            asked.append(other.submit(next, found, None))
            yield one


class Hashed:
    """SHA-256 of an open file, which another thread reads for itself, from a place of its own.

    To be handed what was read would take longer: it is in no processor's cache any more.
    """

    def __init__(self, number: int, most: int) -> None:
        """`number`: of the open file. `most`: bytes that the thread reads."""
        self._number, self._digest, self._place = number, hashlib.sha256(), 0
        self._piece = memoryview(bytearray(min(PIECE, most)))
        self._is_wanted = True
        self._other = ThreadPoolExecutor(1)
        self._done = self._other.submit(self._up_to, most)

    def _up_to(self, end: int) -> None:
        while self._is_wanted and self._place < end:
            size = os.preadv(self._number, [self._piece[: end - self._place]], self._place)
            if not size:
                return
            self._digest.update(self._piece[:size])
            self._place += size

    def of(self, count: int) -> str:
        """Of so many bytes, in hexadecimal; there may be more than there were at the beginning."""
        self._done.result()
        self._up_to(count)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Read no more, before the file is closed."""
        self._is_wanted = False
        self._other.shutdown()
