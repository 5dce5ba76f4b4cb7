"""Of many jobs that wait for room at a provider one asks whether there is any, and the others follow it."""

import pytest

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.capacity import PAUSE_SECONDS, JobCapacity
from finetune_operator.providers.calls.errors import AtCapacity, TryLater

FULL = AtCapacity("as many as may be", None, Reason.RATE_LIMITED)


def asks(room: JobCapacity, kind: str, answer: Exception | None = None) -> float | None:
    """Seconds until it makes sense to ask again; None where a job was made."""
    try:
        room.require(kind)
        with room.creating(kind):
            if answer is not None:
                raise answer
    except AtCapacity as error:
        return (error.retry_after or 0.0) if (error.message, error.reason) == (FULL.message, FULL.reason) else -1.0
    return None


def test_one_asks_and_the_others_come_after_it_one_by_one() -> None:
    now = [0.0]
    room = JobCapacity(lambda: now[0])
    with pytest.raises(AtCapacity), room.creating("gpt"):
        raise FULL
    again = [asks(room, "gpt") for _ in range(100)]
    assert [seconds for seconds in again if not PAUSE_SECONDS <= (seconds or 0.0) <= PAUSE_SECONDS + 10] == []
    assert len(set(again)) > 90, "they do not all come back at once"
    assert asks(room, "another model") is None
    now[0] = PAUSE_SECONDS
    assert asks(room, "gpt", FULL) == 0.0, "it was asked"
    assert asks(room, "gpt", AssertionError("it was asked again")) is not None
    now[0] *= 2
    assert [asks(room, "gpt"), asks(room, "gpt")] == [None, None]


def test_what_else_goes_wrong_says_nothing_about_room() -> None:
    room = JobCapacity(lambda: 0.0)
    with pytest.raises(TryLater), room.creating("gpt"):
        raise TryLater(Reason.QUOTA_EXCEEDED, "no credit", 300.0)
    room.require("gpt")
