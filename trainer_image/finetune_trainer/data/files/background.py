"""Runs work that releases the GIL in a second thread while rows are checked.

A handover takes as long as checking hundreds of rows. So each piece of work should be worth thousands.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

PIECE_BYTES = 4 * 1024 * 1024
"""Bytes that are hashed at a time."""


def prefetched(found: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, produced by another thread; an error is raised where it would have been.

    Two items are always in flight: the thread starts the next one right away, without waiting for the GIL to be
    notified.
    """
    with ThreadPoolExecutor(1) as thread:
        asked = deque(thread.submit(next, found, None) for _ in range(2))
        while (one := asked.popleft().result()) is not None:
            asked.append(thread.submit(next, found, None))
            yield one


class BackgroundHash:
    """SHA-256 of an open file, computed by another thread that reads the file on its own.

    Handing over the bytes already read would be slower: they are no longer in any CPU cache.
    """

    def __init__(self, fd: int, max_bytes: int) -> None:
        """`fd`: file descriptor. `max_bytes`: bytes for the thread to read."""
        self._fd, self._digest, self._place = fd, hashlib.sha256(), 0
        self._piece = memoryview(bytearray(min(PIECE_BYTES, max_bytes)))
        self._is_wanted = True
        self._thread = ThreadPoolExecutor(1)
        self._done = self._thread.submit(self._up_to, max_bytes)

    def _up_to(self, end: int) -> None:
        while self._is_wanted and self._place < end:
            size = os.preadv(self._fd, [self._piece[: end - self._place]], self._place)
            if not size:
                return
            self._digest.update(self._piece[:size])
            self._place += size

    def of(self, count: int) -> str:
        """The hash of the first `count` bytes, in hexadecimal; the file may have grown since it was opened."""
        self._done.result()
        self._up_to(count)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Stop reading, before the file is closed."""
        self._is_wanted = False
        self._thread.shutdown()
