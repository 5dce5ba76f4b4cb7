"""Deployments at a provider that makes them by name and bills them by the hour: what to make, ask, delete. Pure.

    wanted, not recorded ─▶ recorded ─▶ made ─▶ Ready there ─▶ asked ─▶ answers ─▶ the others are deleted
                                          ╰─ not there, though it answered once: the provider has deleted it

New before old: what answered before is deleted when the new one answers, and not before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from finetune_api.deployment import HostedDeployment
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment, timestamp
from finetune_operator.decide.deployment import edited
from finetune_operator.decide.deployment.hosted_record import (
    ENDING,
    GOING,
    MISSED,
    Hosted,
    address,
    billed,
    bound,
    changes,
    deletable,
    is_bound,
    is_ending,
    is_missed,
    is_ready,
    ours,
    released,
    unseen,
    whole,
)
from finetune_operator.decide.deployment.server_state import Serving

LONG = timedelta(hours=1)
"""From when on a deployment that does not answer is told of: none of them takes so long."""

STUCK = timedelta(days=1)
"""From when on one that is still being made is stuck: nobody else may look at what is billed, and answers nothing."""


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
    """What is asked for, where the operator changes that in place."""
    made_as: str = ""
    """What is asked for, where the operator makes another one for other terms: somebody else may change these."""
    model: str = ""
    """What it is to serve, where the provider shows that: somebody else may change it in place."""
    models: Mapping[int, str] = field(default_factory=dict)
    """The same of other versions, whose deployments may answer until this one does."""
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


@dataclass(frozen=True)
class _Step:
    """What is to be done, and what that makes of the server."""

    serving: Serving
    answering: str | None
    """Name of the deployment that answers now."""
    make: bool = False
    ask: bool = False
    delete: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Look:
    """One look at the account: what the steps decide by."""

    others: Sequence[HostedDeployment]
    """What was made for the object beside the wanted one."""
    entry: HostedDeployment
    """The record of the wanted one."""
    found: Mapping[str, Hosted]
    wanted: Wanted
    now: datetime
    failed: bool
    base: _Step
    """What holds unless a step says otherwise."""
    busy: bool
    """Whether nothing may be changed now."""


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
    there = whole(found, wanted.name)
    look = _look(recorded, found, wanted, now, failed=failed)
    step = _of_absent(look) if there is None else _of_present(look, there)
    make = step.make and not (step.delete and wanted.one_at_a_time)
    entry = _asked_or_unseen(look.entry, wanted, there, now, make=make)
    record = released((*look.others, entry), step.delete, now)
    return Plan(record, step.serving, address(found, step.answering), make, step.ask, step.delete)


def _look(
    recorded: Sequence[HostedDeployment],
    found: Mapping[str, Hosted],
    wanted: Wanted,
    now: datetime,
    *,
    failed: bool,
) -> _Look:
    others = [one for one in _made(recorded, found, wanted, now) if one.name != wanted.name]
    there = whole(found, wanted.name)
    entry = _entry(recorded, wanted, there, now)
    answering = next((one.name for one in others if _answers(one, found, wanted)), None)
    busy = wanted.one_at_a_time and changes(found)
    make = not busy and _is_asked_anew(entry, wanted, there)
    delete = () if busy else _useless(others, found, now, answers=is_ready(found, answering))
    note = _said_of_waiting(found if busy else {}, entry, there, now)
    serving = Serving("Rolling", wanted.version, 1 if answering else 0, note=note)
    base = _Step(serving, answering, make, delete=delete)
    return _Look(others, entry, found, wanted, now, failed, base, busy)


def _asked_or_unseen(
    entry: HostedDeployment, wanted: Wanted, there: Hosted | None, now: datetime, *, make: bool
) -> HostedDeployment:
    """The record once it is asked for, or while it does not show."""
    if there is None:
        return unseen(entry, now, anew=make and entry.nonce == wanted.nonce)
    if make or _has_come(entry, wanted, there):
        return entry.model_copy(update={"terms": wanted.terms, "nonce": wanted.nonce})
    return entry.model_copy(update={"nonce": wanted.nonce} if _stands_as_wanted(entry, wanted, there) else {})


def _of_absent(look: _Look) -> _Step:
    """The wanted one is not there: it is made, unless it has been there already."""
    entry, base = look.entry, look.base
    stood = entry.answered or (look.failed and not is_missed(entry, look.now))
    if stood and entry.nonce == look.wanted.nonce:
        return replace(base, serving=_missing(look))
    return replace(base, make=not look.busy and entry.released_at is None)


def _of_present(look: _Look, there: Hosted) -> _Step:
    return next(step for check in STEPS if (step := check(look, there)) is not None)


def _going(look: _Look, _: Hosted) -> _Step | None:
    """It goes, and is made again when it is gone."""
    if look.entry.released_at is None:
        return None
    again = () if look.busy else _failed_still(look.entry, look.found, look.now)
    return replace(look.base, make=False, delete=(*look.base.delete, *again))


def _failed_before(look: _Look, there: Hosted) -> _Step | None:
    """It failed, and something else is asked for by now: it goes, so that that can be made."""
    if there.state != "Failed" or not _is_another_wish(look.entry, look.wanted):
        return None
    return replace(look.base, delete=() if look.busy else (*look.base.delete, look.wanted.name))


def _failed(look: _Look, there: Hosted) -> _Step | None:
    return _failing(look, _failure_of(look.wanted, there)) if there.state == "Failed" else None


def _edited_before(look: _Look, there: Hosted) -> _Step | None:
    """It is not as it was made, and is asked for again, where the operator changes nothing in place: it goes first."""
    in_place, again = bool(look.wanted.terms), look.entry.nonce != look.wanted.nonce
    if in_place or not again or _is_as_made(look.wanted, there) or is_bound(there, look.now):
        return None
    return replace(look.base, delete=() if look.busy else (*look.base.delete, look.wanted.name))


def _edited(look: _Look, there: Hosted) -> _Step | None:
    wanted = look.wanted
    if not edited.is_edited(wanted.model, there):
        return None
    return _failing(look, edited.failure(wanted.name, wanted.model, there, look.now, in_place=bool(wanted.terms)))


def _is_as_made(wanted: Wanted, there: Hosted) -> bool:
    return not edited.is_edited(wanted.model, there) and not edited.other_terms(wanted.made_as, there)


def _serves(look: _Look, there: Hosted) -> _Step | None:
    """It answers: the others go."""
    if there.state != "Ready" or not look.entry.answered:
        return None
    others, found, now, make = look.others, look.found, look.now, look.base.make
    note = bound(others, found, now) + _said_of_staying(others, found, now)
    asked, in_place = look.wanted.terms or look.wanted.made_as, bool(look.wanted.terms)
    note += "" if make else edited.said_of_terms(asked, there, in_place=in_place)
    serving = Serving("Serving", look.wanted.version, 1, note=note)
    if look.busy and _is_asked_anew(look.entry, look.wanted, there):
        serving = _in_turn(serving, found)
    delete = () if look.busy or make else deletable(others, found, now)
    return replace(look.base, serving=serving, answering=look.wanted.name, delete=delete)


def _changing(look: _Look, there: Hosted) -> _Step | None:
    """It is changed in place, and goes on answering."""
    if there.state != "Creating" or not look.entry.answered:
        return None
    version = look.wanted.version
    return replace(look.base, serving=Serving("Rolling", version, 1, answers=version), answering=look.wanted.name)


def _asking(look: _Look, there: Hosted) -> _Step:
    """It has not answered yet: it is asked as soon as its provider says that it is ready."""
    ask = there.state == "Ready"
    asked_for = moment(look.entry.created_at)  # and made later, where there was no room
    made = max(asked_for, there.created_at or asked_for)
    silent = there.state != "Deleting" and look.now - made >= (LONG if ask else STUCK)
    return replace(_failing(look, _silence(look, there)) if silent else look.base, ask=ask)


STEPS: tuple[Callable[[_Look, Hosted], _Step | None], ...] = (
    _going,
    _failed_before,
    _failed,
    _edited_before,
    _edited,
    _serves,
    _changing,
    _asking,
)
"""In order: the first that has an answer tells what is done with a wanted deployment that is there."""


def _missing(look: _Look) -> Serving:
    """What is said of one that has answered, and is not shown."""
    if look.entry.released_at is not None:
        return look.base.serving  # whether it is gone a second look tells; then it is made again
    if is_missed(look.entry, look.now):
        return _failing(look, _expiry(look)).serving
    return unshown(look.wanted)


def _failing(look: _Look, failure: Failure) -> _Step:
    replicas = 1 if look.base.answering else 0
    return replace(look.base, serving=Serving("Failing", look.wanted.version, replicas, failure))


def _entry(
    recorded: Sequence[HostedDeployment], wanted: Wanted, there: Hosted | None, now: datetime
) -> HostedDeployment:
    entry = next((one for one in recorded if one.name == wanted.name), None)
    if entry is not None and there is not None:
        goes = there.state == "Deleting" or is_ending(entry, now)
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


def _made(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], wanted: Wanted, now: datetime
) -> list[HostedDeployment]:
    """What was made for the object; what was attached to it is let go of, and not deleted."""
    return [one for one in ours(recorded, found, wanted.prefix, now) if not one.attached]


def _answers(one: HostedDeployment, found: Mapping[str, Hosted], wanted: Wanted) -> bool:
    """Whether it is ready, or is not shown for a moment: that is no news of what has answered."""
    there = found.get(one.name)
    if there is None:
        return one.answered and one.released_at is None
    return one.answered and there.state == "Ready" and not edited.is_edited(wanted.models.get(one.version, ""), there)


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


def _stands_as_wanted(entry: HostedDeployment, wanted: Wanted, there: Hosted) -> bool:
    """Whether a wish to have it again is met already: it is not kept for a day on which somebody changes or ends it."""
    stands = there.state == "Ready" and entry.answered and entry.released_at is None
    return stands and not wanted.terms and _is_as_made(wanted, there)


def _is_another_wish(entry: HostedDeployment, wanted: Wanted) -> bool:
    """Whether something else is asked for than what it was made by."""
    terms = entry.terms is not None and bool(wanted.terms) and entry.terms != wanted.terms
    return terms or entry.nonce != wanted.nonce


def are_asked_for(recorded: Sequence[HostedDeployment], wanted: Wanted) -> bool:
    """Whether what stands was asked to be as it is wanted; what was recorded without terms cannot be told."""
    entry = next((one for one in recorded if one.name == wanted.name), None)
    return entry is None or entry.attached or not _is_another_wish(entry, wanted)


def _failed_still(entry: HostedDeployment, found: Mapping[str, Hosted], now: datetime) -> tuple[str, ...]:
    """One that failed and was asked to go, and is shown as before a while later: the call may never have arrived."""
    asked = entry.released_at is not None and now - moment(entry.released_at) >= MISSED
    return deletable((entry,), found, now) if asked and found[entry.name].state == "Failed" else ()


def _useless(
    others: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime, *, answers: bool
) -> tuple[str, ...]:
    """What nobody will ask: it failed; or it was done when another version was wanted, and an earlier one answers."""
    standing = [(one, found[one.name]) for one in others if one.name in found]
    return tuple(
        one.name
        for one, there in standing
        if not is_bound(there, now)
        and (there.state == "Failed" or (answers and there.state == "Ready" and not one.answered))
    )


def unshown(wanted: Wanted) -> Serving:
    """What answered a moment ago, and one list lacks: that alone is no news."""
    return Serving("Unshown", wanted.version, 1)


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


def _said_of_waiting(found: Mapping[str, Hosted], entry: HostedDeployment, there: Hosted | None, now: datetime) -> str:
    """What a deployment waits for that is not being made, or is for long."""
    if there is None and entry.released_at is not None:
        return f"; its deletion was requested at {entry.released_at}: it is made again when it is gone"
    if there is None:
        return _said_of_turn(found)
    if entry.released_at is not None and there.state != "Deleting":
        return f"; its deletion was requested at {entry.released_at}: it is made again when it is gone"
    late = there.state in {"Creating", "Deleting"} and now - moment(entry.created_at) >= LONG
    return f"; it was requested at {entry.created_at}, and is still {there.state} at the provider" if late else ""


def _said_of_turn(found: Mapping[str, Hosted]) -> str:
    first = next((one.name for one in found.values() if one.state in {"Creating", "Deleting"}), None)
    return f"; the account takes one change at a time, and {first} is being changed" if first else ""


def _in_turn(serving: Serving, found: Mapping[str, Hosted]) -> Serving:
    """What answers, and is to be on other terms once the account's change is over."""
    return replace(serving, state="Rolling", note=_said_of_turn(found), answers=serving.version)


def _said_of_staying(others: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> str:
    """Those whose deletion was accepted, and comes to nothing."""
    shown = [one for one in others if whole(found, one.name) is not None]
    return "".join(
        f"; {one.name}, which served before, was to be deleted at {one.released_at}, and is still at the provider, "
        "where it may be billed"
        for one in shown
        if one.released_at is not None and now - moment(one.released_at) >= ENDING
    )


def _expiry(look: _Look) -> Failure:
    wanted = look.wanted
    said = f"deployment {wanted.name} is not at the provider any more: it was deleted there, or has expired"
    return Failure.because(Reason.EXPIRED, said + edited.renamed(wanted.model, wanted.prefix, look.found))


def _failure_of(wanted: Wanted, there: Hosted) -> Failure:
    said = f": {there.failure}" if there.failure else ""
    message = f"deployment {wanted.name} failed at the provider{said.rstrip('.')}; change spec.retryNonce to have it"
    return Failure.because(Reason.DEPLOYMENT_FAILED, f"{message} recreated")


def _silence(look: _Look, there: Hosted) -> Failure:
    """Of one that is ready and does not answer, or is still being made."""
    said = f"deployment {look.wanted.name} was requested at {look.entry.created_at} and is "
    said += "ready, as the provider says" if there.state == "Ready" else f"still {there.state} at the provider"
    said += f", {billed(look.entry)}, and does not answer; "
    said += "it is asked again" if there.state == "Ready" else "see there why, or delete it there to have it recreated"
    return Failure.because(Reason.DEPLOYMENT_FAILED, said)
