"""The clocks that an operator goes by, its own and the API server's: a test moves them, while they go on running."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from pathlib import Path
from typing import Self

from finetune_api.manifest import Manifest

VARIABLE = "CHAOS_CLOCKS"
"""Of an operator's environment: the file by which its own clock goes."""


@dataclass(frozen=True)
class Clocks:
    """Seconds by which both clocks are ahead of this machine's, in a file: operators are processes of their own."""

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
        """For both."""
        own, server = (ahead.total_seconds() for ahead in self.ahead)
        self.set(own + seconds, server + seconds)

    def own(self) -> datetime:
        """By the operator's own clock."""
        return datetime.now(UTC) + self.ahead[0]

    def date(self) -> str:
        """The Date of the API server's answers."""
        return format_datetime(datetime.now(UTC) + self.ahead[1], usegmt=True)


class Stamps:
    """The times of the API server's own that its objects bear: made and deleted by its clock of that moment.

    The server itself knows nothing of hours that pass at once: of each object it counts when it was first seen so.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._ahead: dict[tuple[str, str], timedelta] = {}

    def put_right(self, obj: Manifest) -> None:
        """The times of an object, and of those that a list or a watch has of them."""
        for one in (obj, obj.get("object") or {}, *(obj.get("items") or ())):
            metadata = one.get("metadata") or {}
            for stamp in {"creationTimestamp", "deletionTimestamp"} & set(metadata):
                ahead = self._ahead.setdefault((metadata.get("uid", ""), stamp), self._clocks.ahead[1])
                metadata[stamp] = f"{datetime.fromisoformat(metadata[stamp]) + ahead:%Y-%m-%dT%H:%M:%SZ}"


def wear(path: Path) -> None:
    """In an operator's process: read the time off these clocks, where the operator reads its own."""
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
