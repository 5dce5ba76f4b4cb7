"""The watch of pods is seconds behind that of their Jobs, as on a busy API server: what it tells then is long over."""

from finetune_operator.runtime.kube import JOBS, PODS
from tests.unit.finetune_operator.reconcilers.fake_cluster import with_job


async def test_a_batch_job_that_has_ended_is_kept_when_its_pod_is_told_of_afterwards() -> None:
    cluster = await with_job()
    cluster.run_pod()
    cluster.end_pod(0, cluster.result())
    late = []
    for event in cluster.kube.take_events():
        if event[0] is PODS:
            late.append(event)
        else:
            cluster.watched(*event)
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    for event in late:
        cluster.watched(*event)
        await cluster.settle()
    assert (JOBS, "team-a", "sentiment-1-1") in cluster.kube.objects, "its pod, and so its log, would go with it"
