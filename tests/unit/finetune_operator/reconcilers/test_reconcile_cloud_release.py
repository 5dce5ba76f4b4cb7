"""What a job leaves at its provider when it goes: nothing; and where nothing was brought there, nothing holds it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.simulators.conftest import start
from tests.unit.finetune_operator.decide.given import verdict
from tests.unit.finetune_operator.reconcilers.cloud import (
    CloudCluster,
    begin,
    provider,
    rows,
    with_cloud_job,
    with_submitted_job,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB

__all__ = ["begin", "provider", "start"]

ADDRESS = (FINE_TUNE_JOBS, "team-a", "sentiment-1")
CREATE = "fine_tuning.jobs.create"


def finalizers(cluster: CloudCluster) -> list[str]:
    return list(cluster.kube.objects[ADDRESS]["metadata"].get("finalizers") or ())


async def delete(cluster: CloudCluster) -> None:
    """What `kubectl delete` does."""
    await cluster.kube.delete(FINE_TUNE_JOBS, "sentiment-1", "team-a")
    await cluster.settle()


async def lose_connection(cluster: CloudCluster) -> None:
    cluster.kube.drop(CONNECTIONS, "openai", None)
    await cluster.settle()


async def test_a_job_whose_finalizer_was_replaced_away_is_cancelled_all_the_same_when_it_is_deleted(begin):
    cluster = await begin(with_submitted_job)
    await cluster.pass_time(181)
    job_id = cluster.status()["provider"]["jobID"]
    replaced = {key: value for key, value in cluster.kube.objects[ADDRESS]["metadata"].items() if key != "finalizers"}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=replaced)
    await cluster.settle()
    assert finalizers(cluster) == [PROVIDER_FINALIZER]
    await delete(cluster)
    assert ADDRESS not in cluster.kube.objects
    sdk = (await cluster.accounts.of("openai").client.api())._sdk
    assert (await sdk.fine_tuning.jobs.retrieve(job_id)).status == "cancelled"
    assert (await sdk.files.list()).data == []


async def test_a_job_that_somebody_forces_away_while_it_is_tidied_is_gone_and_no_error(begin, provider):
    cluster = await begin(with_submitted_job)
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    cluster.kube.drop(FINE_TUNE_JOBS, "sentiment-1")  # no watch has told of it yet
    assert await cluster.reconcile(JOB) is None
    assert provider.count("fine_tuning.jobs.cancel") == 1


async def wait_for_pod(cluster: CloudCluster) -> None:
    """Its image does not come, say."""


async def run_pod(cluster: CloudCluster) -> None:
    cluster.run_pod()
    await cluster.settle()


async def fail_check(cluster: CloudCluster) -> None:
    await run_pod(cluster)
    last = cluster.report(
        "Failed",
        dataset=verdict(valid=False, reason="DatasetInvalid", message="line 3: completion is empty"),
        failure={"reason": "DatasetInvalid", "message": "line 3: completion is empty", "nextStep": "Correct it."},
    )
    cluster.end_pod(65, last)
    await cluster.settle()
    assert cluster.status()["phase"] == "Failed"


NOTHING_SENT = {"before its pod runs": wait_for_pod, "while its pod reads": run_pod, "after bad data": fail_check}


@pytest.mark.parametrize("name", NOTHING_SENT)
async def test_a_job_that_sent_nothing_goes_at_once_though_its_connection_is_gone(begin, name):
    cluster = await begin(with_cloud_job)
    await NOTHING_SENT[name](cluster)
    await lose_connection(cluster)
    await delete(cluster)
    assert ADDRESS not in cluster.kube.objects


@pytest.mark.parametrize("known", [True, False])
async def test_a_cancel_that_something_else_has_answered_is_asked_for_again(begin, provider, known):
    if not known:
        provider.fault(operation=CREATE, after_commit=True)
    cluster = await begin()
    provider.fault(operation="fine_tuning.jobs.cancel", outcome="empty")
    await delete(cluster)
    for _ in range(5):
        await cluster.pass_time(60)
    assert ADDRESS not in cluster.kube.objects
    assert [job.state for job in provider.left() if job.kind == "job"] == []
    assert provider.count("fine_tuning.jobs.cancel") == 1, "the first one never got there"


async def test_a_job_is_held_before_the_first_byte_leaves_the_cluster(begin):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    held: list[list[str]] = []

    async def body() -> AsyncIterator[bytes]:
        held.append(finalizers(cluster))
        yield rows()

    await cluster.uploads.accept(cluster.target(rows()), len(rows()), body())
    assert held == [[PROVIDER_FINALIZER]]


async def test_a_job_whose_file_was_sent_is_held_though_its_connection_is_gone(begin):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    await cluster.send(rows())
    await lose_connection(cluster)
    await delete(cluster)
    assert finalizers(cluster) == [PROVIDER_FINALIZER]
    told = cluster.condition("Stalled")
    assert (told["reason"], ABANDON_ANNOTATION in told["message"]) == ("ConnectionNotFound", True)


async def test_a_file_that_is_on_its_way_while_its_job_is_deleted_never_gets_there_whole(provider, begin):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield rows()[:64]
        begun.set()
        await go_on.wait()
        yield rows()[64:]

    sending = asyncio.create_task(cluster.uploads.accept(cluster.target(rows()), len(rows()), body()))
    await asyncio.wait([sending, asyncio.create_task(begun.wait())], return_when="FIRST_COMPLETED")
    await delete(cluster)
    assert finalizers(cluster) == [PROVIDER_FINALIZER], "what is on its way may still come there"
    go_on.set()
    with pytest.raises(Refusal) as refused:
        await sending
    assert (refused.value.status, provider.count("files.create")) == (403, 0)
    await cluster.wait(2)
    assert ADDRESS not in cluster.kube.objects
    assert provider.left() == []


async def test_a_model_that_was_made_before_its_job_was_deleted_is_told_of(provider, begin):
    cluster = await begin()
    await cluster.pass_time(181)
    provider.advance(3600)
    await delete(cluster)
    assert ADDRESS not in cluster.kube.objects
    assert [one.kind for one in provider.left() if one.kind == "model"] == ["model"]
    assert ("FineTuneJob", "Warning", "Retained") in cluster.told


async def test_a_finalizer_that_somebody_takes_off_is_put_on_again_before_the_provider_makes_a_job(provider, begin):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    file = await cluster.send(rows())
    metadata = cluster.kube.objects[ADDRESS]["metadata"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata={**metadata, "finalizers": []})
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.settle()
    assert (provider.count(CREATE), finalizers(cluster)) == (1, [PROVIDER_FINALIZER])


async def test_a_job_that_is_being_deleted_takes_no_file(provider, begin):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    metadata = cluster.kube.objects[ADDRESS]["metadata"] | {"finalizers": ["foregroundDeletion"]}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", metadata=metadata)
    await delete(cluster)
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows())
    assert (refused.value.status, provider.count("files.create", committed=False)) == (403, 0)
    assert finalizers(cluster) == ["foregroundDeletion"], "no finalizer can be added any more"
