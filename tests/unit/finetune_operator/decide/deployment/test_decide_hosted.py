"""What is done about deployments at a provider that bills for them: one row for each state of the world."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.deployment import HostedDeployment
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.hosted import Plan, Wanted, leave, plan, sleep
from finetune_operator.decide.deployment.hosted_record import (
    ENDING,
    GOING,
    MISSED,
    Hosted,
    answered,
    billed,
    bound,
    ours,
    with_operation,
)
from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.decide.job.remote import SETTLE
from tests.unit.finetune_operator.decide.given import at, stamp

WANTED = Wanted("md-v2", 2, "azure", "md-v", None)


def entry(version: int = 2, seconds: float = 0, **fields: Any) -> HostedDeployment:
    base = {"name": f"md-v{version}", "version": version, "connection": "azure", "created_at": stamp(seconds)}
    return HostedDeployment(**(base | {"attached": False} | fields))


def there(**states: Any) -> dict[str, Hosted]:
    found = {name.replace("_", "-"): state for name, state in states.items()}
    return {name: Hosted(name, state, "azure") for name, state in found.items()}


OLD = entry(1, answered=True)
WORLDS: dict[str, tuple[list[HostedDeployment], dict[str, Hosted], str, dict[str, Any]]] = {
    # recorded, found, state of the server, what is done beside
    "nothing yet": ([], {}, "Rolling", {"make": True}),
    "recorded, not made": ([entry()], {}, "Rolling", {"make": True}),
    "the account is busy": ([], there(other="Creating"), "Rolling", {}),
    "being made": ([entry()], there(md_v2="Creating"), "Rolling", {}),
    "made, not asked": ([entry()], there(md_v2="Ready"), "Rolling", {"ask": True}),
    "answers": ([entry(answered=True)], there(md_v2="Ready"), "Serving", {"serves": "md-v2"}),
    "failed": ([entry()], there(md_v2="Failed"), "Failing", {}),
    "not shown by one list": ([entry(answered=True)], {}, "Unshown", {}),
    "deleted there": ([entry(answered=True, unseen_since=stamp(-60))], {}, "Failing", {}),
    "deleted there, asked for again": ([entry(answered=True, nonce="old")], {}, "Rolling", {"make": True}),
    "old one answers": ([OLD], there(md_v1="Ready"), "Rolling", {"make": True, "serves": "md-v1"}),
    "both": (
        [OLD, entry(answered=True)],
        there(md_v1="Ready", md_v2="Ready"),
        "Serving",
        {"serves": "md-v2", "delete": ("md-v1",)},
    ),
    "both, the account is busy": (
        [OLD, entry(answered=True)],
        there(md_v1="Ready", md_v2="Ready", other="Deleting"),
        "Serving",
        {"serves": "md-v2"},
    ),
    "both, the old one is going": (
        [OLD, entry(answered=True)],
        there(md_v1="Deleting", md_v2="Ready"),
        "Serving",
        {"serves": "md-v2"},
    ),
    "both, the old one is bound": (
        [OLD, entry(answered=True)],
        there(md_v2="Ready") | {"md-v1": Hosted("md-v1", "Ready", "aws", bound_until=at(1))},
        "Serving",
        {"serves": "md-v2"},
    ),
    "both, the old one was bound": (
        [OLD, entry(answered=True)],
        there(md_v2="Ready") | {"md-v1": Hosted("md-v1", "Ready", "aws", bound_until=at(-1))},
        "Serving",
        {"serves": "md-v2", "delete": ("md-v1",)},
    ),
    "new one failed": (
        [OLD, entry()],
        there(md_v1="Ready", md_v2="Failed"),
        "Failing",
        {"serves": "md-v1"},
    ),
    "failed, asked for again": ([entry(nonce="old")], there(md_v2="Failed"), "Rolling", {"delete": ("md-v2",)}),
    "failed, asked for again, the account is busy": (
        [entry(nonce="old")],
        there(md_v2="Failed", other="Creating"),
        "Rolling",
        {},
    ),
    "failed, and gone since it was asked for again": (
        [entry(nonce="old", released_at=stamp(-60), unseen_since=stamp(-20))],
        {},
        "Rolling",
        {"make": True},
    ),
    "one before failed": ([entry(1), entry()], there(md_v1="Failed", md_v2="Creating"), "Rolling", {}),
    "what answered has failed": ([OLD, entry()], there(md_v1="Failed", md_v2="Creating"), "Rolling", {}),
    "one before failed, nothing changes": (
        [entry(1)],
        there(md_v1="Failed"),
        "Rolling",
        {"delete": ("md-v1",)},
    ),
    "all failed": ([entry(1), entry()], there(md_v1="Failed", md_v2="Failed"), "Failing", {"delete": ("md-v1",)}),
    "one that was overtaken": (
        [OLD, entry(3)],
        there(md_v1="Ready", md_v3="Ready"),
        "Rolling",
        {"serves": "md-v1", "delete": ("md-v3",)},
    ),
    "one that was overtaken is bound": (
        [OLD, entry(3)],
        there(md_v1="Ready") | {"md-v3": Hosted("md-v3", "Ready", "aws", bound_until=at(1))},
        "Rolling",
        {"serves": "md-v1", "make": True},
    ),
    "one that may be what answers": ([entry(1)], there(md_v1="Ready"), "Rolling", {"make": True}),
    "one that nobody has recorded": (
        [entry(answered=True)],
        there(md_v1="Ready", md_v2="Ready"),
        "Serving",
        {"serves": "md-v2", "delete": ("md-v1",)},
    ),
    "being changed in place": (
        [entry(answered=True)],
        there(md_v2="Creating"),
        "Rolling",
        {"serves": "md-v2"},
    ),
    "one of somebody else": (
        [entry(answered=True)],
        there(md_v2="Ready", md_vintage="Ready", stranger="Ready"),
        "Serving",
        {"serves": "md-v2"},
    ),
}


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_has_its_plan(name: str) -> None:
    recorded, found, state, done = WORLDS[name]
    made = plan(recorded, found, WANTED, at(0))
    assert made.serving.state == state
    assert made.serving.version == 2
    assert actions(made) == {"make": False, "ask": False, "delete": (), "serves": None} | done
    assert made.serving.available == int(made.serves is not None or state == "Unshown")
    assert made.recorded[-1].name == "md-v2"


def actions(made: Plan) -> dict[str, Any]:
    return {"make": made.make, "ask": made.ask, "delete": made.delete, "serves": made.serves}


BACK_TO_1 = replace(WANTED, name="md-v1", version=1)


@pytest.mark.parametrize("seconds", [1, 3600])
@pytest.mark.parametrize("leaves", [plan, sleep])
def test_a_version_that_was_left_and_is_wanted_again_is_made_again(leaves: Any, seconds: int) -> None:
    """It was deleted on our own behalf, so that it is gone is no surprise."""
    both = there(md_v1="Ready", md_v2="Ready")
    left = leaves([OLD, entry(answered=True)], both, WANTED, at(seconds)).recorded
    deleting = plan(left, there(md_v1="Deleting", md_v2="Ready"), BACK_TO_1, at(seconds))
    assert (deleting.serving.state, deleting.make) == ("Rolling", False)
    gone = plan(deleting.recorded, there(md_v2="Ready"), BACK_TO_1, at(seconds))
    assert (gone.serving.state, gone.make) == ("Rolling", False), "its deletion may fail yet"
    later = seconds + GOING.total_seconds()
    again = plan(gone.recorded, there(md_v2="Ready"), BACK_TO_1, at(later))
    assert (again.serving.state, again.make) == ("Rolling", True)
    made = plan(again.recorded, there(md_v1="Creating", md_v2="Ready"), BACK_TO_1, at(later))
    stands = plan(made.recorded, there(md_v1="Ready", md_v2="Ready"), BACK_TO_1, at(later))
    assert stands.ask


def left_for_another() -> list[HostedDeployment]:
    """The record after version 1 was asked to go, because 2 answers."""
    return list(plan([OLD, entry(answered=True)], there(md_v1="Ready", md_v2="Ready"), WANTED, at(0)).recorded)


def test_one_that_was_asked_to_go_is_waited_for_though_it_is_shown_as_if_it_stood() -> None:
    """Bedrock has no word for what is being deleted. What answers goes on, and nobody is told that it has expired."""
    both = there(md_v1="Ready", md_v2="Ready")
    back = plan(left_for_another(), both, BACK_TO_1, at(60))
    assert (back.serving.state, back.serves, back.make, back.ask, back.delete) == ("Rolling", "md-v2", False, False, ())
    assert "its deletion was requested at" in back.serving.note
    gone = plan(back.recorded, there(md_v2="Ready"), BACK_TO_1, at(120))
    assert (gone.serving.state, gone.serves, gone.make) == ("Rolling", "md-v2", False)
    gone = plan(gone.recorded, there(md_v2="Ready"), BACK_TO_1, at(140))
    assert (gone.serving.state, gone.serves, gone.make) == ("Rolling", "md-v2", True)


def test_one_that_was_asked_to_go_and_stands_for_long_goes_on() -> None:
    both, later = there(md_v1="Ready", md_v2="Ready"), ENDING.total_seconds()
    back = plan(left_for_another(), both, BACK_TO_1, at(later))
    assert (back.serving.state, back.serves, back.delete) == ("Serving", "md-v1", ("md-v2",))
    missed = plan(back.recorded, there(md_v2="Ready"), BACK_TO_1, at(later + 1))
    gone = plan(missed.recorded, there(md_v2="Ready"), BACK_TO_1, at(later + 1 + MISSED.total_seconds()))
    assert gone.serving.failure is not None
    assert gone.serving.failure.reason == Reason.EXPIRED


def test_several_are_asked_to_go_one_after_the_other_and_again_if_they_do_not() -> None:
    """None waits for another one that does not go."""
    both = there(md_v1="Ready", md_v2="Ready")
    recorded, asked = [OLD, entry(answered=True)], []
    for look in range(4):
        plan_of_it = sleep(recorded, both, replace(WANTED, one_at_a_time=False), at(20 * look))
        recorded = list(plan_of_it.recorded)
        asked.append(plan_of_it.delete[0])
    assert asked == ["md-v1", "md-v2", "md-v1", "md-v2"]


def test_what_failed_and_what_is_gone_have_their_reasons() -> None:
    failed = plan([entry()], there(md_v2="Failed"), WANTED, at(0)).serving.failure
    missed = plan([entry(answered=True)], {}, WANTED, at(0))
    expired = plan(missed.recorded, {}, WANTED, at(MISSED.total_seconds())).serving.failure
    assert failed is not None
    assert expired is not None
    assert (failed.reason, expired.reason) == (Reason.DEPLOYMENT_FAILED, Reason.EXPIRED)
    assert expired.next_step


MOMENT = SETTLE.total_seconds()


def names(recorded: list[HostedDeployment]) -> list[str]:
    return [one.name for one in recorded]


@pytest.mark.parametrize("waited", [0, 600])
@pytest.mark.parametrize("unseen_since", [None, stamp(0)], ids=["recorded", "asked for before"])
def test_a_deployment_that_was_asked_for_a_moment_ago_is_not_forgotten(unseen_since: str | None, waited: int) -> None:
    """However long it was recorded before, or asked for in vain: an account may be busy."""
    made = list(plan([entry(unseen_since=unseen_since)], {}, WANTED, at(waited)).recorded)
    assert names(ours(made, {}, "md-v", at(waited + MOMENT - 1))) == ["md-v2"]
    assert names(ours(made, {}, "md-v", at(waited + MOMENT))) == []


@pytest.mark.parametrize(("one", "most"), [(OLD, MISSED), (entry(1), SETTLE)], ids=["answered", "made"])
@pytest.mark.parametrize("prefix", ["md-v", "other-"])
def test_what_one_list_lacks_is_not_gone(one: HostedDeployment, most: timedelta, prefix: str) -> None:
    """By another prefix, because another kind of deployment is wanted by now, nothing would find it again."""
    missed = ours([one], {}, prefix, at(3600))
    assert names(missed) == ["md-v1"]
    seen = ours(missed, there(md_v1="Ready"), prefix, at(3620))
    assert seen[0].unseen_since is None
    missed = ours(seen, {}, prefix, at(7200))
    assert names(ours(missed, {}, prefix, at(7200 + most.total_seconds() - 1))) == ["md-v1"]
    assert names(ours(missed, {}, prefix, at(7200 + most.total_seconds()))) == []


def test_what_answered_is_not_expired_by_one_list_that_lacks_it() -> None:
    missed = plan([entry(answered=True)], {}, WANTED, at(0))
    assert (missed.serving, missed.serves, missed.make) == (Serving("Unshown", 2, 1), None, False)
    back = plan(missed.recorded, there(md_v2="Ready"), WANTED, at(20))
    assert (back.serving.state, back.serves, back.recorded[0].unseen_since) == ("Serving", "md-v2", None)


def test_what_was_told_to_have_failed_is_made_anew_by_nobody_because_one_list_lacks_it() -> None:
    lacks = plan([entry()], {}, WANTED, at(0), failed=True)
    assert (lacks.serving, lacks.make) == (Serving("Unshown", 2, 1), False)
    shown = plan(lacks.recorded, there(md_v2="Failed"), WANTED, at(20), failed=True)
    assert (shown.serving.state, shown.make) == ("Failing", False)
    gone = plan(lacks.recorded, {}, WANTED, at(0) + MISSED, failed=True)
    assert (gone.serving.state, gone.make) == ("Rolling", True), "somebody has deleted it"


def test_what_answered_goes_on_answering_though_one_list_lacks_it_while_a_new_one_is_made() -> None:
    lacks = plan([OLD, entry(unseen_since=stamp(0))], {}, WANTED, at(0))
    assert (lacks.serving.state, lacks.serving.available, lacks.serves) == ("Rolling", 1, None)
    gone = plan(lacks.recorded, {}, WANTED, at(0) + MISSED)
    assert (gone.serving.available, names(gone.recorded)) == (0, ["md-v2"])


def test_what_was_asked_to_go_is_gone_when_two_looks_lack_it() -> None:
    """A deletion that was accepted may fail, and one list may lack what stands."""
    asked = [entry(1, answered=True, released_at=stamp(0))]
    missed = ours(asked, {}, "md-v", at(1))
    assert names(missed) == ["md-v1"]
    assert names(ours(missed, {}, "md-v", at(20))) == ["md-v1"]
    assert ours(missed, {}, "md-v", at(21)) == []
    back = ours(missed, there(md_v1="Ready"), "md-v", at(21))
    assert names(ours(back, {}, "md-v", at(600))) == ["md-v1"]


def test_what_failed_is_asked_to_go_again_where_that_call_was_lost() -> None:
    asked, failed = [entry(released_at=stamp(0))], there(md_v2="Failed")
    assert plan(asked, failed, WANTED, at(59)).delete == ()
    again = plan(asked, failed, WANTED, at(60))
    assert (again.delete, again.make, again.recorded[0].released_at) == (("md-v2",), False, stamp(0))
    assert plan(asked, failed | there(other="Creating"), WANTED, at(60)).delete == ()


@pytest.mark.parametrize("answered", [False, True])
def test_a_wish_for_another_one_outlives_a_list_that_lacks_what_failed(answered: bool) -> None:
    anew = replace(WANTED, nonce="again")
    lacks = plan([entry(answered=answered)], {}, anew, at(20))
    assert (lacks.make, lacks.serving.state) == (True, "Rolling")
    assert plan(lacks.recorded, there(md_v2="Failed"), anew, at(40)).delete == ("md-v2",)
    gone = plan(lacks.recorded, {}, anew, at(20) + MISSED)
    assert (gone.make, gone.recorded[0].nonce) == (True, "again")
    assert plan(gone.recorded, there(md_v2="Failed"), anew, at(140)).delete == ()


def test_parts_of_a_deployment_do_not_tell_that_it_is_there() -> None:
    """An endpoint shows later than the model and the configuration that it was made of."""
    made = list(plan([entry()], {}, WANTED, at(0)).recorded)
    parts = ours(made, there(md_v2="Partial"), "md-v", at(60))
    assert parts[0].unseen_since == stamp(60)
    assert names(ours(parts, {}, "md-v", at(179))) == ["md-v2"], "they were deleted, and it may still come"
    assert ours(parts, {}, "md-v", at(180)) == []


def test_what_is_left_of_one_is_not_forgotten_because_one_list_lacks_it() -> None:
    asked = [entry(1, answered=True, released_at=stamp(0))]
    parts = ours(asked, there(md_v1="Partial"), "md-v", at(20))
    lacking = ours(parts, {}, "md-v", at(60))
    assert names(lacking) == ["md-v1"]
    assert ours(lacking, {}, "md-v", at(80)) == []
    robbed = ours([entry(1, answered=True, unseen_since=stamp(0))], there(md_v1="Partial"), "md-v", at(600))
    assert names(ours(robbed, {}, "md-v", at(620))) == ["md-v1"]


def test_what_is_left_of_one_is_not_told_to_be_billed() -> None:
    recorded = [entry(1, answered=True, released_at=stamp(0)), entry(answered=True)]
    found = there(md_v1="Partial", md_v2="Ready")
    assert plan(recorded, found, WANTED, at(ENDING.total_seconds())).serving.note == ""


def test_that_parts_were_asked_to_go_tells_nothing_of_what_may_still_come() -> None:
    made = list(plan([entry()], {}, WANTED, at(0)).recorded)
    found = there(md_v2="Partial")
    asleep = sleep(made, found, WANTED, at(20))
    assert (asleep.delete, names(ours(list(asleep.recorded), {}, "md-v", at(40)))) == (("md-v2",), ["md-v2"])


def test_a_time_that_a_wrong_clock_has_written_holds_nothing_up() -> None:
    ahead = entry(1, unseen_since=stamp(365 * 86400))
    missed = ours([ahead], {}, "md-v", at(0))
    assert missed[0].unseen_since == stamp(0)
    assert names(ours(missed, {}, "md-v", at(MOMENT))) == []


def test_an_answer_is_recorded_of_the_one_that_gave_it_and_ends_what_told_of_its_making() -> None:
    told = answered([entry(1, operation="a"), entry(2, operation="b")], "md-v2")
    assert [(one.answered, one.operation) for one in told] == [(False, "a"), (True, None)]


def test_what_tells_of_a_making_is_recorded_of_the_one_that_is_made() -> None:
    assert [one.operation for one in with_operation([entry(1), entry(2)], "md-v2", "b")] == [None, "b"]


def test_what_is_made_is_recorded_as_the_objects_own_with_the_terms_that_can_be_changed_in_place() -> None:
    made = [plan([], {}, wanted, at(0)).recorded[-1] for wanted in (WANTED, CHANGED)]
    assert [(one.attached, one.terms) for one in made] == [(False, None), (False, "Standard x 2")]


def test_what_is_changed_in_place_answers_meanwhile_with_its_own_version() -> None:
    assert plan([entry(answered=True)], there(md_v2="Creating"), WANTED, at(0)).serving.answers == 2


@pytest.mark.parametrize("state", ["Creating", "Deleting"])
def test_what_was_overtaken_is_not_asked_to_go_while_it_is_on_its_way(state: str) -> None:
    found = there(md_v1="Ready", md_v3=state)
    assert plan([OLD, entry(3)], found, replace(WANTED, one_at_a_time=False), at(0)).delete == ()


@pytest.mark.parametrize("answers", [False, True])
def test_what_an_earlier_version_has_at_a_provider_goes_once_the_wanted_one_answers_elsewhere(answers: bool) -> None:
    left, delete = leave([OLD], there(md_v1="Ready"), at(0), answers=answers)
    assert delete == (("md-v1",) if answers else ())
    assert [one.released_at for one in left] == [stamp(0) if answers else None]


@pytest.mark.parametrize(("words", "said"), [("no quota.", " at the provider: no quota; "), ("", " at the provider; ")])
def test_why_a_deployment_failed_is_said_in_its_providers_words(words: str, said: str) -> None:
    failed = plan([entry()], {"md-v2": Hosted("md-v2", "Failed", "azure", failure=words)}, WANTED, at(0))
    assert failed.serving.failure is not None
    assert said in failed.serving.failure.message


CHANGED = replace(WANTED, terms="Standard x 2")
SHOWN = {"md-v2": Hosted("md-v2", "Ready", "azure", terms="standard x 1")}


def test_other_terms_are_asked_for_once_where_they_are_changed_in_place() -> None:
    before = entry(answered=True, terms="Standard x 1")
    first = plan([before], SHOWN, CHANGED, at(0))
    assert (first.make, first.serving.state, first.recorded[-1].terms) == (True, "Serving", "Standard x 2")
    again = plan(first.recorded, SHOWN, CHANGED, at(60))
    assert not again.make
    assert "at the provider it is standard x 1, not Standard x 2" in again.serving.note
    assert plan(first.recorded, SHOWN, replace(CHANGED, nonce="again"), at(120)).make


def test_terms_that_are_spelled_otherwise_or_not_told_are_no_change() -> None:
    same = replace(WANTED, terms="Standard x 1")
    assert plan([entry(answered=True, terms="Standard x 1")], SHOWN, same, at(0)).serving.note == ""
    assert plan([entry(answered=True)], SHOWN, WANTED, at(0)).serving.note == "", "nothing of it is asked for"
    assert not plan([entry(answered=True)], SHOWN, CHANGED, at(0)).make, "a record of the release before"
    busy = {**SHOWN, "other": Hosted("other", "Creating", "azure")}
    assert not plan([entry(answered=True, terms="Standard x 1")], busy, CHANGED, at(0)).make


WAITS = {
    "for another one": ([], there(other="Creating"), 0, "and other is being changed"),
    "for itself, a while": ([entry()], there(md_v2="Creating"), 600, ""),
    "for itself, for long": ([entry()], there(md_v2="Creating"), 3600, "and is still Creating at the provider"),
    "for its own end": ([entry(answered=True)], there(md_v2="Deleting"), 7200, "and is still Deleting at the provider"),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_a_deployment_waits_for_is_said(name: str) -> None:
    recorded, found, seconds, said = WAITS[name]
    note = plan(recorded, found, WANTED, at(seconds)).serving.note
    assert note.endswith(said)
    assert bool(note) == bool(said)


def test_where_several_may_change_at_once_what_is_useless_goes_beside_what_is_made() -> None:
    found = there(md_v1="Ready", md_v3="Ready")
    free = plan([OLD, entry(3)], found, replace(WANTED, one_at_a_time=False), at(0))
    assert (free.make, free.delete) == (True, ("md-v3",))


def test_one_that_failed_is_made_anew_by_other_terms_too() -> None:
    failed = {"md-v2": Hosted("md-v2", "Failed", "azure")}
    made = entry(terms="Standard x 9000")
    assert plan([made], failed, CHANGED, at(0)).delete == ("md-v2",)
    assert plan([made], failed, replace(CHANGED, terms="Standard x 9000"), at(0)).delete == ()


@pytest.mark.parametrize(("model", "state"), [("GPT.ft-1", "Rolling"), ("", "Rolling"), ("gpt.ft-2", "Failing")])
def test_one_that_serves_another_model_is_said_to_and_names_have_no_case(model: str, state: str) -> None:
    found = {"md-v2": Hosted("md-v2", "Ready", "azure", model=model)}
    assert plan([entry()], found, replace(WANTED, model="gpt.ft-1"), at(0)).serving.state == state


def test_one_that_is_ready_for_long_and_does_not_answer_is_told_of_and_asked_again() -> None:
    ready, world = there(md_v1="Ready", md_v2="Ready"), [OLD, entry()]
    assert plan(world, ready, WANTED, at(600)).serving.state == "Rolling"
    late = plan(world, ready, WANTED, at(3600))
    assert (late.serving.state, late.ask, late.serves, late.delete) == ("Failing", True, "md-v1", ())
    assert late.serving.failure is not None
    assert "may be billed, and does not answer" in late.serving.failure.message
    assert plan(list(answered(late.recorded, "md-v2")), ready, WANTED, at(3620)).serving.state == "Serving"


def test_what_is_going_is_not_asked_to_go_again() -> None:
    """It would be a conflict to many a provider, and read as if it could not be deleted."""
    going = there(md_v1="Deleting")
    assert sleep([OLD], going, replace(WANTED, one_at_a_time=False), at(0)).delete == ()
    assert leave([OLD], going, at(0), answers=True) == ((OLD,), ())


@pytest.mark.parametrize(
    ("there", "told"),
    [
        pytest.param(
            Hosted("md-v1", "Ready", "aws", bound_until=at(1)),
            f"; md-v1 cannot be deleted, and is billed, until {stamp(1)}: its commitment",
            id="within its commitment",
        ),
        pytest.param(Hosted("md-v1", "Ready", "aws", bound_until=at(-1)), "", id="its commitment is over"),
        pytest.param(Hosted("md-v1", "Ready", "aws"), "", id="it has none"),
        pytest.param(Hosted("md-v2", "Ready", "aws", bound_until=at(1)), "", id="another's"),
    ],
)
def test_a_commitment_that_is_still_billed_is_told_with_its_end(there: Hosted, told: str) -> None:
    assert bound([OLD], {there.name: there}, at(0)) == told


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "is not billed by the hour"),
        ({"answered": False}, "may be billed"),
        ({"unseen_since": stamp(0)}, "may be billed"),
        ({"billed_since": stamp(0)}, f"is billed since {stamp(0)}"),
        ({"billed_since": stamp(0), "per_hour": "1.70"}, f"is billed since {stamp(0)} at 1.70 an hour"),
        ({"billed_since": stamp(0), "per_hour": "0.00"}, "is not billed by the hour"),
    ],
)
def test_what_one_costs_is_told_as_far_as_it_is_known(fields: dict[str, Any], said: str) -> None:
    assert billed(OLD.model_copy(update=fields)) == said
