"""Deployments at a provider: how it shows each of them, and how a list changes the record of each. Pure.

A list may lack deployments that exist, and show deleted ones: one list alone proves nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from finetune_api.deployment import HostedDeployment
from finetune_api.job_status import EvaluationDeployment
from finetune_operator.decide.conditions import moment, timestamp
from finetune_operator.decide.job.remote import SETTLE

MISSED = timedelta(minutes=1)
"""How long one that has answered may be missing from lists before it counts as gone: three lists."""

GOING = timedelta(seconds=20)
"""How long one whose deletion was requested must be missing to count as gone: two lists. Deletion may still fail."""

ENDING = timedelta(minutes=10)
"""How long one whose deletion was requested may look unchanged: Bedrock has no state for a deletion in progress."""

HostedState = Literal["Creating", "Ready", "Failed", "Deleting", "Partial"]
"""Partial: parts exist, before creation or after deletion, which do not answer and cost nothing."""


@dataclass(frozen=True)
class Hosted:
    """A deployment as its provider shows it."""

    name: str
    state: HostedState
    connection: str = ""
    address: str = ""
    """What requests call it, if that is not its name."""
    failure: str = ""
    """Why it failed, in the provider's words."""
    bound_until: datetime | None = None
    """Until when it cannot be deleted, and is billed."""
    model: str = ""
    """The tuned model that it serves, by the provider's name; "" if the provider does not tell."""
    sku: str = ""
    """The catalogue's key of its hourly price; "" if the provider does not tell."""
    units: int = 1
    """How many times that price is billed."""
    created_at: datetime | None = None
    operation: str = ""
    """The operation that tells how its creation goes, where the deployment itself does not."""
    terms: str = ""
    """Its terms, in the form of `Wanted.terms`; "" if the provider changes nothing in place, or does not tell."""


def whole(found: Mapping[str, Hosted], name: str) -> Hosted | None:
    """The deployment of this name, unless only parts of it exist."""
    there = found.get(name)
    return there if there is not None and there.state != "Partial" else None


def is_ready(found: Mapping[str, Hosted], name: str | None) -> bool:
    """Whether a deployment exists and is ready, by its provider."""
    there = found.get(name) if name is not None else None
    return there is not None and there.state == "Ready"


def answering(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], wanted: str
) -> HostedDeployment | None:
    """The deployment that answers: the wanted one or, until that does, an earlier one.

    One that is missing from a list still counts, or the result would alternate between two deployments.
    """
    standing = [
        one
        for one in recorded
        if one.answered and one.released_at is None and (one.name not in found or is_ready(found, one.name))
    ]
    return next((one for one in standing if one.name == wanted), None) or next(iter(standing), None)


def changes(found: Mapping[str, Hosted]) -> bool:
    """Whether anything in the account is being created or deleted."""
    return any(one.state in {"Creating", "Deleting"} for one in found.values())


def address(found: Mapping[str, Hosted], name: str | None) -> str | None:
    """What requests call a deployment; None if it does not exist."""
    return (found[name].address or name) if name is not None and name in found else None


def ours(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], prefix: str, now: datetime
) -> list[HostedDeployment]:
    """The deployments of this object: recorded and listed, recorded and briefly missing, or only listed.

    A list may lack a new deployment, and sometimes any other. Forgetting it then would leave it behind, and billed. One
    whose deletion was requested is gone once two lists lack it.
    """
    sighted = (_seen(one, found, now) for one in recorded)
    kept = [one for one in sighted if one is not None]
    known = {one.name for one in kept}
    strays = [name for name in found if name.startswith(prefix) and name not in known]
    return kept + [
        HostedDeployment(
            name=name, version=version, connection=found[name].connection, created_at=timestamp(now), attached=False
        )
        for name in strays
        if (version := _version(name, prefix))
    ]


def _seen(one: HostedDeployment, found: Mapping[str, Hosted], now: datetime) -> HostedDeployment | None:
    """The record after a list; None once the deployment is gone.

    Parts do not prove that it exists, but must be deleted too: it is missing only from when they are gone as well.
    """
    if whole(found, one.name) is not None or (one.name in found and one.released_at is not None):
        return one.model_copy(update={"unseen_since": None})
    if one.name in found:
        return unseen(one, now, from_now=True)
    limit = GOING if one.released_at is not None else MISSED if one.answered else SETTLE
    return None if is_missed(one, now, limit) else unseen(one, now)


def _version(name: str, prefix: str) -> int | None:
    text = name.removeprefix(prefix)
    return int(text) if text.isdecimal() and int(text) > 0 else None


def is_missed(one: HostedDeployment | EvaluationDeployment, now: datetime, limit: timedelta = MISSED) -> bool:
    """Whether one that is in no list has been missing for so long that it counts as gone."""
    return one.unseen_since is not None and now - moment(one.unseen_since) >= limit


def may_still_show(since: datetime, now: datetime) -> bool:
    """Whether lists may still lack what was created just before: nothing is created for an object that is deleted."""
    return timedelta() <= now - since < SETTLE


def existed_until(one: HostedDeployment | EvaluationDeployment, now: datetime) -> datetime:
    """Now, or the time since when no list shows it. Times in the future do not count."""
    return min(now, moment(one.unseen_since)) if one.unseen_since else now


def unseen(one: HostedDeployment, now: datetime, *, from_now: bool = False) -> HostedDeployment:
    """The record of one that the provider does not show; `from_now`: missing only from now on."""
    since = now if from_now else existed_until(one, now)
    return one.model_copy(update={"unseen_since": timestamp(since)})


def is_ending(one: HostedDeployment, now: datetime) -> bool:
    """Whether its deletion may be in progress although its provider shows it unchanged."""
    return one.released_at is not None and timedelta() <= now - moment(one.released_at) < ENDING


def billed(one: HostedDeployment) -> str:
    """How it is billed, in words. Whether one that has answered is billed by the hour is known."""
    shown = one.answered and one.unseen_since is None
    if one.billed_since is None:
        return "is not billed by the hour" if shown else "may be billed"
    if one.per_hour is not None and not Decimal(one.per_hour):
        return "is not billed by the hour"
    return f"is billed since {one.billed_since}" + (f" at {one.per_hour} an hour" if one.per_hour else "")


def with_cost(recorded: Sequence[HostedDeployment]) -> str:
    """Names of deployments, each with its cost."""
    return "; ".join(f"{one.name}, which {billed(one)}" for one in recorded)


def answered(recorded: Sequence[HostedDeployment], name: str) -> tuple[HostedDeployment, ...]:
    """The record once a deployment has answered."""
    return _with_fields(recorded, name, answered=True, silent_since=None, operation=None)


def with_operation(
    recorded: Sequence[HostedDeployment], name: str, operation: str | None
) -> tuple[HostedDeployment, ...]:
    """The record once a deployment was requested, with the operation that tells how that goes."""
    return _with_fields(recorded, name, operation=operation)


def on_terms_of(
    recorded: Sequence[HostedDeployment], before: Sequence[HostedDeployment], name: str
) -> tuple[HostedDeployment, ...]:
    """The record with the terms that a deployment had before."""
    had = next((one for one in before if one.name == name), None)
    return _with_fields(recorded, name, terms=had.terms, nonce=had.nonce) if had is not None else tuple(recorded)


def _with_fields(recorded: Sequence[HostedDeployment], name: str, **fields: object) -> tuple[HostedDeployment, ...]:
    """The record with new fields of one deployment."""
    return tuple(one.model_copy(update=fields) if one.name == name else one for one in recorded)


def released(
    recorded: Sequence[HostedDeployment], delete: Sequence[str], now: datetime
) -> tuple[HostedDeployment, ...]:
    """The record once deletion of the first of these is requested, so that its absence is expected later.

    Of one that no list shows only parts can be deleted: the rest may still appear.
    """
    goes = [one.name for one in recorded if one.name in delete[:1] and one.unseen_since is None]
    return tuple(
        one.model_copy(update={"released_at": one.released_at or timestamp(now)}) if one.name in goes else one
        for one in recorded
    )


def deletable(recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> tuple[str, ...]:
    """What may be deleted, one per reconcile. Deletions without effect are requested again, in turns.

    One that is being deleted is left out: another request would be a conflict.
    """
    asked = [one for one in recorded if one.released_at is not None]
    turn = now.minute % len(asked) if asked else 0
    unasked_first = [*(one for one in recorded if one.released_at is None), *asked[turn:], *asked[:turn]]
    standing = [found[one.name] for one in unasked_first if one.name in found]
    return tuple(one.name for one in standing if one.state != "Deleting" and not is_bound(one, now))


def is_bound(one: Hosted, now: datetime) -> bool:
    """Whether it cannot be deleted yet."""
    return one.bound_until is not None and one.bound_until > now


def bound(recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> str:
    """Deployments that are still billed, in words; "" for none."""
    standing = [found[one.name] for one in recorded if one.name in found]
    return "".join(
        f"; {one.name} cannot be deleted, and is billed, until {timestamp(one.bound_until)}: its commitment"
        for one in standing
        if one.bound_until is not None and is_bound(one, now)
    )
