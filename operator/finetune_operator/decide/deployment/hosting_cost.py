"""What a ModelDeployment's deployments at a provider cost per hour, and have cost so far. Pure; an estimate.

The cost of deployments that are gone is kept in `ended`, so the sum continues over new versions, sleep and attaching.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from finetune_api.deployment import DeploymentCost, HostedDeployment
from finetune_api.money import as_summand, in_cents
from finetune_operator.decide.conditions import moment, timestamp
from finetune_operator.decide.deployment.hosted import LONG
from finetune_operator.decide.deployment.hosted_record import Hosted, existed_until, is_missed, whole


@dataclass(frozen=True)
class Rate:
    """The hourly price of a deployment."""

    sku: str
    """The catalogue's key of it."""
    per_hour: str | None
    """None if its price is not known."""
    as_of: date | None = None
    """The date of that price, if known."""


Price = Callable[[Hosted], Rate | None]
"""The rate of an existing deployment; None if it is not billed by the hour."""

UNKNOWN = "unknown"
_ATTACHED = ", attached"
"""Marks a price that another object's row may show as well, for those who add up the column."""


def billed(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], price: Price, now: datetime
) -> tuple[HostedDeployment, ...]:
    """The record with each deployment's price and start of billing. One that is gone is no longer billed."""
    return tuple(_billed(one, whole(found, one.name), price, now) for one in recorded)


def _billed(one: HostedDeployment, there: Hosted | None, price: Price, now: datetime) -> HostedDeployment:
    if there is None and one.answered and one.released_at is None and one.unseen_since and not is_missed(one, now):
        return one  # missing from one list
    if there is None or there.connection != one.connection:
        return one.model_copy(update={"billed_since": None})
    rate = price(there)
    if rate is None or (one.billed_since is None and there.state != "Ready"):
        return one
    # Hours at an earlier price are added to the sum, like those of a deleted deployment: capacity can change in place.
    changed = None not in {rate.per_hour, one.per_hour} and rate.per_hour != one.per_hour
    since = timestamp(now) if changed else one.billed_since or timestamp(_exists_since(one, now))
    return one.model_copy(update={"billed_since": since, "per_hour": rate.per_hour or one.per_hour})


def _exists_since(one: HostedDeployment, now: datetime) -> datetime:
    """Billing starts when a deployment is ready: at the first list that shows it.

    If nothing was listed for hours, it may have existed all the time. For one that counted as gone and is back, the
    time before is in `ended`.
    """
    asked = moment(one.created_at)
    return now if one.per_hour is not None or now - asked < LONG else asked


def basis(rates: Iterable[Rate], currency: str) -> str | None:
    """How the hourly price is made up, in words; None if nothing is billed by the hour."""
    return "; ".join(sorted({_basis(rate, currency) for rate in rates})) or None


def _basis(rate: Rate, currency: str) -> str:
    if rate.per_hour is None:
        return f"what an hour of {rate.sku} costs is not known: an admin may put it into the chart's providerCatalogue"
    dated = f" of {rate.as_of}" if rate.as_of else ""
    return f"{rate.sku} at {rate.per_hour} {currency} an hour, list price{dated}"


def total(
    before: DeploymentCost | None,
    earlier: Sequence[HostedDeployment],
    recorded: Sequence[HostedDeployment],
    currency: str,
    now: datetime,
) -> DeploymentCost | None:
    """Hourly price of all that exists, and cost of all that ever existed; None if nothing was billed by the hour.

    One unknown price, or one in another currency, makes the sum unknown: leaving it out would look as if it were free.

    Args:
            before: the cost in status.
            earlier: the record in status.
            recorded: the new record, as returned by `billed`.
            currency: of the catalogue's prices.
            now: the time.
    """
    standing = {one.name: one for one in recorded if one.billed_since is not None}
    gone = [one for one in earlier if one.billed_since is not None and _is_over(one, standing.get(one.name))]
    foreign = before is not None and before.ended is not None and before.currency != currency
    ended = Decimal(before.ended or "0") if before and not foreign else Decimal(0)
    ended += sum((_so_far(one, existed_until(one, now)) for one in gone), Decimal(0))
    unpriced = foreign or (before is not None and before.unpriced is True)
    unpriced |= any(one.per_hour is None for one in gone)
    if not standing and not ended and not unpriced:
        return None
    known = all(one.per_hour is not None for one in standing.values())
    per_hour = in_cents(sum((Decimal(one.per_hour or "0") for one in standing.values()), Decimal(0)))
    so_far = ended + sum((_so_far(one, now) for one in standing.values()), Decimal(0))
    whose = _ATTACHED if standing and all(one.attached for one in standing.values()) else ""
    return DeploymentCost(
        per_hour=per_hour if known else None,
        since_deployed=in_cents(so_far) if known and not unpriced else None,
        ended=as_summand(ended) if ended else None,
        unpriced=unpriced or None,
        display=f"{per_hour} {currency}/h{whose}" if known else UNKNOWN,
        currency=currency,
    )


def _is_over(one: HostedDeployment, now: HostedDeployment | None) -> bool:
    """Whether it is gone, or has had another price since."""
    return now is None or (one.per_hour is not None and now.per_hour != one.per_hour)


def past(cost: DeploymentCost | None) -> DeploymentCost | None:
    """The cost that remains once no deployment at a provider is needed: that of the deployments that are gone."""
    if cost is None or not (cost.ended or cost.unpriced):
        return None
    so_far = None if cost.unpriced else in_cents(Decimal(cost.ended or "0"))
    return DeploymentCost(since_deployed=so_far, ended=cost.ended, unpriced=cost.unpriced, currency=cost.currency)


def _so_far(one: HostedDeployment, until: datetime) -> Decimal:
    if one.billed_since is None or one.per_hour is None:
        return Decimal(0)
    hours = Decimal(max(0.0, (until - moment(one.billed_since)).total_seconds())) / 3600
    return Decimal(one.per_hour) * hours
