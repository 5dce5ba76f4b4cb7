"""Writes the present operator's objects: the clusters that unit tests start with, and every field of each status."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import yaml

from finetune_api import RELEASE
from finetune_api.manifest import Manifest
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, PODS
from tests.contract.conftest import REPORTED
from tests.releases import FOLDER, WHOLE, WORLDS
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster, with_running_job
from tests.unit.finetune_operator.reconcilers.test_lost_statuses import with_versions

POINT = {"step": 40, "value": 0.5}
PROGRESS = {"step": 40, "totalSteps": 100, "percent": 40, "savedStep": 40}


async def running() -> Cluster:
    """A running trainer that has sent a report."""
    cluster = await with_running_job()
    spec = {"deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    cluster.reports.accept(cluster.report("Running", progress=PROGRESS, loss={"train": [POINT]}))
    await cluster.settle()
    return cluster


async def retrying() -> Cluster:
    """The pause after an interrupted attempt."""
    cluster = await running()
    cluster.end_pod(75, cluster.report("Interrupted", progress=PROGRESS))
    await cluster.settle()
    return cluster


async def suspended() -> Cluster:
    """A job suspended by its user."""
    cluster = await running()
    cluster.change_job(suspend=True)
    await cluster.settle()
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    return cluster


async def failed() -> Cluster:
    """A job that ended without a version."""
    cluster = await running()
    failure = {"reason": "DatasetInvalid", "message": "train.jsonl line 17: completion is empty"}
    cluster.end_pod(65, cluster.report("Failed", failure=failure))
    await cluster.settle()
    return cluster


async def served() -> Cluster:
    """Two versions, the newer of which is served."""
    return await with_versions(2)


STATES: tuple[Callable[[], Awaitable[Cluster]], ...] = (running, retrying, suspended, failed, served)


def write(name: str, objects: Iterable[Manifest]) -> None:
    """One file of the present release."""
    folder = FOLDER / RELEASE
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(objects, width=1000))


def main() -> None:
    """Write all."""
    assert tuple(state.__name__ for state in STATES) == WORLDS
    for state in STATES:
        write(state.__name__, asyncio.run(state()).kube.objects.values())
    write(WHOLE, ({**manifest, "status": status.wire()} for _, manifest, status in REPORTED))


if __name__ == "__main__":
    main()
