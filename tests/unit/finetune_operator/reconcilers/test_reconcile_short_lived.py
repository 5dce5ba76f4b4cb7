"""Batch Jobs that something takes away as soon as they have ended: a TTL that a policy of the cluster puts on all."""

from collections.abc import Awaitable, Callable
from typing import Any

from finetune_operator.runtime.kube import JOBS, PODS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import begin, provider, rows, with_cloud_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster, with_running_job
from tests.unit.finetune_operator.reconcilers.test_reconcile_evaluation import begin as begin_measuring

__all__ = ["begin", "begin_measuring", "provider", "start"]


def take_away(cluster: Cluster, name: str = "sentiment-1-1") -> None:
    """The Job and its pod go before the operator has looked."""
    cluster.kube.drop(JOBS, name)
    cluster.kube.drop(PODS, f"{name}-x")


async def test_a_result_that_was_heard_stands_though_its_batch_job_is_gone() -> None:
    cluster = await with_running_job()
    cluster.reports.accept(cluster.result())
    take_away(cluster)
    await cluster.settle()
    status = cluster.status()
    assert (status["phase"], status["modelVersion"], status["provider"]["attempt"]) == ("Succeeded", 1, 1)


async def test_a_failure_that_was_heard_is_not_taken_for_a_deleted_job_and_tried_again() -> None:
    cluster = await with_running_job()
    failure = {"reason": "DatasetInvalid", "message": "train.jsonl line 17: completion is empty"}
    cluster.reports.accept(cluster.report("Failed", failure=failure))
    take_away(cluster)
    await cluster.settle()
    status = cluster.status()
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "DatasetInvalid")
    assert status["failure"]["message"] == failure["message"]


async def test_a_result_that_nobody_heard_is_made_again_by_the_next_attempt() -> None:
    cluster = await with_running_job()
    cluster.reports.accept(cluster.report("Running"))
    take_away(cluster)
    await cluster.settle()
    assert cluster.status()["phase"] == "Pending"
    assert cluster.status()["provider"]["lastFailure"]["reason"] == "Interrupted"


async def test_data_that_were_passed_on_are_not_passed_on_again(begin: Callable[..., Awaitable[Any]]) -> None:
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    file = await cluster.send(rows())
    cluster.reports.accept(cluster.checked([file]))
    take_away(cluster)
    await cluster.settle()
    status = cluster.status()
    assert (status["phase"], status["provider"]["attempt"]) == ("Queued", 1)
    assert status["provider"]["jobID"].startswith("ftjob-")


async def test_answers_that_were_heard_are_not_asked_for_again(
    begin_measuring: Callable[..., Awaitable[Any]], provider: Any
) -> None:
    cluster = await begin_measuring()
    job = cluster.start_pod()
    await cluster.settle()
    await cluster.ask(job)
    asked = provider.count("chat.completions.create")
    take_away(cluster, "sentiment-1-1-eval1")
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.condition("Evaluated")["status"] == "True"
    assert provider.count("chat.completions.create") == asked
