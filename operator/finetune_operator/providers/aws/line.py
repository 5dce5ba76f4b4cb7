"""What a call on AWS goes over, hung up when the call has used up its time.

botocore's threads cannot be interrupted, and its time-outs are of silence alone: a thread that reads what drips would
be lost to the connection's calls. Without its socket it ends.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool

_here = threading.local()


class Late(Exception):
    """The call's time was over before its request went out."""


class Line:
    """One call's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._hung_up = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """What this thread sends goes over this line."""
        _here.line = self
        try:
            yield
        finally:
            _here.line = None
            with self._lock:
                self._sockets.clear()  # the next call may be on them by now

    def take(self, over: socket.socket) -> None:
        """A request goes out over this socket.

        Raises:
            Late: it must not.
        """
        with self._lock:
            if self._hung_up:
                raise Late
            self._sockets.append(over)

    def hang_up(self) -> None:
        """From any thread: whatever is on its way ends, and nothing goes out any more."""
        with self._lock:
            self._hung_up = True
            for one in self._sockets:
                with suppress(OSError):
                    socket.socket.shutdown(one, socket.SHUT_RDWR)  # one with TLS would say goodbye first, and wait


class _Held:
    """A connection of botocore's that tells its thread's line of its socket."""

    sock: socket.socket | None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._tell()

    def request(self, *arguments: Any, **options: Any) -> None:
        self._tell()
        super().request(*arguments, **options)  # type: ignore[misc]

    def _tell(self) -> None:
        line: Line | None = getattr(_here, "line", None)
        if line is not None and self.sock is not None:
            line.take(self.sock)


class _Http(_Held, AWSHTTPConnection):  # type: ignore[misc]  # botocore has no types
    pass


class _Https(_Held, AWSHTTPSConnection):  # type: ignore[misc]  # botocore has no types
    pass


class _HttpPool(AWSHTTPConnectionPool):  # type: ignore[misc]  # botocore has no types
    ConnectionCls = _Http


class _HttpsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]  # botocore has no types
    ConnectionCls = _Https


POOLS = {"http": _HttpPool, "https": _HttpsPool}
"""As urllib3 has them by an address' scheme."""
