"""Deployments at a provider: how it shows each of them, and what the record of each says after a look. Pure.

A list may lack what stands, and show what goes: neither alone is news.
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
"""How long what has answered may be missing from lists before it counts as gone: three looks."""

GOING = timedelta(seconds=20)
"""How long what was asked to go must be missing before it counts as gone: two looks. Its deletion may fail yet."""

ENDING = timedelta(minutes=10)
"""How long one that was asked to go may be shown as if it stood: Bedrock has no word for what is being deleted."""

HostedState = Literal["Creating", "Ready", "Failed", "Deleting", "Partial"]
"""Partial: parts are there that do not answer and cost nothing, from before it was made or after it was deleted."""


@dataclass(frozen=True)
class Hosted:
    """A deployment as its provider shows it."""

    name: str
    state: HostedState
    connection: str = ""
    address: str = ""
    """What a request names it by, where that is not its name."""
    failure: str = ""
    """Why it failed, in the provider's words."""
    bound_until: datetime | None = None
    """Until when it cannot be deleted, and is billed."""
    model: str = ""
    """What it serves, as the provider names the tuned model; "" where the provider does not tell."""
    sku: str = ""
    """What the catalogue calls its price of an hour; "" where the provider does not tell."""
    units: int = 1
    """How many times that price."""
    created_at: datetime | None = None
    operation: str = ""
    """By what its provider tells of its making, where the deployment itself does not tell all."""
    terms: str = ""
    """How it stands, as `Wanted.terms` has it; "" where the provider changes nothing in place, or does not tell."""


def whole(found: Mapping[str, Hosted], name: str) -> Hosted | None:
    """What is there of this name, if it is more than parts of a deployment."""
    there = found.get(name)
    return there if there is not None and there.state != "Partial" else None


def is_ready(found: Mapping[str, Hosted], name: str | None) -> bool:
    """Whether a deployment is there and ready, as its provider says."""
    there = found.get(name) if name is not None else None
    return there is not None and there.state == "Ready"


def answering(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], wanted: str
) -> HostedDeployment | None:
    """The deployment that answers: the wanted one or, until that does, one before it.

    One that a list lacks answers still: who took another one for a moment would tell two stories in turns.
    """
    standing = [
        one
        for one in recorded
        if one.answered and one.released_at is None and (one.name not in found or is_ready(found, one.name))
    ]
    return next((one for one in standing if one.name == wanted), None) or next(iter(standing), None)


def changes(found: Mapping[str, Hosted]) -> bool:
    """Whether anything of the account is being made or deleted."""
    return any(one.state in {"Creating", "Deleting"} for one in found.values())


def address(found: Mapping[str, Hosted], name: str | None) -> str | None:
    """What a request names a deployment by; None where it is not there."""
    return (found[name].address or name) if name is not None and name in found else None


def ours(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], prefix: str, now: datetime
) -> list[HostedDeployment]:
    """What there is of this object: recorded and there, or not seen for a moment, or only there.

    A list may lack what was made a moment ago, and one list of many what stands: who forgets it then, leaves it behind
    and billed. What was asked to go is gone when two looks lack it.
    """
    sighted = (_sighted(one, found, now) for one in recorded)
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


def _sighted(one: HostedDeployment, found: Mapping[str, Hosted], now: datetime) -> HostedDeployment | None:
    """The record after a look; None once it is gone.

    Parts of one do not tell of it, and have to go all the same: it is missing from when on lists lack those, too.
    """
    if whole(found, one.name) is not None or (one.name in found and one.released_at is not None):
        return one.model_copy(update={"unseen_since": None})
    if one.name in found:
        return unseen(one, now, anew=True)
    limit = GOING if one.released_at is not None else MISSED if one.answered else SETTLE
    return None if is_missed(one, now, limit) else unseen(one, now)


def _version(name: str, prefix: str) -> int | None:
    text = name.removeprefix(prefix)
    return int(text) if text.isdecimal() and int(text) > 0 else None


def is_missed(one: HostedDeployment | EvaluationDeployment, now: datetime, limit: timedelta = MISSED) -> bool:
    """Whether what no list shows has not been shown for so long that it counts as gone."""
    return one.unseen_since is not None and now - moment(one.unseen_since) >= limit


def may_still_show(since: datetime, now: datetime) -> bool:
    """Whether lists may lack what was made right before: nothing is made for an object that is to go."""
    return timedelta() <= now - since < SETTLE


def stood_until(one: HostedDeployment | EvaluationDeployment, now: datetime) -> datetime:
    """Now, or since when no list shows it. Times to come do not count."""
    return min(now, moment(one.unseen_since)) if one.unseen_since else now


def unseen(one: HostedDeployment, now: datetime, *, anew: bool = False) -> HostedDeployment:
    """The record of one that the provider does not show; `anew`: counted from now on."""
    since = now if anew else stood_until(one, now)
    return one.model_copy(update={"unseen_since": timestamp(since)})


def is_ending(one: HostedDeployment, now: datetime) -> bool:
    """Whether it may still go, though its provider shows it as if it stood."""
    return one.released_at is not None and timedelta() <= now - moment(one.released_at) < ENDING


def billed(one: HostedDeployment) -> str:
    """What is said of the cost of one that stands. Of one that has answered it is known whether it has hours."""
    shown = one.answered and one.unseen_since is None
    if one.billed_since is None:
        return "is not billed by the hour" if shown else "may be billed"
    if one.per_hour is not None and not Decimal(one.per_hour):
        return "is not billed by the hour"
    return f"is billed since {one.billed_since}" + (f" at {one.per_hour} an hour" if one.per_hour else "")


def with_cost(recorded: Sequence[HostedDeployment]) -> str:
    """Names of what stands, each with what it costs there."""
    return "; ".join(f"{one.name}, which {billed(one)}" for one in recorded)


def answered(recorded: Sequence[HostedDeployment], name: str) -> tuple[HostedDeployment, ...]:
    """The record once a deployment has answered."""
    return _told(recorded, name, answered=True, silent_since=None, operation=None)


def followed(recorded: Sequence[HostedDeployment], name: str, operation: str | None) -> tuple[HostedDeployment, ...]:
    """The record once a deployment was asked for: the operation tells of it."""
    return _told(recorded, name, operation=operation)


def on_terms_of(
    recorded: Sequence[HostedDeployment], before: Sequence[HostedDeployment], name: str
) -> tuple[HostedDeployment, ...]:
    """The record with the terms that one had before."""
    had = next((one for one in before if one.name == name), None)
    return _told(recorded, name, terms=had.terms, nonce=had.nonce) if had is not None else tuple(recorded)


def _told(recorded: Sequence[HostedDeployment], name: str, **fields: object) -> tuple[HostedDeployment, ...]:
    """The record with what is new of one."""
    return tuple(one.model_copy(update=fields) if one.name == name else one for one in recorded)


def released(
    recorded: Sequence[HostedDeployment], delete: Sequence[str], now: datetime
) -> tuple[HostedDeployment, ...]:
    """The record once the first of these is asked to go: that it is gone later is no surprise then.

    Of one that does not show only parts can be asked to go: the rest may still come.
    """
    goes = [one.name for one in recorded if one.name in delete[:1] and one.unseen_since is None]
    return tuple(
        one.model_copy(update={"released_at": one.released_at or timestamp(now)}) if one.name in goes else one
        for one in recorded
    )


def deletable(recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> tuple[str, ...]:
    """What may be asked to go, one look after the other, and again, in turns, what does not go.

    One that is on its way is not asked again, which would be a conflict.
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
    """Those that go on costing something, in words; "" for none."""
    standing = [found[one.name] for one in recorded if one.name in found]
    return "".join(
        f"; {one.name} cannot be deleted, and is billed, until {timestamp(one.bound_until)}: its commitment"
        for one in standing
        if one.bound_until is not None and is_bound(one, now)
    )
