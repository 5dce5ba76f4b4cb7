"""What is done about a deployment that somebody else has made: one row for each state of the world."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.deployment import HostedDeployment
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment.attached import KnownVersions, plan
from finetune_operator.decide.deployment.hosted import Wanted
from finetune_operator.decide.deployment.hosted_record import Hosted
from tests.unit.finetune_operator.decide.given import at, stamp

WANTED = Wanted("prod", 2, "azure", "md-v", None)
SERVED = KnownVersions("sentiment", {"ft-1": 1, "ft-2": 2})


def record(answered: bool = True, **fields: Any) -> HostedDeployment:
    base = {"name": "prod", "version": 2, "connection": "azure", "created_at": stamp(0), "attached": True}
    return HostedDeployment(**(base | {"answered": answered} | fields))


def there(model: str = "ft-2", state: Any = "Ready", name: str = "prod", connection: str = "azure") -> Hosted:
    return Hosted(name, state, connection, model=model, created_at=at(-3600))


MADE = record(name="md-v1", version=1, attached=False)
MADE_THERE = there("ft-1", name="md-v1")
WORLDS: dict[str, tuple[list[HostedDeployment], list[Hosted], str, Reason | None, dict[str, Any]]] = {
    # recorded, found, state of the server, reason of a failure, what is done beside
    "not there": ([], [], "Failing", Reason.DEPLOYMENT_NOT_FOUND, {}),
    "there in another account": ([], [there(connection="other")], "Failing", Reason.DEPLOYMENT_NOT_FOUND, {}),
    "there, not asked": ([], [there()], "Rolling", None, {"ask": True}),
    "there, asked in vain for a while": (
        [record(answered=False, silent_since=stamp(-3000))],
        [there()],
        "Rolling",
        None,
        {"ask": True},
    ),
    "there, asked in vain for an hour": (
        [record(answered=False, silent_since=stamp(-3600))],
        [there()],
        "Failing",
        Reason.DEPLOYMENT_FAILED,
        {"ask": True},
    ),
    "there, asked in vain for an hour, one was made before": (
        [MADE, record(answered=False, silent_since=stamp(-3600))],
        [MADE_THERE, there()],
        "Failing",
        Reason.DEPLOYMENT_FAILED,
        {"ask": True, "serves": "md-v1"},
    ),
    "being made by somebody": ([], [there(state="Creating")], "Rolling", None, {}),
    "failed there": ([], [there(state="Failed")], "Failing", Reason.DEPLOYMENT_FAILED, {}),
    "answers": ([record()], [there()], "Serving", None, {"serves": "prod"}),
    "scaled to zero there": ([record()], [replace(there(), units=0)], "Failing", Reason.DEPLOYMENT_FAILED, {}),
    "one list lacks it": ([record()], [], "Unshown", None, {}),
    "gone behind our back": ([record(unseen_since=stamp(-60))], [], "Failing", Reason.DELETED_AT_PROVIDER, {}),
    "on its way out": ([record()], [there(state="Deleting")], "Rolling", None, {}),
    "of a stranger's model": ([], [there("ft-9")], "Failing", Reason.ATTACHED_DIFFERS, {}),
    "of a model that is not told": ([], [there("")], "Failing", Reason.ATTACHED_DIFFERS, {}),
    "of another version": ([record()], [there("ft-1")], "Failing", Reason.ATTACHED_DIFFERS, {"serves": "prod"}),
    "changed to a stranger's model": ([record()], [there("ft-9")], "Failing", Reason.ATTACHED_DIFFERS, {}),
    "one was made before, this does not answer yet": (
        [MADE],
        [MADE_THERE, there()],
        "Rolling",
        None,
        {"ask": True, "serves": "md-v1"},
    ),
    "one was made before, this answers": (
        [MADE, record()],
        [MADE_THERE, there()],
        "Serving",
        None,
        {"serves": "prod", "delete": ("md-v1",)},
    ),
    "one was made before, this is of another version": (
        [MADE, record()],
        [MADE_THERE, there("ft-1")],
        "Failing",
        Reason.ATTACHED_DIFFERS,
        {"serves": "prod"},
    ),
    "one was made before, and something changes there": (
        [MADE, record()],
        [MADE_THERE, there(), there(state="Creating", name="other")],
        "Serving",
        None,
        {"serves": "prod"},
    ),
    "another one was attached before": (
        [record(name="old")],
        [there("ft-1", name="old"), there()],
        "Rolling",
        None,
        {"ask": True},
    ),
}


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_has_its_plan_and_nothing_attached_is_ever_made_or_deleted(name: str) -> None:
    recorded, found, state, reason, done = WORLDS[name]
    made = plan(recorded, {one.name: one for one in found}, WANTED, SERVED, at(0))
    failure = made.serving.failure
    assert (made.serving.state, failure and failure.reason) == (state, reason)
    actions = {"ask": made.ask, "delete": made.delete, "serves": made.serves}
    assert actions == {"ask": False, "delete": (), "serves": None} | done
    assert not made.make
    assert not {"prod", "old"} & set(made.delete)


ARN = "arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/abc"
NEAR: dict[str, tuple[list[Hosted], str]] = {
    "nothing": ([], "the name of a deployment that the provider lists"),
    "some that serve the model": ([there(name="b"), there("ft-1", name="a"), there("ft-9", name="c")], "a or b"),
    "its address instead of its name": ([replace(there("ft-9", name="c"), address=ARN), there(name="a")], "c"),
    "one in another account": (
        [there(name="a", connection="other")],
        "the name of a deployment that the provider lists",
    ),
    "one that was made for the object": ([MADE_THERE], "the name of a deployment that the provider lists"),
}


@pytest.mark.parametrize("name", NEAR)
def test_where_there_is_none_those_are_told_that_may_be_meant(name: str) -> None:
    found, write = NEAR[name]
    wanted = replace(WANTED, name=ARN)
    failure = plan([], {one.name: one for one in found}, wanted, SERVED, at(0)).serving.failure
    assert failure is not None
    assert failure.sentences.endswith(f"has no deployment {ARN} at its provider. Write {write} into spec.attach.id.")


def test_the_names_that_are_like_the_one_that_was_written_come_first() -> None:
    found = {name: there(name=name) for name in ("alpha", "beta", "gamma", "delta", "by-hand")}
    failure = plan([], found, replace(WANTED, name="by-hnad"), SERVED, at(0)).serving.failure
    assert failure is not None
    assert failure.next_step == "Write by-hand or alpha or beta into spec.attach.id."


def test_what_it_serves_is_the_version_that_answers() -> None:
    made = plan([record()], {"prod": there("ft-1")}, WANTED, SERVED, at(0))
    assert made.serving.answers == 1
    assert made.recorded[-1].version == 1
    assert "spec.version: 1" in str(made.serving.failure)


def test_it_is_as_old_as_its_provider_says() -> None:
    assert plan([], {"prod": there()}, WANTED, SERVED, at(0)).recorded[-1].created_at == stamp(-3600)


def test_what_serves_no_version_of_the_model_is_not_recorded_so_that_it_can_never_be_deleted() -> None:
    assert plan([], {"prod": there("ft-9")}, WANTED, SERVED, at(0)).recorded == ()
    assert plan([record()], {"prod": there("ft-9")}, WANTED, SERVED, at(0)).recorded == ()


def test_what_was_made_in_the_future_by_its_providers_clock_is_recorded_as_made_now() -> None:
    early = Hosted("prod", "Ready", "azure", model="ft-2", created_at=at(3 * 3600))
    assert plan([], {"prod": early}, WANTED, SERVED, at(0)).recorded[0].created_at == stamp(0)


def test_parts_that_a_deleted_endpoint_has_left_are_no_deployment() -> None:
    left = {"prod": Hosted("prod", "Partial", "azure")}
    never, once = plan([], left, WANTED, SERVED, at(0)), plan([record()], left, WANTED, SERVED, at(0))
    assert never.serving.failure
    assert never.serving.failure.reason == "DeploymentNotFound"
    assert once == plan([record()], {}, WANTED, SERVED, at(0))


def test_one_that_does_not_answer_is_counted_from_when_it_was_asked_first_however_old_it_is() -> None:
    first = plan([], {"prod": there()}, WANTED, SERVED, at(0)).recorded[-1]
    assert first.silent_since == stamp(0)
    assert plan([first], {"prod": there()}, WANTED, SERVED, at(600)).recorded[-1].silent_since == stamp(0)
    changed = plan([first], {"prod": there(state="Creating")}, WANTED, SERVED, at(660)).recorded[-1]
    assert changed.silent_since is None


def test_that_it_does_not_answer_is_told_with_since_when_it_is_billed_and_what_to_do() -> None:
    silent = record(answered=False, silent_since=stamp(-7200), billed_since=stamp(-9000), per_hour="1.70")
    failure = plan([silent], {"prod": there()}, WANTED, SERVED, at(0)).serving.failure
    assert failure is not None
    assert failure.message == (
        f"deployment prod, which is attached, is ready, as the provider says, is billed since {stamp(-9000)} at 1.70 "
        f"an hour, and has not answered since {stamp(-7200)}; it is asked again"
    )
    assert str(failure.next_step).startswith("Look there for what is wrong with it")
