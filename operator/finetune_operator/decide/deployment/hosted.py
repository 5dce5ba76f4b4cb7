"""Deployments at a provider that makes them by name and bills them by the hour: what to make, ask, delete. Pure.

    wanted, not recorded ─▶ recorded ─▶ made ─▶ Ready there ─▶ asked ─▶ answers ─▶ the others are deleted
                                          ╰─ not there, though it answered once: the provider has deleted it

New before old: what answered before is deleted when the new one answers, and not before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from finetune_api.deployment import HostedDeployment
from finetune_api.job_status import EvaluationDeployment, Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment, timestamp
from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.decide.job.remote import SETTLE

LONG = timedelta(hours=1)
"""From when on a deployment that does not answer is told of: none of them takes so long."""

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


@dataclass(frozen=True)
class Wanted:
    """The deployment that should answer."""

    name: str
    version: int
    connection: str
    prefix: str
    """How the names of all deployments of this object begin."""
    nonce: str | None
    """What has to change for a deployment to be made again that the provider has deleted."""
    terms: str = ""
    """What is asked for, where the provider changes that in place."""
    model: str = ""
    """What it is to serve, where it can be changed in place: by somebody else, too."""
    one_at_a_time: bool = True
    """Whether nothing may be changed while anything of the account changes."""


@dataclass(frozen=True)
class Plan:
    """What is recorded from now on, what is to be done, and what that makes of the server."""

    recorded: tuple[HostedDeployment, ...]
    serving: Serving
    serves: str | None = None
    """Name of the deployment that answers now, as requests give it."""
    make: bool = False
    ask: bool = False
    delete: tuple[str, ...] = ()


def plan(
    recorded: Sequence[HostedDeployment],
    found: Mapping[str, Hosted],
    wanted: Wanted,
    now: datetime,
    *,
    failed: bool = False,
) -> Plan:
    """What to do next. `found` is all of the account: it may take one change at a time.

    `failed`: the wanted one was told to have failed. Nobody has it made anew because one list lacks it.
    """
    others = [one for one in _made(recorded, found, wanted, now) if one.name != wanted.name]
    there = whole(found, wanted.name)
    entry = _entry(recorded, wanted, there, now)
    answering = next((one.name for one in others if _answers(one, found)), None)
    busy = wanted.one_at_a_time and changes(found)
    ask = False
    make = not busy and _is_asked_anew(entry, wanted, there)
    delete = () if busy else _useless(others, found, now, answers=is_ready(found, answering))
    note = _said_of_waiting(found if busy else {}, entry, there, now)
    serving = Serving("Rolling", wanted.version, 1 if answering else 0, note=note)
    stood = entry.answered or (failed and not is_missed(entry, now))
    if there is None and stood and entry.nonce == wanted.nonce:
        serving = _missing(entry, wanted, answering, serving, now)
    elif there is None:
        make = not busy and entry.released_at is None
    elif entry.released_at is not None:
        make = False  # it goes, and is made again when it is gone
        delete = () if busy else (*delete, *_failed_still(entry, found, now))
    elif there.state == "Failed" and _is_another_wish(entry, wanted):
        delete = () if busy else (*delete, wanted.name)
    elif there.state == "Failed":
        serving = _failing(wanted, answering, _failed(wanted, there))
    elif there.state == "Ready" and _is_edited(there, wanted):
        serving = _failing(wanted, answering, _edited(wanted, there))
    elif there.state == "Ready" and entry.answered:
        note = bound(others, found, now) + _said_of_staying(others, found, now)
        note += "" if make else _said_of_terms(there, wanted)
        serving, answering = Serving("Serving", wanted.version, 1, note=note), wanted.name
        serving = _in_turn(serving, found) if busy and _is_asked_anew(entry, wanted, there) else serving
        delete = () if busy or make else deletable(others, found, now)
    elif there.state == "Creating" and entry.answered:
        # It is changed in place, and goes on answering.
        serving, answering = Serving("Rolling", wanted.version, 1, answers=wanted.version), wanted.name
    else:
        ask = there.state == "Ready"
        silent = ask and now - moment(entry.created_at) >= LONG
        serving = _failing(wanted, answering, _silent(wanted, entry)) if silent else serving
    make = make and not (delete and wanted.one_at_a_time)
    entry = _asked_or_unseen(entry, wanted, there, now, make=make)
    return Plan(released((*others, entry), delete, now), serving, address(found, answering), make, ask, delete)


def _asked_or_unseen(
    entry: HostedDeployment, wanted: Wanted, there: Hosted | None, now: datetime, *, make: bool
) -> HostedDeployment:
    """The record once it is asked for, or while it does not show."""
    if there is None:
        return unseen(entry, now, anew=make and entry.nonce == wanted.nonce)
    told = {"terms": wanted.terms, "nonce": wanted.nonce} if make or _has_come(entry, wanted, there) else {}
    return entry.model_copy(update=told)


def _failed_still(entry: HostedDeployment, found: Mapping[str, Hosted], now: datetime) -> tuple[str, ...]:
    """One that failed and was asked to go, and is shown as before a while later: the call may never have arrived."""
    asked = entry.released_at is not None and now - moment(entry.released_at) >= MISSED
    return deletable((entry,), found, now) if asked and found[entry.name].state == "Failed" else ()


def _missing(
    entry: HostedDeployment, wanted: Wanted, answering: str | None, serving: Serving, now: datetime
) -> Serving:
    """What is said of one that has answered, and is not shown."""
    if entry.released_at is not None:
        return serving  # whether it is gone a second look tells; then it is made again
    return _failing(wanted, answering, _expired(wanted)) if is_missed(entry, now) else unshown(wanted)


def whole(found: Mapping[str, Hosted], name: str) -> Hosted | None:
    """What is there of this name, if it is more than parts of a deployment."""
    there = found.get(name)
    return there if there is not None and there.state != "Partial" else None


def _said_of_waiting(found: Mapping[str, Hosted], entry: HostedDeployment, there: Hosted | None, now: datetime) -> str:
    """What a deployment waits for that is not being made, or is for long."""
    if there is None and entry.released_at is not None:
        return f"; its deletion was asked for at {entry.released_at}: it is made again when it is gone"
    if there is None:
        return _said_of_turn(found)
    if entry.released_at is not None and there.state != "Deleting":
        return f"; its deletion was asked for at {entry.released_at}: it is made again when it is gone"
    late = there.state in {"Creating", "Deleting"} and now - moment(entry.created_at) >= LONG
    return f"; it was asked for at {entry.created_at}, and is {there.state} at the provider still" if late else ""


def _said_of_turn(found: Mapping[str, Hosted]) -> str:
    first = next((one.name for one in found.values() if one.state in {"Creating", "Deleting"}), None)
    return f"; the account takes one change at a time, and {first} is being changed" if first else ""


def _in_turn(serving: Serving, found: Mapping[str, Hosted]) -> Serving:
    """What answers, and is to be on other terms once the account's change is over."""
    return replace(serving, state="Rolling", note=_said_of_turn(found), answers=serving.version)


def _useless(
    others: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime, *, answers: bool
) -> tuple[str, ...]:
    """What nobody will ask: it failed; or it was done when another version was wanted, and an earlier one answers."""
    standing = [(one, found[one.name]) for one in others if one.name in found]
    return tuple(
        one.name
        for one, there in standing
        if not _is_bound(there, now)
        and (there.state == "Failed" or (answers and there.state == "Ready" and not one.answered))
    )


def _is_another_wish(entry: HostedDeployment, wanted: Wanted) -> bool:
    """Whether something else is asked for than what it was made by."""
    terms = entry.terms is not None and bool(wanted.terms) and entry.terms != wanted.terms
    return terms or entry.nonce != wanted.nonce


def _is_asked_anew(entry: HostedDeployment, wanted: Wanted, there: Hosted | None) -> bool:
    """Whether what stands is to be changed in place: once for each change of what is asked for, and not for ever."""
    if not wanted.terms or there is None or there.state != "Ready" or entry.terms is None:
        return False
    return (entry.terms, entry.nonce) != (wanted.terms, wanted.nonce) and not _has_come(entry, wanted, there)


def _has_come(entry: HostedDeployment, wanted: Wanted, there: Hosted | None) -> bool:
    """Whether what stands is as it is wanted already: it was asked for, and the record of that is lost."""
    if there is None or not there.terms or entry.terms is None or entry.nonce != wanted.nonce:
        return False
    return there.state == "Ready" and there.terms.casefold() == wanted.terms.casefold()


def _said_of_staying(others: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> str:
    """Those whose deletion was accepted, and comes to nothing."""
    shown = [one for one in others if whole(found, one.name) is not None]
    return "".join(
        f"; {one.name}, which served before, was asked to go at {one.released_at}, and stays at the provider, where it "
        "may be billed"
        for one in shown
        if one.released_at is not None and now - moment(one.released_at) >= ENDING
    )


def _said_of_terms(there: Hosted, wanted: Wanted) -> str:
    if not wanted.terms or not there.terms or there.terms.casefold() == wanted.terms.casefold():
        return ""
    return f"; at the provider it is {there.terms}, not {wanted.terms}: change spec.retryNonce to request it again"


def sleep(recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], wanted: Wanted, now: datetime) -> Plan:
    """What to do while nothing is to answer: all that was made goes, and what is gone is forgotten."""
    left = tuple(_made(recorded, found, wanted, now))
    busy = wanted.one_at_a_time and changes(found)
    free = () if busy else deletable(left, found, now)
    return Plan(released(left, free, now), Serving("Idle", wanted.version, 0), delete=free)


def leave(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime, *, answers: bool
) -> tuple[tuple[HostedDeployment, ...], tuple[str, ...]]:
    """The record, and what is to go, of deployments that are for nothing once the version `answers` elsewhere."""
    left = [one for one in ours(recorded, found, "\0", now) if not one.attached]
    delete = deletable(left, found, now)
    return (released(left, delete, now), delete) if answers else (tuple(left), ())


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


def _made(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], wanted: Wanted, now: datetime
) -> list[HostedDeployment]:
    """What was made for the object; what was attached to it is let go of, and not deleted."""
    return [one for one in ours(recorded, found, wanted.prefix, now) if not one.attached]


def changes(found: Mapping[str, Hosted]) -> bool:
    """Whether anything of the account is being made or deleted."""
    return any(one.state in {"Creating", "Deleting"} for one in found.values())


def deletable(recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> tuple[str, ...]:
    """What may be asked to go, one look after the other, and again, in turns, what does not go.

    One that is on its way is not asked again, which would be a conflict.
    """
    asked = [one for one in recorded if one.released_at is not None]
    turn = now.minute % len(asked) if asked else 0
    unasked_first = [*(one for one in recorded if one.released_at is None), *asked[turn:], *asked[:turn]]
    standing = [found[one.name] for one in unasked_first if one.name in found]
    return tuple(one.name for one in standing if one.state != "Deleting" and not _is_bound(one, now))


def _is_bound(one: Hosted, now: datetime) -> bool:
    return one.bound_until is not None and one.bound_until > now


def bound(recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> str:
    """Those that go on costing something, in words; "" for none."""
    standing = [found[one.name] for one in recorded if one.name in found]
    return "".join(
        f"; {one.name} cannot be deleted, and is billed, until {timestamp(one.bound_until)}: its commitment"
        for one in standing
        if one.bound_until is not None and _is_bound(one, now)
    )


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


def is_missed(one: HostedDeployment | EvaluationDeployment, now: datetime, limit: timedelta = MISSED) -> bool:
    """Whether what no list shows has not been shown for so long that it counts as gone."""
    return one.unseen_since is not None and now - moment(one.unseen_since) >= limit


def stood_until(one: HostedDeployment | EvaluationDeployment, now: datetime) -> datetime:
    """Now, or since when no list shows it. Times to come do not count."""
    return min(now, moment(one.unseen_since)) if one.unseen_since else now


def unshown(wanted: Wanted) -> Serving:
    """What answered a moment ago, and one list lacks: that alone is no news."""
    return Serving("Unshown", wanted.version, 1)


def unseen(one: HostedDeployment, now: datetime, *, anew: bool = False) -> HostedDeployment:
    """The record of one that the provider does not show; `anew`: counted from now on."""
    since = now if anew else stood_until(one, now)
    return one.model_copy(update={"unseen_since": timestamp(since)})


def _entry(
    recorded: Sequence[HostedDeployment], wanted: Wanted, there: Hosted | None, now: datetime
) -> HostedDeployment:
    entry = next((one for one in recorded if one.name == wanted.name), None)
    if entry is not None and there is not None:
        goes = there.state == "Deleting" or _is_ending(entry, now)
        return entry.model_copy(update={"unseen_since": None} | ({} if goes else {"released_at": None}))
    if entry is not None and entry.released_at is not None and not is_missed(entry, now, GOING):
        return entry
    if entry is not None and entry.released_at is None and (entry.nonce == wanted.nonce or not is_missed(entry, now)):
        return entry  # what one list lacks may stand, and have failed: then it has to go before another one is made
    return HostedDeployment(
        name=wanted.name,
        version=wanted.version,
        connection=wanted.connection,
        created_at=timestamp(now),
        nonce=wanted.nonce,
        terms=wanted.terms or None,
        attached=False,
    )


def _is_ending(one: HostedDeployment, now: datetime) -> bool:
    """Whether it may still go, though its provider shows it as if it stood."""
    return one.released_at is not None and timedelta() <= now - moment(one.released_at) < ENDING


def is_ready(found: Mapping[str, Hosted], name: str | None) -> bool:
    """Whether a deployment is there and ready, as its provider says."""
    there = found.get(name) if name is not None else None
    return there is not None and there.state == "Ready"


def _answers(one: HostedDeployment, found: Mapping[str, Hosted]) -> bool:
    """Whether it is ready, or is not shown for a moment: that is no news of what has answered."""
    return one.answered and (is_ready(found, one.name) or (one.name not in found and one.released_at is None))


def answering(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], wanted: str
) -> HostedDeployment | None:
    """The deployment that answers: the wanted one or, until that does, one before it."""
    standing = [one for one in recorded if one.answered and one.released_at is None and is_ready(found, one.name)]
    return next((one for one in standing if one.name == wanted), None) or next(iter(standing), None)


def _version(name: str, prefix: str) -> int | None:
    text = name.removeprefix(prefix)
    return int(text) if text.isdecimal() and int(text) > 0 else None


def answered(recorded: Sequence[HostedDeployment], name: str) -> tuple[HostedDeployment, ...]:
    """The record once a deployment has answered."""
    told = {"answered": True, "operation": None}
    return tuple(one.model_copy(update=told) if one.name == name else one for one in recorded)


def followed(recorded: Sequence[HostedDeployment], name: str, operation: str | None) -> tuple[HostedDeployment, ...]:
    """The record once a deployment was asked for: the operation tells of it."""
    told = {"operation": operation}
    return tuple(one.model_copy(update=told) if one.name == name else one for one in recorded)


def on_terms_of(
    recorded: Sequence[HostedDeployment], before: Sequence[HostedDeployment], name: str
) -> tuple[HostedDeployment, ...]:
    """The record with the terms that one had before."""
    had = next((one for one in before if one.name == name), None)
    told = {"terms": had.terms, "nonce": had.nonce} if had is not None else {}
    return tuple(one.model_copy(update=told) if one.name == name else one for one in recorded)


def are_asked_for(recorded: Sequence[HostedDeployment], wanted: Wanted) -> bool:
    """Whether what stands was asked to be as it is wanted; what was recorded without terms cannot be told."""
    entry = next((one for one in recorded if one.name == wanted.name), None)
    return entry is None or entry.attached or not _is_another_wish(entry, wanted)


def _failing(wanted: Wanted, answering: str | None, failure: Failure) -> Serving:
    return Serving("Failing", wanted.version, 1 if answering else 0, failure)


def _expired(wanted: Wanted) -> Failure:
    return Failure.because(
        Reason.EXPIRED,
        f"deployment {wanted.name} is not at the provider any more: it was deleted there, or has expired",
    )


def _failed(wanted: Wanted, there: Hosted) -> Failure:
    said = f": {there.failure}" if there.failure else ""
    message = f"deployment {wanted.name} failed at the provider{said.rstrip('.')}; change spec.retryNonce to have it"
    return Failure.because(Reason.DEPLOYMENT_FAILED, f"{message} made anew")


def _silent(wanted: Wanted, entry: HostedDeployment) -> Failure:
    said = f"deployment {wanted.name} was asked for at {entry.created_at} and is ready, as the provider says"
    return Failure.because(Reason.DEPLOYMENT_FAILED, f"{said}, may be billed, and does not answer; it is asked again")


def _is_edited(there: Hosted, wanted: Wanted) -> bool:
    """Whether it serves another model than it was made for, where both are known. ARM's names have no case."""
    return bool(wanted.model and there.model) and there.model.casefold() != wanted.model.casefold()


def _edited(wanted: Wanted, there: Hosted) -> Failure:
    said = f"deployment {wanted.name} serves {there.model} at the provider, not {wanted.model}: somebody has changed it"
    return Failure.because(Reason.DEPLOYMENT_FAILED, f"{said} there; change spec.retryNonce to have it changed back")
