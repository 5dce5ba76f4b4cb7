"""Aborts an AWS call whose time is used up, by shutting down its sockets.

botocore's threads cannot be interrupted, and its timeouts only apply to silence: a thread that reads a slowly dripping
answer would be blocked. Once its socket is shut down it ends.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool

_thread = threading.local()


class Aborted(Exception):
    """The call's time was used up before its request was sent."""


class Line:
    """The sockets of one call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._aborted = False

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Register the sockets that this thread uses."""
        _thread.line = self
        try:
            yield
        finally:
            _thread.line = None
            with self._lock:
                self._sockets.clear()  # other calls may reuse them by now

    def add(self, over: socket.socket) -> None:
        """Register the socket of a request.

        Raises:
            Late: the call was aborted.
        """
        with self._lock:
            if self._aborted:
                raise Aborted
            self._sockets.append(over)

    def abort(self) -> None:
        """Abort the call's requests, and refuse further ones; callable from any thread."""
        with self._lock:
            self._aborted = True
            for one in self._sockets:
                with suppress(OSError):
                    socket.socket.shutdown(one, socket.SHUT_RDWR)  # an SSLSocket's own would wait for close_notify


class _Tracked:
    """A botocore connection that registers its socket with its thread's line."""

    sock: socket.socket | None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._register()

    def request(self, *arguments: Any, **options: Any) -> None:
        self._register()
        super().request(*arguments, **options)  # type: ignore[misc]

    def _register(self) -> None:
        line: Line | None = getattr(_thread, "line", None)
        if line is not None and self.sock is not None:
            line.add(self.sock)


class _Http(_Tracked, AWSHTTPConnection):  # type: ignore[misc]  # botocore has no types
    pass


class _Https(_Tracked, AWSHTTPSConnection):  # type: ignore[misc]  # botocore has no types
    pass


class _HttpPool(AWSHTTPConnectionPool):  # type: ignore[misc]  # botocore has no types
    ConnectionCls = _Http


class _HttpsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]  # botocore has no types
    ConnectionCls = _Https


POOLS = {"http": _HttpPool, "https": _HttpsPool}
"""urllib3's connection pools by scheme."""
