"""Deployments that an evaluation asks, and a status that does not tell of them any more: they go with their job."""

from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

import pytest

from finetune_operator.decide.conditions import timestamp
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import Flapping, Late, standing
from tests.simulators.simulator import Simulator
from tests.unit.finetune_operator.reconcilers.bedrock import bedrock
from tests.unit.finetune_operator.reconcilers.cloud import azure
from tests.unit.finetune_operator.reconcilers.evaluation import AzureMeasured, BedrockMeasured, MeasuredCluster

__all__ = ["s3_endpoint", "start"]

JOB, POD = (FINE_TUNE_JOBS, "team-a", "sentiment-1"), (JOBS, "team-a", "sentiment-1-1-eval1")
BY_HAND = {"spec": {"deployment": {"mode": "Manual"}}, "metadata": {"name": "sentiment", "namespace": "team-a"}}
Begin = Callable[[], Awaitable[MeasuredCluster]]


@pytest.fixture(params=["azure", "bedrock"])
async def begin(request: Any, s3_endpoint: str, start: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Makes a cluster whose job has deployments at its provider, and a pod that asks them."""

    async def begun() -> MeasuredCluster:
        provider: Simulator
        cluster: MeasuredCluster
        if request.param == "azure":
            provider = azure(deploy_seconds=50, spread_seconds=20, delete_seconds=20)
            cluster = AzureMeasured(provider, start(provider), tmp_path)
        else:
            provider = bedrock(s3_endpoint, deploy_seconds=50)
            cluster = BedrockMeasured(provider, start(provider), tmp_path)
        cluster.kube.put(FINE_TUNED_MODELS, BY_HAND)
        await cluster.begin(monkeypatch)
        await cluster.go_on(lambda: POD in cluster.kube.objects)
        assert standing(cluster.provider)
        return cluster

    return begun


def emptied(_: dict[str, Any]) -> dict[str, Any]:
    return {}


def put_back(status: dict[str, Any]) -> dict[str, Any]:
    """As it was while the provider was still tuning."""
    old = deepcopy(status)
    for field in ("result", "loss", "progress"):
        old.pop(field, None)
    old["phase"] = "Running"
    old["provider"].pop("evaluation")
    return old


def without_its_record(status: dict[str, Any]) -> dict[str, Any]:
    old = deepcopy(status)
    old["provider"]["evaluation"].pop("deployments")
    return old


@pytest.mark.alike
@pytest.mark.parametrize("pods", [True, False], ids=["pods", "no pods"])
@pytest.mark.parametrize("change", [emptied, put_back, without_its_record])
async def test_they_go_with_a_job_that_is_deleted_a_moment_later(
    begin: Begin, change: Callable[[dict[str, Any]], dict[str, Any]], pods: bool
) -> None:
    cluster = await begin()
    if not pods:
        cluster.lose_pods(and_jobs=True)
    cluster.forget(change(cluster.status()))
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    names, said = sorted(standing(cluster.provider)), cluster.condition("Reconciling")["message"]
    await cluster.go_on(lambda: not cluster.kube.objects.get(JOB, {"metadata": {}})["metadata"].get("finalizers"))
    assert standing(cluster.provider) == []
    assert not names or sorted(said.removeprefix("being deleted at the provider: ").split(", ")) == names


@pytest.mark.alike
@pytest.mark.parametrize("change", [emptied, put_back, without_its_record])
async def test_they_go_with_a_job_that_is_deleted_before_a_list_shows_them(
    begin: Begin, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    cluster = await begin()
    cluster.provider.meddle = Late(cluster.provider, cluster.provider.clock.now + 90)
    cluster.forget(change(cluster.status()))
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1", at=timestamp(cluster.now))
    await cluster.settle()
    assert "nothing records" in cluster.condition("Reconciling")["message"]
    await cluster.go_on(lambda: not cluster.kube.objects.get(JOB, {"metadata": {}})["metadata"].get("finalizers"))
    assert standing(cluster.provider) == []


@pytest.mark.alike
@pytest.mark.parametrize("change", [emptied, put_back])
async def test_a_deletion_that_cannot_ask_the_provider_holds_the_job_until_it_can(
    begin: Begin, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    cluster = await begin()
    cluster.forget(change(cluster.status()))
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    lists = ("deployments.list", "ListCustomModelDeployments")
    for operation in lists:
        cluster.provider.fault(operation, status=503, times=4)
    await cluster.settle()
    await cluster.pass_time(61)
    assert JOB in cluster.kube.objects
    assert cluster.kube.objects[JOB]["metadata"]["finalizers"]
    await cluster.go_on(lambda: not cluster.kube.objects.get(JOB, {"metadata": {}})["metadata"].get("finalizers"))
    assert standing(cluster.provider) == []


@pytest.mark.alike
@pytest.mark.parametrize(
    ("change", "pods"), [(emptied, True), (emptied, False), (put_back, True), (without_its_record, True)]
)
async def test_they_go_with_a_job_that_is_suspended_a_moment_later_and_that_is_not_tuned_again(
    begin: Begin, change: Callable[[dict[str, Any]], dict[str, Any]], pods: bool
) -> None:
    cluster = await begin()
    paid = cluster.provider.count(cluster.creates)
    if not pods:
        cluster.lose_pods(and_jobs=True)
    cluster.forget(change(cluster.status()))
    cluster.change_job(suspend=True)
    await cluster.settle()
    await cluster.go_on(lambda: cluster.evaluation_state().get("deploymentsGone", False), seconds=20)
    assert (standing(cluster.provider), cluster.status()["phase"]) == ([], "Suspended")
    lists = cluster.provider.count(cluster.lists)
    await cluster.pass_time(600)
    assert cluster.provider.count(cluster.lists) == lists
    cluster.change_job(suspend=False)
    await cluster.settle()
    await cluster.go_on(lambda: bool(standing(cluster.provider)))
    assert (cluster.status()["provider"]["attempt"], cluster.provider.count(cluster.creates)) == (1, paid)


async def test_one_that_a_list_lacks_when_the_job_is_suspended_goes_too(begin: Begin) -> None:
    cluster = await begin()
    names = standing(cluster.provider)
    cluster.forget(without_its_record(cluster.status()))
    cluster.provider.meddle = Flapping(cluster.provider, every=3, first=2, reads=False)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await cluster.go_on(lambda: cluster.evaluation_state().get("deploymentsGone", False), seconds=20)
    assert names
    assert standing(cluster.provider) == []
