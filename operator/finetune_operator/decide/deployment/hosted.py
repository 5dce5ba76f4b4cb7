"""Deployments at a provider that creates them by name and bills them by the hour: create, test, delete. Pure.

    wanted, not recorded ─▶ recorded ─▶ created ─▶ Ready there ─▶ tested ─▶ answers ─▶ the others are deleted
                                          ╰─ missing, though it answered once: the provider has deleted it

New before old: the deployment that answered before is deleted only once the new one answers.
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
"""After this time a deployment that does not answer is reported: none takes so long."""

STUCK = timedelta(days=1)
"""After this time one that is still being created is reported as stuck: it may be billed while nobody watches."""


@dataclass(frozen=True)
class Wanted:
    """The deployment that should answer."""

    name: str
    version: int
    connection: str
    prefix: str
    """Prefix of the names of all deployments of this object."""
    nonce: str | None
    """A new value has a deployment that the provider has deleted created again."""
    terms: str = ""
    """The requested terms, if the operator changes a deployment in place."""
    made_as: str = ""
    """The requested terms, if the operator creates another deployment for other terms. Others may edit it in place."""
    model: str = ""
    """The model to serve, if the provider shows it: somebody else may change it in place."""
    models: Mapping[int, str] = field(default_factory=dict)
    """The same for other versions, whose deployments may answer until this one does."""
    one_at_a_time: bool = True
    """Whether the account allows only one change at a time."""


@dataclass(frozen=True)
class Plan:
    """The new record, what to do, and the server's state."""

    recorded: tuple[HostedDeployment, ...]
    serving: Serving
    serves: str | None = None
    """Name of the deployment that answers now, as requests give it."""
    make: bool = False
    ask: bool = False
    delete: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Step:
    """What to do, and the server's state."""

    serving: Serving
    answering: str | None
    """Name of the deployment that answers now."""
    make: bool = False
    ask: bool = False
    delete: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Look:
    """What the steps decide by, from one list of the account's deployments."""

    others: Sequence[HostedDeployment]
    """Other deployments that were made for the object."""
    entry: HostedDeployment
    """The record of the wanted one."""
    found: Mapping[str, Hosted]
    wanted: Wanted
    now: datetime
    failed: bool
    base: _Step
    """The result unless a step says otherwise."""
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
    """What to do next. `found` is everything in the account, which may allow only one change at a time.

    `failed`: the wanted one was reported as failed. It is not created again only because one list lacks it.
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
    """The record after a request for the deployment, or while no list shows it."""
    if there is None:
        return unseen(entry, now, anew=make and entry.nonce == wanted.nonce)
    if make or _has_come(entry, wanted, there):
        return entry.model_copy(update={"terms": wanted.terms, "nonce": wanted.nonce})
    return entry.model_copy(update={"nonce": wanted.nonce} if _stands_as_wanted(entry, wanted, there) else {})


def _of_absent(look: _Look) -> _Step:
    """The wanted one does not exist: create it, unless it existed before."""
    entry, base = look.entry, look.base
    stood = entry.answered or (look.failed and not is_missed(entry, look.now))
    if stood and entry.nonce == look.wanted.nonce:
        return replace(base, serving=_missing(look))
    return replace(base, make=not look.busy and entry.released_at is None)


def _of_present(look: _Look, there: Hosted) -> _Step:
    return next(step for check in STEPS if (step := check(look, there)) is not None)


def _going(look: _Look, _: Hosted) -> _Step | None:
    """It is being deleted, and created again when it is gone."""
    if look.entry.released_at is None:
        return None
    again = () if look.busy else _failed_still(look.entry, look.found, look.now)
    return replace(look.base, make=False, delete=(*look.base.delete, *again))


def _failed_before(look: _Look, there: Hosted) -> _Step | None:
    """It failed, and the request has changed since: delete it, so that the new one can be created."""
    if there.state != "Failed" or not _is_another_wish(look.entry, look.wanted):
        return None
    return replace(look.base, delete=() if look.busy else (*look.base.delete, look.wanted.name))


def _failed(look: _Look, there: Hosted) -> _Step | None:
    return _failing(look, _failure_of(look.wanted, there)) if there.state == "Failed" else None


def _edited_before(look: _Look, there: Hosted) -> _Step | None:
    """It was edited, and is requested again. If the operator cannot change it in place, it is deleted first."""
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
    """It answers: delete the others."""
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
    """It is being changed in place, and still answers."""
    if there.state != "Creating" or not look.entry.answered:
        return None
    version = look.wanted.version
    return replace(look.base, serving=Serving("Rolling", version, 1, answers=version), answering=look.wanted.name)


def _asking(look: _Look, there: Hosted) -> _Step:
    """It has not answered yet: test it as soon as its provider reports that it is ready."""
    ask = there.state == "Ready"
    asked_for = moment(look.entry.created_at)  # it may have been created later, if there was no room
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
"""In order: the first one that returns a step decides about a wanted deployment that exists."""


def _missing(look: _Look) -> Serving:
    """The state of one that has answered and is missing from the list."""
    if look.entry.released_at is not None:
        return look.base.serving  # another list tells whether it is gone; then it is created again
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
        return entry  # one that a list lacks may exist, and have failed: it must be deleted before another is created
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
    """Deployments made for the object. One that was attached to it is left alone, not deleted."""
    return [one for one in ours(recorded, found, wanted.prefix, now) if not one.attached]


def _answers(one: HostedDeployment, found: Mapping[str, Hosted], wanted: Wanted) -> bool:
    """Whether it is ready, or only missing from one list: that does not mean that it stopped answering."""
    there = found.get(one.name)
    if there is None:
        return one.answered and one.released_at is None
    return one.answered and there.state == "Ready" and not edited.is_edited(wanted.models.get(one.version, ""), there)


def _is_asked_anew(entry: HostedDeployment, wanted: Wanted, there: Hosted | None) -> bool:
    """Whether to request a change in place: once for each change of the spec, not for ever."""
    if not wanted.terms or there is None or there.state != "Ready" or entry.terms is None:
        return False
    return (entry.terms, entry.nonce) != (wanted.terms, wanted.nonce) and not _has_come(entry, wanted, there)


def _has_come(entry: HostedDeployment, wanted: Wanted, there: Hosted | None) -> bool:
    """Whether it already has the wanted terms: they were requested, and the record of that was lost."""
    if there is None or not there.terms or entry.terms is None or entry.nonce != wanted.nonce:
        return False
    return there.state == "Ready" and there.terms.casefold() == wanted.terms.casefold()


def _stands_as_wanted(entry: HostedDeployment, wanted: Wanted, there: Hosted) -> bool:
    """Whether a request for recreation is already met: it must not apply later, when somebody edits or deletes it."""
    stands = there.state == "Ready" and entry.answered and entry.released_at is None
    return stands and not wanted.terms and _is_as_made(wanted, there)


def _is_another_wish(entry: HostedDeployment, wanted: Wanted) -> bool:
    """Whether the request differs from the one it was made by."""
    terms = entry.terms is not None and bool(wanted.terms) and entry.terms != wanted.terms
    return terms or entry.nonce != wanted.nonce


def are_asked_for(recorded: Sequence[HostedDeployment], wanted: Wanted) -> bool:
    """Whether the wanted terms were requested. If none were recorded, that is unknown."""
    entry = next((one for one in recorded if one.name == wanted.name), None)
    return entry is None or entry.attached or not _is_another_wish(entry, wanted)


def _failed_still(entry: HostedDeployment, found: Mapping[str, Hosted], now: datetime) -> tuple[str, ...]:
    """One that failed, and still shows as failed a while after its deletion: the call may never have arrived."""
    asked = entry.released_at is not None and now - moment(entry.released_at) >= MISSED
    return deletable((entry,), found, now) if asked and found[entry.name].state == "Failed" else ()


def _useless(
    others: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime, *, answers: bool
) -> tuple[str, ...]:
    """Deployments of no use: failed, or ready only after another version was wanted while an earlier one answers."""
    standing = [(one, found[one.name]) for one in others if one.name in found]
    return tuple(
        one.name
        for one, there in standing
        if not is_bound(there, now)
        and (there.state == "Failed" or (answers and there.state == "Ready" and not one.answered))
    )


def unshown(wanted: Wanted) -> Serving:
    """It answered a moment ago, and is missing from one list: that alone means nothing."""
    return Serving("Unshown", wanted.version, 1)


def sleep(recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], wanted: Wanted, now: datetime) -> Plan:
    """What to do while nothing should answer: delete everything that was made, and forget what is gone."""
    left = tuple(_made(recorded, found, wanted, now))
    busy = wanted.one_at_a_time and changes(found)
    free = () if busy else deletable(left, found, now)
    return Plan(released(left, free, now), Serving("Idle", wanted.version, 0), delete=free)


def leave(
    recorded: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime, *, answers: bool
) -> tuple[tuple[HostedDeployment, ...], tuple[str, ...]]:
    """The record, and what to delete, of deployments that are not needed once the version `answers` elsewhere."""
    left = [one for one in ours(recorded, found, "\0", now) if not one.attached]
    delete = deletable(left, found, now)
    return (released(left, delete, now), delete) if answers else (tuple(left), ())


def _said_of_waiting(found: Mapping[str, Hosted], entry: HostedDeployment, there: Hosted | None, now: datetime) -> str:
    """What a deployment waits for that is not being created, or has been for long."""
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
    """It answers, and gets its new terms once the account's present change is over."""
    return replace(serving, state="Rolling", note=_said_of_turn(found), answers=serving.version)


def _said_of_staying(others: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> str:
    """Deployments whose deletion was accepted and has no effect."""
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
    """For one that is ready and does not answer, or is still being created."""
    said = f"deployment {look.wanted.name} was requested at {look.entry.created_at} and is "
    said += "ready, as the provider says" if there.state == "Ready" else f"still {there.state} at the provider"
    said += f", {billed(look.entry)}, and does not answer; "
    said += "it is asked again" if there.state == "Ready" else "see there why, or delete it there to have it recreated"
    return Failure.because(Reason.DEPLOYMENT_FAILED, said)
