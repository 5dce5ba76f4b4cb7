"""The user's bill: single charges, and hourly meters."""

import math
from dataclasses import dataclass
from decimal import Decimal

from tests.simulators.clock import HOUR, Clock


@dataclass(frozen=True)
class Charge:
    """One line of the bill, in US dollars."""

    at: float
    resource: str
    what: str
    amount: Decimal


@dataclass
class Meter:
    """A resource that costs money while it exists. Each started step is billed in full."""

    resource: str
    what: str
    per_hour: Decimal
    since: float
    step_seconds: float

    def amount(self, now: float) -> Decimal:
        steps = math.ceil((now - self.since) / self.step_seconds)
        return self.per_hour * Decimal(steps) * Decimal(self.step_seconds) / Decimal(HOUR)


class Ledger:
    """The bill. `total` includes the running meters so far."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._charges: list[Charge] = []
        self._meters: dict[str, Meter] = {}

    def charge(self, resource: str, what: str, amount: Decimal) -> None:
        """Bill an amount once."""
        self._charges.append(Charge(self._clock.now, resource, what, amount))

    def start(self, resource: str, what: str, per_hour: Decimal, step_seconds: float = 1.0) -> None:
        """Bill `per_hour` for a resource from now on; a meter that ran before it is closed."""
        self.stop(resource)
        self._meters[resource] = Meter(resource, what, per_hour, self._clock.now, step_seconds)

    def stop(self, resource: str) -> None:
        """Stop billing a resource by the hour."""
        if meter := self._meters.pop(resource, None):
            self.charge(resource, meter.what, meter.amount(self._clock.now))

    def lines(self) -> list[Charge]:
        """The bill so far, running meters last."""
        now = self._clock.now
        running = [Charge(now, meter.resource, meter.what, meter.amount(now)) for meter in self._meters.values()]
        return self._charges + running

    def total(self, resource: str | None = None) -> Decimal:
        """Dollars so far, of everything or of one resource."""
        amounts = [line.amount for line in self.lines() if resource in {None, line.resource}]
        return sum(amounts, Decimal(0))

    def per_hour(self) -> Decimal:
        """Dollars that each further hour costs."""
        return sum((meter.per_hour for meter in self._meters.values()), Decimal(0))

    def running(self) -> list[str]:
        """The resources that are billed by the hour."""
        return sorted(self._meters)
