"""The clocks that an operator sees, its own and the API server's: tests shift them while they run."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from pathlib import Path
from typing import Self

from finetune_api.manifest import Manifest

VARIABLE = "CHAOS_CLOCKS"
"""Environment variable of an operator with the file of its own clock's offset."""


@dataclass(frozen=True)
class Clocks:
    """Offsets of both clocks from this machine's in seconds, in a file, as operators are separate processes."""

    path: Path

    def set(self, own: float, server: float) -> None:
        """Set them: the operator's own clock, and the API server's, which it sees by its answers."""
        new = self.path.with_suffix(".new")
        new.write_text(f"{own} {server}")
        new.rename(self.path)

    @property
    def ahead(self) -> tuple[timedelta, timedelta]:
        """The operator's own clock, and the API server's."""
        own, server = self.path.read_text().split()
        return timedelta(seconds=float(own)), timedelta(seconds=float(server))

    def pass_time(self, seconds: float) -> None:
        """Advance both clocks."""
        own, server = (ahead.total_seconds() for ahead in self.ahead)
        self.set(own + seconds, server + seconds)

    def own(self) -> datetime:
        """Now, by the operator's own clock."""
        return datetime.now(UTC) + self.ahead[0]

    def date(self) -> str:
        """The Date of the API server's answers."""
        return format_datetime(datetime.now(UTC) + self.ahead[1], usegmt=True)


class Stamps:
    """Rewrites the API server's timestamps of objects to the simulated server clock.

    The server does not know the simulated clock, so an object's times are set when they are first seen.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._ahead: dict[tuple[str, str], timedelta] = {}

    def put_right(self, obj: Manifest) -> None:
        """Rewrite the times of an object, or of those in a list or watch event."""
        for one in (obj, obj.get("object") or {}, *(obj.get("items") or ())):
            metadata = one.get("metadata") or {}
            for stamp in {"creationTimestamp", "deletionTimestamp"} & set(metadata):
                ahead = self._ahead.setdefault((metadata.get("uid", ""), stamp), self._clocks.ahead[1])
                metadata[stamp] = f"{datetime.fromisoformat(metadata[stamp]) + ahead:%Y-%m-%dT%H:%M:%SZ}"


def wear(path: Path) -> None:
    """Make an operator's process use these clocks instead of its own."""
    from finetune_operator import __main__
    from finetune_operator.runtime import server_clock

    clocks = Clocks(path)

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + clocks.ahead[0]

    passed = server_clock.uptime
    for module in (__main__, server_clock):
        module.datetime = Moved  # type: ignore[attr-defined]
    server_clock.uptime = lambda: passed() + clocks.ahead[0].total_seconds()
