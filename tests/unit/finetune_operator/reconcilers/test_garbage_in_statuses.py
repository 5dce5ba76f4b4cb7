"""What somebody writes into a status by hand (kubectl edit --subresource=status): whatever the schema lets through."""

from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, Resource
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, Cluster, with_running_job
from tests.unit.finetune_operator.reconcilers.fake_kube import copied
from tests.unit.finetune_operator.reconcilers.versions import with_version

Path = tuple[str | int, ...]

GARBAGE: dict[type, tuple[Any, ...]] = {
    str: ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "x" * 60, ""),
    int: (0, -1, 2**31 - 1, 2**63 - 1),
    float: (0.0, -1.0, 1e308),
    bool: (True, False),
}


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
        return
    for key, one in inner:
        yield from leaves(one, (*path, key))


def replaced(status: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    status = deepcopy(status)
    inner: Any = status
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return status


async def running() -> Cluster:
    cluster = await with_running_job(ttlSecondsAfterFinished=3600, activeDeadlineSeconds=3600)
    await report(cluster)
    return cluster


async def report(cluster: Cluster) -> None:
    progress = {"step": 5, "totalSteps": 9, "savedStep": 5}
    cluster.reports.accept(cluster.report("Running", progress=progress))
    await cluster.settle()


async def retrying() -> Cluster:
    cluster = await with_running_job()
    cluster.end_pod(75)
    await cluster.settle()
    return cluster


async def failed() -> Cluster:
    cluster = await with_running_job(ttlSecondsAfterFinished=3600)
    cluster.end_pod(1)
    await cluster.settle()
    return cluster


async def served() -> Cluster:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    return cluster


JOB_ALONE = ((FINE_TUNE_JOBS, "sentiment-1"),)
ALL = (*JOB_ALONE, (FINE_TUNED_MODELS, "sentiment"), (MODEL_DEPLOYMENTS, "sentiment"))


@pytest.mark.alike
@pytest.mark.parametrize(
    ("begin", "objects"),
    [(running, JOB_ALONE), (retrying, JOB_ALONE), (failed, JOB_ALONE), (served, ALL)],
    ids=["running", "retrying", "failed", "served"],
)
async def test_no_value_of_a_status_keeps_an_object_from_being_looked_at(
    begin: Callable[[], Awaitable[Cluster]], objects: tuple[tuple[Resource, str], ...]
) -> None:
    cluster = await begin()
    world, then = cluster.kube.objects, cluster.now
    for resource, name in objects:
        status = world[resource, "team-a", name]["status"]
        for path, value in leaves(status):
            for garbage in GARBAGE[type(value)]:
                cluster.kube.objects, cluster.now, cluster.delays = copied(world), then, {}
                cluster.restart()
                if begin is running:
                    await report(cluster)
                cluster.kube.change(resource, name, status=replaced(status, path, garbage))
                await cluster.settle()
                await cluster.wait(3600)


async def test_a_version_whose_place_somebody_has_overwritten_is_not_served_as_its_base_model() -> None:
    cluster = await served()
    status = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["status"]
    path = ("versions", 0, "artifact", "uri")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status=replaced(status, path, "nowhere"))
    await cluster.settle()
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["status"], stalled["reason"]) == ("True", "VersionNotFound")
    assert "'nowhere', which status.versions of its FineTunedModel has as artifact.uri" in stalled["message"]
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 1, "what answers keeps answering"
