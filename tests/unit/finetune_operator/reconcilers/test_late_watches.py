"""The watch of pods is seconds behind that of their Jobs, as on a busy API server: what it tells then is long over."""

import pytest

from finetune_operator.runtime.kube import JOBS, PODS
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster
from tests.unit.finetune_operator.reconcilers.fake_kube import Event


class Behind(Cluster):
    """Hears nothing of pods."""

    def __init__(self) -> None:
        self.untold: list[Event] = []
        super().__init__()

    def hear(self) -> None:
        for event in self.kube.take_events():
            if event[0] is PODS:
                self.untold.append(event)
            else:
                self.watched(*event)


async def is_suspended_and_goes_on(cluster: Cluster) -> None:
    """Its first pod has ended by then."""
    cluster.run_pod()
    cluster.change_job(suspend=True)
    await cluster.settle()
    cluster.kube.drop(PODS, "sentiment-1-1-x")
    cluster.change_job(suspend=False)
    await cluster.settle()


@pytest.mark.parametrize("attempt", [1, 2])
async def test_the_batch_job_of_a_success_is_kept_when_its_pods_are_told_of_afterwards(attempt: int) -> None:
    cluster = Behind()
    cluster.add_namespace()
    cluster.add_connection()
    cluster.add_job()
    await cluster.settle()
    if attempt == 2:
        await is_suspended_and_goes_on(cluster)
    cluster.run_pod(attempt)
    cluster.end_pod(0, cluster.result(attempt), attempt)
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    for event in cluster.untold:
        cluster.watched(*event)
        await cluster.settle()
    assert (JOBS, "team-a", f"sentiment-1-{attempt}") in cluster.kube.objects, "its pod, and its log, would go with it"
