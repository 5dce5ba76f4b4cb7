"""What was to be deleted and cannot be deleted now: reported, retried at growing intervals, abandoned on request.

The condition `Cleaned` exists from the first failure on; without it, all went well. Pure.
"""

from collections.abc import Iterable
from datetime import datetime

from finetune_api.base import Condition
from finetune_api.job_status import Failure
from finetune_api.names import ABANDON_ANNOTATION
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, moment
from finetune_operator.decide.transient import TEMPORARY

CONDITION = "Cleaned"
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0

Conditions = Iterable[Condition] | None


def left(what: str, failure: Failure, way_out: str) -> Fact:
    """What is left, why, and what can be done other than resolving that."""
    step = f" {failure.next_step}" if failure.next_step else ""
    state = "is not deleted yet" if failure.reason in TEMPORARY else "cannot be deleted"
    return Fact(CONDITION, "False", failure.reason, f"{what} {state}: {failure.message.rstrip('.')}.{step} {way_out}")


def way_out(kind: str) -> str:
    """How to abandon it. `kind`: the user's word for the object."""
    return f"Or annotate the {kind} with {ABANDON_ANNOTATION}=true to leave it there."


def nothing_left(conditions: Conditions) -> list[Fact]:
    """The condition once everything is gone, if it was not True before."""
    found = _of(conditions)
    doubt = found is not None and found.status != "True"
    return [Fact(CONDITION, "True", Reason.SUCCEEDED, "what was to be deleted is gone")] if doubt else []


def is_left(conditions: Conditions) -> bool:
    """Whether something is still to be deleted."""
    found = _of(conditions)
    return found is not None and found.status == "False"


def abandoned(conditions: Conditions) -> list[Fact]:
    """The condition once it is abandoned."""
    found = _of(conditions)
    if found is None or found.status != "False":
        return []
    said = f"released by the annotation {ABANDON_ANNOTATION}; it may still be there"
    return [Fact(CONDITION, "Unknown", Reason(found.reason), said)]


def pause(conditions: Conditions, failure: Failure, now: datetime) -> float:
    """Seconds until the next try: as long as it has failed already, or briefly if the obstacle passes unaided."""
    found = _of(conditions)
    failing = found is not None and found.status == "False" and failure.reason not in TEMPORARY
    elapsed = (now - moment(found.last_transition_time)).total_seconds() if found is not None and failing else 0.0
    return min(max(elapsed, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


def leftover_event(old: Conditions, new: Conditions) -> tuple[str, str, str] | None:
    """Type, reason and note of the Event for a new obstacle that does not pass unaided."""
    before, found = _of(old), _of(new)
    if found is None or found.status != "False" or found.reason in TEMPORARY:
        return None
    known = before is not None and (before.status, before.reason) == (found.status, found.reason)
    return None if known else ("Warning", found.reason, found.message)


def _of(conditions: Conditions) -> Condition | None:
    return next((one for one in conditions or () if one.type == CONDITION), None)
