"""What is done about an evaluation's deployments: one row for each state that they can be in."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from finetune_api.catalogue import ProviderFacts
from finetune_api.job_status import EvaluationDeployment, ProviderEvaluation
from finetune_operator.decide.cloud_job import evaluation_hosts as hosts
from finetune_operator.decide.cloud_job.evaluation_hosts import Wanted
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.job.run import Run
from tests.unit.finetune_operator.decide.given import (
    NOW,
    azure_connection,
    bedrock_connection,
    job_spec,
    openai_connection,
    stamp,
    view,
)

TUNED = Wanted("tuned", "ft:a", "ns-job-abc123-e1t", "1.70")
BASE = Wanted("base", "gpt", "ns-job-abc123-e1b")
BEGINNING = "ns-job-abc123"


def entry(wanted: Wanted = TUNED, **fields: Any) -> EvaluationDeployment:
    body = {"candidate": wanted.candidate, "name": wanted.name, "created_at": stamp(-600), "per_hour": wanted.per_hour}
    return EvaluationDeployment(**(body | {"borrowed": False} | fields))


def there(state: Any, name: str = TUNED.name, **fields: Any) -> dict[str, Hosted]:
    return {name: Hosted(name, state, **fields)}


RISES: dict[str, tuple[list[EvaluationDeployment], dict[str, Hosted], tuple[str, ...], tuple[str, ...]]] = {
    "nothing is there": ([], {}, (TUNED.name,), ()),
    "it is recorded, and was never asked for": ([entry()], {}, (TUNED.name,), ()),
    "something else of the account changes": ([], there("Creating", "other"), (), ()),
    "it is being made": ([entry(unseen_since=stamp(-20))], there("Creating"), (), ()),
    "it is ready": ([entry(unseen_since=stamp(-20))], there("Ready"), (), (TUNED.name,)),
    "it answers": ([entry(address="x", ready_at=stamp(-20))], there("Ready"), (), ()),
    "another one serves the model": ([], there("Ready", "team-v3", model="ft:a"), (), ("team-v3",)),
    "another evaluation's serves it": ([], there("Ready", "ns-b-abc123-e1a", model="ft:a"), (TUNED.name,), ()),
    "one that is called alike serves it": ([], there("Ready", "team-e12", model="ft:a"), (), ("team-e12",)),
    "what was to go is going": ([entry(released=True)], there("Deleting"), (), ()),
    "what was to go is gone": (
        [entry(released=True, ready_at=stamp(-60), unseen_since=stamp(-20))],
        {},
        (TUNED.name,),
        (),
    ),
    "the one that stood anyhow is gone": (
        [entry(name="team-v3", borrowed=True, unseen_since=stamp(-60))],
        {},
        (TUNED.name,),
        (),
    ),
}


@pytest.mark.parametrize("name", RISES)
def test_what_is_made_and_asked(name: str) -> None:
    recorded, found, make, ask = RISES[name]
    plan = hosts.bring_up(recorded, [TUNED], found, NOW, one_at_a_time=True)
    assert (plan.make, plan.ask) == (make, ask)
    assert [bool(one.unseen_since) for one in plan.recorded] == [bool(make)]


def test_one_that_has_failed_is_asked_nothing_though_it_shows_as_ready() -> None:
    failed = entry(failure="it failed at the provider")
    plan = hosts.bring_up([failed], [TUNED], there("Ready"), NOW, one_at_a_time=True)
    assert (plan.make, plan.ask, plan.recorded) == ((), (), (failed,))


@pytest.mark.parametrize(("before", "after"), [(stamp(-60), stamp(-60)), (None, stamp())])
def test_its_hours_are_counted_from_the_first_look_that_shows_it_as_ready(before: str | None, after: str) -> None:
    plan = hosts.bring_up([entry(ready_at=before)], [TUNED], there("Ready"), NOW, one_at_a_time=True)
    assert plan.recorded[0].ready_at == after


def test_one_that_stood_anyhow_is_not_gone_because_one_list_lacks_it() -> None:
    borrowed = entry(name="team-v3", borrowed=True, unseen_since=stamp(-20))
    plan = hosts.bring_up([borrowed], [TUNED], {}, NOW, one_at_a_time=True)
    assert (plan.make, plan.recorded) == ((), (borrowed,))


def test_that_one_is_to_go_is_recorded_of_those_that_are_there() -> None:
    unseen = entry(BASE, unseen_since=stamp())
    plan = hosts.tear_down([entry(), unseen], there("Ready"), BEGINNING, NOW, one_at_a_time=True)
    assert (plan.delete, [one.released for one in plan.recorded]) == ((TUNED.name,), [True, False])


def test_where_the_account_takes_one_change_at_a_time_the_second_one_waits() -> None:
    assert hosts.bring_up([], [TUNED, BASE], {}, NOW, one_at_a_time=True).make == (TUNED.name,)
    assert hosts.bring_up([], [TUNED, BASE], {}, NOW, one_at_a_time=False).make == (TUNED.name, BASE.name)


FAILURES = {
    "it failed": (
        entry(unseen_since=stamp(-20)),
        there("Failed", failure="no room"),
        "it failed at the provider: no room",
    ),
    "it was ready, and is gone": (
        entry(ready_at=stamp(-90), unseen_since=stamp(-60)),
        {},
        "is not at the provider any more",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_one_that_cannot_be_had_is_not_made_again(name: str) -> None:
    recorded, found, says = FAILURES[name]
    plan = hosts.bring_up([recorded], [TUNED], found, NOW, one_at_a_time=True)
    assert says in (plan.recorded[0].failure or "")
    assert (plan.make, hosts.are_settled(plan.recorded, ["tuned"])) == ((), True)


FALLS: dict[str, tuple[list[EvaluationDeployment], dict[str, Hosted], tuple[str, ...], int]] = {
    "it stands": ([entry()], there("Ready"), (TUNED.name,), 1),
    "it is going": ([entry(released=True)], there("Deleting"), (), 1),
    "it is gone": ([entry(released=True, ready_at=stamp(-60), unseen_since=stamp(-20))], {}, (), 0),
    "it was to go, and one list lacks it": ([entry(released=True, ready_at=stamp(-60))], {}, (), 1),
    "it was asked for a moment ago, and does not show": ([entry(unseen_since=stamp(-60))], {}, (), 1),
    "it was asked for long ago, and never showed": ([entry(unseen_since=stamp(-130))], {}, (), 0),
    "it is being made": ([entry(unseen_since=stamp(-20))], there("Creating"), (), 1),
    "it stood, and one list lacks it": ([entry(ready_at=stamp(-20))], {}, (), 1),
    "no record tells of it": ([], there("Ready"), (TUNED.name,), 1),
    "no record tells of an earlier attempt's": ([], there("Ready", f"{BEGINNING}-e3b"), (f"{BEGINNING}-e3b",), 1),
    "it stood anyhow": ([entry(name="team-v3", borrowed=True)], there("Ready", "team-v3"), (), 0),
    "it is another job's": ([], there("Ready", "ns-job-ffffff-e1t"), (), 0),
    "it is the version's": ([], there("Ready", f"{BEGINNING}-v1"), (), 0),
}


@pytest.mark.parametrize("name", FALLS)
def test_what_is_deleted_and_what_is_left(name: str) -> None:
    recorded, found, delete, left = FALLS[name]
    plan = hosts.tear_down(recorded, found, BEGINNING, NOW, one_at_a_time=True)
    assert (plan.delete, len(plan.recorded)) == (delete, left)


def test_hours_are_counted_from_when_it_was_ready_until_it_is_gone() -> None:
    one = entry(ready_at=stamp(-7200), released=True)
    assert hosts.cost(ProviderEvaluation(deployments=[one], hosting="0.5000"), NOW) == Decimal("3.90")
    gone = one.model_copy(update={"unseen_since": stamp(-20)})
    seconds = 7200 - 20
    assert hosts.tear_down([gone], {}, BEGINNING, NOW, one_at_a_time=True).cost == Decimal("1.70") * seconds / 3600
    assert hosts.tear_down([one], there("Deleting"), BEGINNING, NOW, one_at_a_time=True).cost is None
    for_a_moment = gone.model_copy(update={"ready_at": gone.unseen_since})
    assert hosts.tear_down([for_a_moment], {}, BEGINNING, NOW, one_at_a_time=True).cost == 0, "billed, and told"


def test_baselines_that_do_not_come_are_given_up_and_a_tuned_model_ends_it() -> None:
    since = stamp(-hosts.WAIT_LIMIT.total_seconds())
    waiting = ProviderEvaluation(deployments=[entry(), entry(BASE)], deploying_since=since)
    assert hosts.overdue(waiting, NOW) == "the tuned model's deployment does not answer after 2 hours"
    assert hosts.overdue(waiting, NOW - timedelta(seconds=1)) is None
    answers = [entry(address="x"), entry(BASE)]
    assert hosts.overdue(waiting.model_copy(update={"deployments": answers}), NOW) is None
    assert [one.failure is None for one in hosts.given_up(answers)] == [True, False]


FACTS = ProviderFacts(hosting={"Standard": "1.70"})
HOURS = {
    "OpenAI's models need none": (openai_connection(), FACTS, "0"),
    "on demand at Bedrock": (bedrock_connection(), FACTS, "0"),
    "at Azure, by the SKU of its training type": (azure_connection(), FACTS, "1.70"),
    "at Azure, where no price is known": (azure_connection(), ProviderFacts(), None),
}


@pytest.mark.parametrize("name", HOURS)
def test_what_an_hour_of_them_costs(name: str) -> None:
    connection, facts, price = HOURS[name]
    given = view(Run("Absent"), spec=job_spec(), connection=connection, facts=facts)
    found = hosts.price_of_an_hour(given)
    assert found == (None if price is None else Decimal(price))


def test_questions_stay_where_the_training_data_do_and_a_base_model_is_on_no_developer_tier() -> None:
    azure = azure_connection()
    assert azure.azure_open_ai is not None
    made = hosts.template(azure, "tuned").azure_open_ai
    assert (made.sku, made.capacity) == (azure.azure_open_ai.training_type, 50)
    evaluation = azure.azure_open_ai.evaluation.model_copy(update={"sku": "DeveloperTier"})
    block = azure.azure_open_ai.model_copy(update={"evaluation": evaluation})
    cheap = azure.model_copy(update={"azure_open_ai": block})
    assert hosts.template(cheap, "tuned").azure_open_ai.sku == "DeveloperTier"
    assert hosts.template(cheap, "base").azure_open_ai.sku == "GlobalStandard"


@pytest.mark.parametrize(
    ("ready", "told"),
    [
        pytest.param(hosts.LIFETIME - timedelta(seconds=1), None, id="not yet"),
        pytest.param(
            hosts.LIFETIME, f"deployment {TUNED.name} has existed for 24 hours, and may be billed", id="too long"
        ),
    ],
)
def test_a_deployment_of_an_evaluation_stands_only_so_long(ready: timedelta, told: str | None) -> None:
    one = entry(address="x", ready_at=stamp(-ready.total_seconds()))
    assert hosts.overdue(ProviderEvaluation(deployments=[one]), NOW) == told
