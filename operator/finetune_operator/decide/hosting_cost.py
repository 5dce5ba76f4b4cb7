"""What a ModelDeployment's deployments at a provider cost by the hour, and have cost so far. Pure; an estimate.

What is gone has its price in `ended`, so that the sum goes on over new versions, sleep and attaching.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from finetune_api.deployment import DeploymentCost, HostedDeployment
from finetune_operator.decide.conditions import moment, timestamp
from finetune_operator.decide.hosted import Hosted

Price = Callable[[Hosted], str | None]
"""Price of an hour of a deployment that stands; None where it is not known."""

CENT = Decimal("0.01")


def billed(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], price: Price, now: datetime
) -> tuple[HostedDeployment, ...]:
    """The record with what each deployment costs from when on. One that is gone is billed no more."""
    return tuple(_billed(one, found.get(one.name), price, now) for one in recorded)


def _billed(one: HostedDeployment, there: Hosted | None, price: Price, now: datetime) -> HostedDeployment:
    if there is None or there.connection != one.connection:
        return one.model_copy(update={"billed_since": None})
    costs = price(there)
    if costs is None or (one.billed_since is None and there.state != "Ready"):
        return one
    # One that was taken for gone and is there again has its earlier time in `ended`.
    since = one.billed_since or (timestamp(now) if one.per_hour is not None else one.created_at)
    return one.model_copy(update={"billed_since": since, "per_hour": costs})


def total(
    before: DeploymentCost | None,
    earlier: Sequence[HostedDeployment],
    recorded: Sequence[HostedDeployment],
    currency: str,
    now: datetime,
) -> DeploymentCost | None:
    """Price of an hour of all that stands, and of all that ever stood; None where no price is known.

    Args:
        before: the cost as status has it.
        earlier: the record as status has it.
        recorded: the record from now on, as `billed` gives it.
        currency: of the catalogue's prices.
        now: the time.
    """
    standing = {one.name: one for one in recorded if one.billed_since is not None}
    gone = [one for one in earlier if one.billed_since is not None and one.name not in standing]
    ended = Decimal(before.ended or "0") if before else Decimal(0)
    ended += sum((_so_far(one, now) for one in gone), Decimal(0))
    known = [one for one in standing.values() if one.per_hour is not None]
    if not known and not ended:
        return None
    per_hour = sum((Decimal(one.per_hour or "0") for one in known), Decimal(0))
    so_far = ended + sum((_so_far(one, now) for one in known), Decimal(0))
    return DeploymentCost(
        per_hour=_money(per_hour),
        since_deployed=_money(so_far),
        ended=str(ended.quantize(Decimal("0.0001"))) if ended else None,
        currency=currency,
    )


def _so_far(one: HostedDeployment, now: datetime) -> Decimal:
    if one.billed_since is None or one.per_hour is None:
        return Decimal(0)
    hours = Decimal(max(0.0, (now - moment(one.billed_since)).total_seconds())) / 3600
    return Decimal(one.per_hour) * hours


def _money(amount: Decimal) -> str:
    return str(amount.quantize(CENT, rounding=ROUND_HALF_UP))
