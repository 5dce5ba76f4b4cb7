"""What is left somewhere: when it is said, how soon it is tried again, when an Event tells of it."""

import pytest

from finetune_api.base import Condition
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, merge
from finetune_operator.decide.leftovers import abandoned, left, leftover_event, nothing_left, pause, way_out
from tests.unit.finetune_operator.decide.given import NOW, at

DENIED = Failure.because(Reason.CREDENTIALS_INVALID, "the key may not delete.")
BUSY = Failure.because(Reason.PROVIDER_BUSY, "later")


def said(failure: Failure = DENIED) -> list[Condition]:
    return merge(None, [left("its data", failure, way_out("job"))], generation=1, now=NOW)


def state(status: str) -> list[Condition]:
    return [one.model_copy(update={"status": status}) for one in said()]


def test_what_goes_in_a_moment_is_not_said_to_stay() -> None:
    message = said(Failure.because(Reason.PROVIDER_BUSY, "it is being stopped"))[0].message
    assert message.startswith("its data is not deleted yet: it is being stopped. ")


OTHERS = merge(None, [Fact("Ready", "False", Reason.PENDING)], generation=1, now=NOW)


def test_what_is_left_is_said_with_why_and_both_ways_out() -> None:
    message = said()[0].message
    assert message.startswith("its data cannot be deleted: the key may not delete. ")
    assert str(DENIED.next_step) in message
    assert message.endswith("Or annotate the job with finetune.dev/abandon=true to leave it there.")


@pytest.mark.parametrize(
    ("before", "gone", "given_up"),
    [
        (None, [], []),
        (OTHERS, [], []),
        (state("True"), [], []),
        (said(), ["True"], ["Unknown"]),
        (state("Unknown"), ["True"], []),
    ],
    ids=["no doubt", "another condition", "gone before", "left", "let go"],
)
def test_the_condition_ends_only_where_it_was_in_doubt(
    before: list[Condition] | None, gone: list[str], given_up: list[str]
) -> None:
    assert [fact.status for fact in nothing_left(before)] == gone
    assert [fact.status for fact in abandoned(before)] == given_up


@pytest.mark.parametrize(
    ("before", "failure", "after", "seconds"),
    [
        (None, DENIED, 600, 60),
        (said(), DENIED, 30, 60),
        (said(), DENIED, 600, 600),
        (said(), DENIED, 86400, 3600),
        (said(), BUSY, 600, 60),
        (state("True"), DENIED, 600, 60),
    ],
    ids=["first", "a moment", "as long as it has failed", "forever", "passes by itself", "failed before, and mended"],
)
def test_it_is_tried_ever_more_rarely_where_somebody_has_to_do_something(
    before: list[Condition] | None, failure: Failure, after: float, seconds: float
) -> None:
    assert pause(before, failure, at(after)) == seconds


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (None, said(), True),
        (said(), said(), False),
        (said(BUSY), said(), True),
        (state("True"), said(), True),
        (None, said(BUSY), False),
        (said(), state("True"), False),
        (None, OTHERS, False),
        (None, None, False),
    ],
    ids=["new", "known", "for another reason", "again", "passes by itself", "gone", "another condition", "nothing"],
)
def test_an_event_tells_once_of_what_does_not_pass_by_itself(
    old: list[Condition] | None, new: list[Condition] | None, told: bool
) -> None:
    found = leftover_event(old, new)
    assert (found is not None) is told
    assert found is None or found[:2] == ("Warning", "CredentialsInvalid")
