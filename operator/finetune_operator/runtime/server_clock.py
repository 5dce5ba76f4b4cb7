"""The API server's clock, taken from its answers: all times in status, limits and ages refer to it.

The operator's node may be minutes or hours off. By that clock it would delete finished jobs early, stop servers in use
and consider young pods late; and two replicas on two nodes would contradict each other.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from finetune_operator.runtime.http_date import http_date
from finetune_operator.runtime.uptime import uptime

logger = logging.getLogger(__name__)

RESOLUTION = timedelta(seconds=1)
"""Date headers have whole seconds."""

TOLERANCE = timedelta(seconds=2)
"""A difference that needs no correction: synchronised clocks vary by less."""


def steady_clock() -> Callable[[], datetime]:
    """Our own clock as it is now, plus the time that passes: setting the clock later has no effect.

    Otherwise, until the next answer corrects it, a deadline might seem over, and a paid job be cancelled for it.
    """
    began = datetime.now(UTC) - timedelta(seconds=uptime())
    return lambda: began + timedelta(seconds=uptime())


class ServerClock:
    """Our own clock, corrected as soon as an answer contradicts it.

    Args:
        local: our own clock, with a time zone; default: a steady one.
    """

    def __init__(self, local: Callable[[], datetime] | None = None) -> None:
        self._local = local or steady_clock()
        self._ahead = timedelta()
        self._last = ""

    def local(self) -> datetime:
        """By our own clock; call it when a request is sent."""
        return self._local()

    def now(self) -> datetime:
        """By the API server's clock."""
        return self._local() + self._ahead

    def observe(self, date: str | None, sent: datetime) -> None:
        """Use an answer's Date header; `sent` is the local time of its request.

        The server wrote it between then and now. If the present estimate of its clock does not fit, the nearest value
        that does replaces it.
        """
        if date is None or date == self._last or (said := http_date(date)) is None:
            return
        self._last = date
        earliest, latest = said - self._local(), said + RESOLUTION - sent
        if not earliest - TOLERANCE <= self._ahead <= latest + TOLERANCE:
            self._ahead = earliest if self._ahead < earliest else latest
            seconds = self._ahead.total_seconds()
            where = "behind" if seconds > 0 else "ahead of"
            logger.warning("this node's clock is %.0f s %s the API server's, which is gone by", abs(seconds), where)
