"""Conditions as kstatus reads them: Ready, Reconciling and Stalled from the first write on, never two True at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Literal

from finetune_api.base import Condition
from finetune_api.reasons import Reason
from finetune_api.words import cut, unstyled

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

State = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Fact:
    """A condition without its transition time."""

    type: str
    status: State
    reason: Reason
    message: str = ""


def timestamp(moment: datetime) -> str:
    """A time in the API's format: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """A time from the API's text. Extreme values are clamped, so that arithmetic with them is safe."""
    return min(max(datetime.fromisoformat(text), _FIRST), _LAST)


def ready(reason: Reason, message: str = "") -> list[Fact]:
    """As wanted. kstatus: Current."""
    return _of_three("Ready", reason, message)


def reconciling(reason: Reason, message: str = "") -> list[Fact]:
    """In progress. kstatus: InProgress."""
    return _of_three("Reconciling", reason, message)


def stalled(reason: Reason, message: str) -> list[Fact]:
    """Needs somebody to change something. kstatus: Failed."""
    return _of_three("Stalled", reason, message)


def resting(reason: Reason, message: str) -> list[Fact]:
    """Stopped on request: neither ready, nor in progress, nor in need of help."""
    return _of_three(None, reason, message)


def _of_three(holds: str | None, reason: Reason, message: str) -> list[Fact]:
    """The condition `holds` is True. Ready has the message, and so has Stalled if it holds, else Reconciling."""
    trouble = holds == "Stalled"
    return [
        Fact("Ready", "True" if holds == "Ready" else "False", reason, message),
        Fact("Reconciling", "True" if holds == "Reconciling" else "False", reason, "" if trouble else message),
        Fact("Stalled", "True" if trouble else "False", reason, message if trouble else ""),
    ]


def being_deleted(finalizers: str, ends: str = "", way_out: str = "") -> list[Fact]:
    """The object is being deleted, and kept by finalizers.

    Args:
        finalizers: as a list in words.
        ends: what must end first.
        way_out: how to release it, if known.
    """
    if ends:
        message = f"it is being deleted: {ends}, and then the finalizers {finalizers} are to go"
    else:
        message = f"it is being deleted, and kept by its finalizers {finalizers}{way_out}"
    return reconciling(Reason.PENDING, message)


def retiring(said: str | None, before: list[Condition] | None) -> list[Fact]:
    """What a provider retires on a known date. Once nothing is retired, the condition says so."""
    if said:
        return [Fact("Retiring", "True", Reason.MODEL_RETIRES, said)]
    return [Fact("Retiring", "False", Reason.READY, "no last day is known")] if is_true(before, "Retiring") else []


def merge(
    previous: list[Condition] | None, facts: Iterable[Fact], *, generation: int, now: datetime
) -> list[Condition]:
    """The facts as conditions. One whose status is unchanged keeps its transition time; conditions not named are kept.

    All get the current generation: `kubectl wait` ignores a condition of an older one, for ever.
    """
    current = {"observed_generation": generation}
    merged = {
        old.type: old if old.observed_generation == generation else old.model_copy(update=current)
        for old in previous or ()
    }
    for fact in facts:
        old = merged.get(fact.type)
        changed = old is None or old.status != fact.status
        merged[fact.type] = Condition(
            type=fact.type,
            status=fact.status,
            reason=fact.reason.value,
            message=cut(unstyled(fact.message), 4096),
            last_transition_time=timestamp(now) if changed or old is None else old.last_transition_time,
            observed_generation=generation,
        )
    return list(merged.values())


def is_true(conditions: list[Condition] | None, condition_type: str) -> bool:
    """Whether the condition exists and is True."""
    return any(c.type == condition_type and c.status == "True" for c in conditions or ())


def stalled_event(old: list[Condition] | None, new: list[Condition] | None) -> tuple[str, str, str] | None:
    """Type, reason and note of the Event when the object becomes stalled, is stalled by another reason, or recovers."""
    was, now = _true(old, "Stalled"), _true(new, "Stalled")
    if now is None:
        well = _true(new, "Ready") if was is not None else None  # else its last Event would stay an outdated Warning
        return ("Normal", well.reason, well.message) if well is not None else None
    return ("Warning", now.reason, now.message) if was is None or was.reason != now.reason else None


def _true(known: list[Condition] | None, kind: str) -> Condition | None:
    return next((one for one in known or () if one.type == kind and one.status == "True"), None)


_MOST_NAMES = 10
"""More names would not help to correct a misspelt one."""


def nearest(names: Sequence[str], like: str) -> list[str]:
    """The names, those similar to `like` first. The others keep their order."""
    near = get_close_matches(like, names, n=_MOST_NAMES)
    return [*near, *(name for name in names if name not in near)]


def some_of(names: Sequence[str], like: str) -> str:
    """Names as a message lists them, limited to a useful number; empty if there are none.

    Args:
        names: all of them.
        like: what was written; similar names come first.
    """
    listed = nearest(names, like)
    more = f" and {len(listed) - _MOST_NAMES} more" if len(listed) > _MOST_NAMES else ""
    return ", ".join(listed[:_MOST_NAMES]) + more
