"""The trainer is told how the attempt before it ended: then it measures with more care."""

from typing import Any

import pytest

from finetune_api.trainer import TrainerJob
from finetune_operator.runtime.kube import JOBS
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster

KILLED = {"containerStatuses": [{"name": "trainer", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}
EVICTED = {"reason": "Evicted", "message": "The node was low on resource: memory."}


def told(cluster: Cluster, attempt: int) -> bool:
    """What the attempt's pod is given."""
    pod = cluster.kube.objects[JOBS, "team-a", f"sentiment-1-{attempt}"]["spec"]["template"]["spec"]
    variables = {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}
    return TrainerJob.model_validate_json(variables["FINETUNE_JOB"]).short_of_memory


@pytest.mark.parametrize(("end", "short"), [(KILLED, True), (EVICTED, False)])
async def test_an_attempt_knows_whether_the_one_before_was_short_of_memory(end: dict[str, Any], short: bool) -> None:
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    cluster.add_job()
    await cluster.settle()
    assert not told(cluster, 1)
    cluster.run_pod()
    cluster.end_pod(137, **end)
    await cluster.settle()
    await cluster.wait(60)
    assert told(cluster, 2) is short
    cluster.run_pod(attempt=2)
    cluster.end_pod(137, attempt=2, **EVICTED)
    await cluster.settle()
    await cluster.wait(60)
    assert not told(cluster, 3), "of the last one alone"
