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
class _Observed:
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
    seen = _observe(recorded, found, wanted, now, failed=failed)
    step = _of_absent(seen) if there is None else _of_present(seen, there)
    make = step.make and not (step.delete and wanted.one_at_a_time)
    entry = _updated_record(seen.entry, wanted, there, now, make=make)
    record = released((*seen.others, entry), step.delete, now)
    return Plan(record, step.serving, address(found, step.answering), make, step.ask, step.delete)


def _observe(
    recorded: Sequence[HostedDeployment],
    found: Mapping[str, Hosted],
    wanted: Wanted,
    now: datetime,
    *,
    failed: bool,
) -> _Observed:
    others = [one for one in _made(recorded, found, wanted, now) if one.name != wanted.name]
    there = whole(found, wanted.name)
    entry = _entry(recorded, wanted, there, now)
    answering = next((one.name for one in others if _answers(one, found, wanted)), None)
    busy = wanted.one_at_a_time and changes(found)
    make = not busy and _needs_change(entry, wanted, there)
    delete = () if busy else _useless(others, found, now, answers=is_ready(found, answering))
    note = _waiting_note(found if busy else {}, entry, there, now)
    serving = Serving("Rolling", wanted.version, 1 if answering else 0, note=note)
    base = _Step(serving, answering, make, delete=delete)
    return _Observed(others, entry, found, wanted, now, failed, base, busy)


def _updated_record(
    entry: HostedDeployment, wanted: Wanted, there: Hosted | None, now: datetime, *, make: bool
) -> HostedDeployment:
    """The record after a request for the deployment, or while no list shows it."""
    if there is None:
        return unseen(entry, now, from_now=make and entry.nonce == wanted.nonce)
    if make or _has_wanted_terms(entry, wanted, there):
        return entry.model_copy(update={"terms": wanted.terms, "nonce": wanted.nonce})
    return entry.model_copy(update={"nonce": wanted.nonce} if _is_as_wanted(entry, wanted, there) else {})


def _of_absent(seen: _Observed) -> _Step:
    """The wanted one does not exist: create it, unless it existed before."""
    entry, base = seen.entry, seen.base
    stood = entry.answered or (seen.failed and not is_missed(entry, seen.now))
    if stood and entry.nonce == seen.wanted.nonce:
        return replace(base, serving=_missing(seen))
    return replace(base, make=not seen.busy and entry.released_at is None)


def _of_present(seen: _Observed, there: Hosted) -> _Step:
    return next(step for check in STEPS if (step := check(seen, there)) is not None)


def _being_deleted(seen: _Observed, _: Hosted) -> _Step | None:
    """It is being deleted, and created again when it is gone."""
    if seen.entry.released_at is None:
        return None
    again = () if seen.busy else _deletion_to_repeat(seen.entry, seen.found, seen.now)
    return replace(seen.base, make=False, delete=(*seen.base.delete, *again))


def _failed_before(seen: _Observed, there: Hosted) -> _Step | None:
    """It failed, and the request has changed since: delete it, so that the new one can be created."""
    if there.state != "Failed" or not _request_changed(seen.entry, seen.wanted):
        return None
    return replace(seen.base, delete=() if seen.busy else (*seen.base.delete, seen.wanted.name))


def _failed(seen: _Observed, there: Hosted) -> _Step | None:
    return _failing(seen, _failure_of(seen.wanted, there)) if there.state == "Failed" else None


def _edited_before(seen: _Observed, there: Hosted) -> _Step | None:
    """It was edited, and is requested again. If the operator cannot change it in place, it is deleted first."""
    in_place, again = bool(seen.wanted.terms), seen.entry.nonce != seen.wanted.nonce
    if in_place or not again or _is_as_made(seen.wanted, there) or is_bound(there, seen.now):
        return None
    return replace(seen.base, delete=() if seen.busy else (*seen.base.delete, seen.wanted.name))


def _edited(seen: _Observed, there: Hosted) -> _Step | None:
    wanted = seen.wanted
    if not edited.is_edited(wanted.model, there):
        return None
    return _failing(seen, edited.failure(wanted.name, wanted.model, there, seen.now, in_place=bool(wanted.terms)))


def _is_as_made(wanted: Wanted, there: Hosted) -> bool:
    return not edited.is_edited(wanted.model, there) and not edited.other_terms(wanted.made_as, there)


def _serves(seen: _Observed, there: Hosted) -> _Step | None:
    """It answers: delete the others."""
    if there.state != "Ready" or not seen.entry.answered:
        return None
    others, found, now, make = seen.others, seen.found, seen.now, seen.base.make
    note = bound(others, found, now) + _undeleted_note(others, found, now)
    asked, in_place = seen.wanted.terms or seen.wanted.made_as, bool(seen.wanted.terms)
    note += "" if make else edited.terms_note(asked, there, in_place=in_place)
    serving = Serving("Serving", seen.wanted.version, 1, note=note)
    if seen.busy and _needs_change(seen.entry, seen.wanted, there):
        serving = _in_turn(serving, found)
    delete = () if seen.busy or make else deletable(others, found, now)
    return replace(seen.base, serving=serving, answering=seen.wanted.name, delete=delete)


def _changing(seen: _Observed, there: Hosted) -> _Step | None:
    """It is being changed in place, and still answers."""
    if there.state != "Creating" or not seen.entry.answered:
        return None
    version = seen.wanted.version
    return replace(seen.base, serving=Serving("Rolling", version, 1, answers=version), answering=seen.wanted.name)


def _testing(seen: _Observed, there: Hosted) -> _Step:
    """It has not answered yet: test it as soon as its provider reports that it is ready."""
    ask = there.state == "Ready"
    asked_for = moment(seen.entry.created_at)  # it may have been created later, if there was no room
    made = max(asked_for, there.created_at or asked_for)
    silent = there.state != "Deleting" and seen.now - made >= (LONG if ask else STUCK)
    return replace(_failing(seen, _silence(seen, there)) if silent else seen.base, ask=ask)


STEPS: tuple[Callable[[_Observed, Hosted], _Step | None], ...] = (
    _being_deleted,
    _failed_before,
    _failed,
    _edited_before,
    _edited,
    _serves,
    _changing,
    _testing,
)
"""In order: the first one that returns a step decides about a wanted deployment that exists."""


def _missing(seen: _Observed) -> Serving:
    """The state of one that has answered and is missing from the list."""
    if seen.entry.released_at is not None:
        return seen.base.serving  # another list tells whether it is gone; then it is created again
    if is_missed(seen.entry, seen.now):
        return _failing(seen, _expiry(seen)).serving
    return unshown(seen.wanted)


def _failing(seen: _Observed, failure: Failure) -> _Step:
    replicas = 1 if seen.base.answering else 0
    return replace(seen.base, serving=Serving("Failing", seen.wanted.version, replicas, failure))


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


def _needs_change(entry: HostedDeployment, wanted: Wanted, there: Hosted | None) -> bool:
    """Whether to request a change in place: once for each change of the spec, not for ever."""
    if not wanted.terms or there is None or there.state != "Ready" or entry.terms is None:
        return False
    return (entry.terms, entry.nonce) != (wanted.terms, wanted.nonce) and not _has_wanted_terms(entry, wanted, there)


def _has_wanted_terms(entry: HostedDeployment, wanted: Wanted, there: Hosted | None) -> bool:
    """Whether it already has the wanted terms: they were requested, and the record of that was lost."""
    if there is None or not there.terms or entry.terms is None or entry.nonce != wanted.nonce:
        return False
    return there.state == "Ready" and there.terms.casefold() == wanted.terms.casefold()


def _is_as_wanted(entry: HostedDeployment, wanted: Wanted, there: Hosted) -> bool:
    """Whether a request for recreation is already met: it must not apply later, when somebody edits or deletes it."""
    stands = there.state == "Ready" and entry.answered and entry.released_at is None
    return stands and not wanted.terms and _is_as_made(wanted, there)


def _request_changed(entry: HostedDeployment, wanted: Wanted) -> bool:
    """Whether the request differs from the one it was made by."""
    terms = entry.terms is not None and bool(wanted.terms) and entry.terms != wanted.terms
    return terms or entry.nonce != wanted.nonce


def terms_were_requested(recorded: Sequence[HostedDeployment], wanted: Wanted) -> bool:
    """Whether the wanted terms were requested. If none were recorded, that is unknown."""
    entry = next((one for one in recorded if one.name == wanted.name), None)
    return entry is None or entry.attached or not _request_changed(entry, wanted)


def _deletion_to_repeat(entry: HostedDeployment, found: Mapping[str, Hosted], now: datetime) -> tuple[str, ...]:
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


def _waiting_note(found: Mapping[str, Hosted], entry: HostedDeployment, there: Hosted | None, now: datetime) -> str:
    """What a deployment waits for that is not being created, or has been for long."""
    if there is None and entry.released_at is not None:
        return f"; its deletion was requested at {entry.released_at}: it is made again when it is gone"
    if there is None:
        return _turn_note(found)
    if entry.released_at is not None and there.state != "Deleting":
        return f"; its deletion was requested at {entry.released_at}: it is made again when it is gone"
    late = there.state in {"Creating", "Deleting"} and now - moment(entry.created_at) >= LONG
    return f"; it was requested at {entry.created_at}, and is still {there.state} at the provider" if late else ""


def _turn_note(found: Mapping[str, Hosted]) -> str:
    first = next((one.name for one in found.values() if one.state in {"Creating", "Deleting"}), None)
    return f"; the account takes one change at a time, and {first} is being changed" if first else ""


def _in_turn(serving: Serving, found: Mapping[str, Hosted]) -> Serving:
    """It answers, and gets its new terms once the account's present change is over."""
    return replace(serving, state="Rolling", note=_turn_note(found), answers=serving.version)


def _undeleted_note(others: Sequence[HostedDeployment], found: Mapping[str, Hosted], now: datetime) -> str:
    """Deployments whose deletion was accepted and has no effect."""
    shown = [one for one in others if whole(found, one.name) is not None]
    return "".join(
        f"; {one.name}, which served before, was to be deleted at {one.released_at}, and is still at the provider, "
        "where it may be billed"
        for one in shown
        if one.released_at is not None and now - moment(one.released_at) >= ENDING
    )


def _expiry(seen: _Observed) -> Failure:
    wanted = seen.wanted
    said = f"deployment {wanted.name} is not at the provider any more: it was deleted there, or has expired"
    return Failure.because(Reason.EXPIRED, said + edited.renamed(wanted.model, wanted.prefix, seen.found))


def _failure_of(wanted: Wanted, there: Hosted) -> Failure:
    said = f": {there.failure}" if there.failure else ""
    message = f"deployment {wanted.name} failed at the provider{said.rstrip('.')}; change spec.retryNonce to have it"
    return Failure.because(Reason.DEPLOYMENT_FAILED, f"{message} recreated")


def _silence(seen: _Observed, there: Hosted) -> Failure:
    """For one that is ready and does not answer, or is still being created."""
    said = f"deployment {seen.wanted.name} was requested at {seen.entry.created_at} and is "
    said += "ready, as the provider says" if there.state == "Ready" else f"still {there.state} at the provider"
    said += f", {billed(seen.entry)}, and does not answer; "
    said += "it is asked again" if there.state == "Ready" else "see there why, or delete it there to have it recreated"
    return Failure.because(Reason.DEPLOYMENT_FAILED, said)
