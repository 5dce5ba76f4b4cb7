"""A job that shows only when its object has another one already: ended as soon as it is listed, and told by name."""

from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, go_on, provider
from tests.unit.finetune_operator.reconcilers.test_lost_cloud_statuses import CREATE, running
from tests.unit.finetune_operator.reconcilers.test_missed_by_lists import blind

__all__ = ["begin", "provider", "s3_endpoint", "start"]

Begin = Callable[..., Awaitable[CloudCluster]]
HIDDEN = 400.0
DUPLICATE = ("FineTuneJob", "Warning", "Duplicate")


@pytest.mark.parametrize("name", ["openai", "azure"])
async def test_of_two_that_one_attempt_has_the_one_that_was_hidden_is_ended_while_the_other_goes_on(
    name: str, s3_endpoint: str, start: Any
) -> None:
    at = PROVIDERS[name]
    there = at.simulator(s3_endpoint)
    there.set(list_lag_seconds=HIDDEN, step_seconds=600)
    there.fault(CREATE, status=500, after_commit=True)
    cluster = at.begin(there, start(there))
    await at.submit(cluster)
    await go_on(cluster, 240, step=20)
    assert there.count(CREATE) == 2, "what a list hides for longer than it is waited for is asked for again"
    first, second = running(there)
    assert cluster.status()["provider"]["jobID"] == second
    await go_on(cluster, HIDDEN + 60, step=20)
    assert running(there) == [second]
    assert cluster.told.count(DUPLICATE) == 1
    assert f"job {first} at the provider was made beside {second} and is cancelled" in cluster.notes
    await go_on(cluster, 12 * 3600, step=1800)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)


async def test_one_of_an_attempt_that_was_given_up_is_ended_beside_that_of_the_next(
    provider: Any, begin: Begin
) -> None:
    provider.set(step_seconds=600)
    cluster = await begin()
    (made,) = running(provider)
    old = deepcopy(cluster.status())
    old["provider"] = {key: old["provider"][key] for key in ("name", "attempt", "place")} | {"jobID": "sentiment-1-1"}
    cluster.lose_pods(and_jobs=True)
    blind(provider, after=0, until=provider.clock.now + 600)
    cluster.forget(old)
    await cluster.settle()
    await go_on(cluster, 320, step=20)
    await cluster.check(attempt=2)
    await cluster.settle()
    await go_on(cluster, 180, step=20)
    assert (provider.count(CREATE), cluster.status()["provider"]["attempt"]) == (2, 2)
    (second,) = set(running(provider)) - {made}
    await go_on(cluster, 240, step=20)
    assert running(provider) == [second]
    assert cluster.told.count(DUPLICATE) == 1


async def with_two(provider: Any, cluster: CloudCluster) -> tuple[str, str, Any]:
    """The attempt's job, another one of the same attempt, and who has made that."""
    provider.set(step_seconds=600)
    (made,) = running(provider)
    jobs = (await cluster.accounts.of("openai").client.api())._sdk.fine_tuning.jobs
    shown = await jobs.retrieve(made)
    beside = await jobs.create(model=shown.model, training_file=shown.training_file, metadata=shown.metadata)
    return made, beside.id, jobs


async def test_one_that_has_ended_though_a_list_says_otherwise_is_left_alone(provider: Any, begin: Begin) -> None:
    """As after a suspension, where lists are behind."""
    cluster = await begin()
    made, beside, jobs = await with_two(provider, cluster)
    await cluster.accounts.of("openai").poller.round()
    await jobs.cancel(beside)
    await cluster.settle()
    assert DUPLICATE not in cluster.told
    assert running(provider) == [made]


async def test_one_that_cannot_be_ended_is_told_by_its_name_and_holds_nothing_up(provider: Any, begin: Begin) -> None:
    cluster = await begin()
    made, beside, _ = await with_two(provider, cluster)
    provider.fault("fine_tuning.jobs.cancel", status=403, times=99)
    await go_on(cluster, 120, step=20)
    assert set(running(provider)) == {made, beside}
    told = f"job {beside} at the provider was made beside {made}, cannot be cancelled, and may be billed: "
    assert any(note.startswith(told) for note in cluster.notes)
    provider.faults.clear()
    await go_on(cluster, 60, step=20)
    assert running(provider) == [made]
    await go_on(cluster, 12 * 3600, step=1800)
    assert (cluster.status()["phase"], cluster.status().get("failure")) == ("Succeeded", None)


async def test_one_of_another_object_is_none(provider: Any, begin: Begin) -> None:
    cluster = await begin()
    (made,) = running(provider)
    provider.set(step_seconds=600)
    jobs = (await cluster.accounts.of("openai").client.api())._sdk.fine_tuning.jobs
    shown = await jobs.retrieve(made)
    other = await jobs.create(
        model=shown.model, training_file=shown.training_file, metadata={**shown.metadata, "uid": "uid-of-another"}
    )
    await go_on(cluster, 120, step=20)
    assert (set(running(provider)), DUPLICATE in cluster.told) == ({made, other.id}, False)


async def test_a_job_of_ours_that_another_object_has_adopted_is_none(provider: Any, begin: Begin) -> None:
    provider.set(step_seconds=600)
    cluster = await begin()
    (made,) = running(provider)
    cluster.add_cloud_job("again", adopt={"jobID": made})
    await cluster.settle()
    await go_on(cluster, 120, step=20)
    assert running(provider) == [made]
    assert DUPLICATE not in cluster.told


async def test_one_that_another_object_has_adopted_is_left_to_that(provider: Any, begin: Begin) -> None:
    cluster = await begin()
    made, beside, _ = await with_two(provider, cluster)
    cluster.add_cloud_job("again", adopt={"jobID": beside})
    await cluster.settle()
    await go_on(cluster, 120, step=20)
    assert set(running(provider)) == {made, beside}
    assert DUPLICATE not in cluster.told


async def test_one_that_takes_its_time_to_stop_is_not_said_to_go_on(s3_endpoint: str, start: Any) -> None:
    at = PROVIDERS["sagemaker"]
    there = at.simulator(s3_endpoint)
    cluster = at.begin(there, start(there))
    await at.submit(cluster)
    await cluster.pass_time(200)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await cluster.pass_time(120)
    cluster.change_job(suspend=False)
    await cluster.pass_time(60)
    await cluster.check(attempt=2)
    await cluster.settle()
    await cluster.pass_time(60)
    first, second = there.training.found.values()
    assert (first.status, second.status, DUPLICATE in cluster.told) == ("Stopped", "InProgress", False)
    first.status, first.secondary = "InProgress", "Training"
    await cluster.pass_time(20)
    assert first.status == "Stopping"
    await go_on(cluster, 300, step=20)
    assert (first.status, second.status) == ("Stopped", "InProgress")
    told = [note for note in cluster.notes if "was made beside" in note]
    assert set(told) == {f"job {first.name} at the provider was made beside {second.name} and is cancelled"}
