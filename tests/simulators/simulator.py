"""Shared by all simulators: state under a lock, a clock, faults, a bill, and a record of the calls."""

import itertools
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from tests.simulators.clock import Clock
from tests.simulators.faults import Fault, FaultPlan
from tests.simulators.http import ApiError, Call, Meddle, Reply, Route, pass_on
from tests.simulators.ids import Ids
from tests.simulators.ledger import Ledger

_numbers = itertools.count()
"""Seeds, so that IDs of different simulators, which may share one moto's usage metrics, never collide."""


class Settings(BaseModel):
    """Settings that a test may change while the simulator runs."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


@dataclass(frozen=True)
class Resource:
    """A resource of the user at the provider."""

    kind: str
    name: str
    state: str = ""


@dataclass
class Recorded:
    """A received call: what the client saw, and whether it was carried out."""

    at: float
    operation: str
    committed: bool = False
    seen: str = ""
    received: float = field(default_factory=time.time)
    """By the real clock, in seconds since 1970."""


class Simulator(ABC):
    """A provider. Everything public may be used by a test while the server answers calls in its own thread."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self.ledger = Ledger(self.clock)
        self.faults = FaultPlan()
        self.meddle: Meddle = pass_on
        self.ids = Ids(next(_numbers))
        self.calls: list[Recorded] = []
        self.beside: dict[str, Simulator] = {}
        """Other accounts at the same address, by the Authorization header of their calls."""
        self.defects: list[str] = []
        self.lock = threading.RLock()
        self.held = ExitStack()

    def of(self, authorization: str) -> "Simulator":
        """Whose account a call is on."""
        return next((other for key, other in self.beside.items() if key in authorization), self)

    @abstractmethod
    def routes(self) -> list[Route]:
        """Every operation."""

    @abstractmethod
    def authorize(self, call: Call) -> None:
        """Check a call's credentials.

        Raises:
            ApiError: they are invalid.
        """

    @abstractmethod
    def error(self, error: ApiError, operation: str) -> Reply:
        """An error in the provider's format for this operation."""

    def headers(self) -> dict[str, str]:
        """Headers of every answer to an authorized call."""
        return {}

    @abstractmethod
    def resources(self) -> list[Resource]:
        """The user's resources at the provider, which would have to be cleaned up."""

    def close(self) -> None:
        """Release what the simulator holds outside memory."""
        self.held.close()

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        with self.lock:
            self.clock.advance(seconds)

    def fault(self, operation: str, **fault: Any) -> None:
        """Plan a fault; see `Fault` for the arguments."""
        with self.lock:
            self.faults.plan(Fault(operation=operation, **fault))

    def set(self, **settings: Any) -> None:
        """Change settings by name."""
        with self.lock:
            for name, value in settings.items():
                setattr(self.settings, name, value)

    def cost(self, resource: str | None = None) -> Decimal:
        """Dollars so far."""
        with self.lock:
            self.clock.catch_up()
            return self.ledger.total(resource)

    def left(self) -> list[Resource]:
        """The user's current resources at the provider."""
        with self.lock:
            self.clock.catch_up()
            return self.resources()

    def count(self, operation: str, *, committed: bool = True) -> int:
        """How often an operation was carried out, or only called."""
        with self.lock:
            return sum(call.operation == operation and (call.committed or not committed) for call in self.calls)

    def state(self) -> dict[str, Any]:
        """All of the above as JSON, for a test in another process."""
        with self.lock:
            self.clock.catch_up()
            return {
                "now": self.clock.now,
                "rate": self.clock.rate,
                "total": self.ledger.total(),
                "perHour": self.ledger.per_hour(),
                "running": self.ledger.running(),
                "lines": [asdict(line) for line in self.ledger.lines()],
                "left": [asdict(resource) for resource in self.left()],
                "calls": [asdict(call) for call in self.calls],
                "faults": [fault.model_dump() for fault in self.faults.pending()],
                "settings": self.settings.model_dump(mode="json"),
                "defects": self.defects,
            }
