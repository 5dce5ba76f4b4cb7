"""When a job is looked at whose pod has begun to run."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, PODS
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, with_job

BEGUN = {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": {"running": {}}, "restartCount": 0}]}
ENDED = {"name": "trainer", "state": {"terminated": {"exitCode": 1}}}


@pytest.mark.parametrize(
    ("status", "said", "waits"),
    [
        (BEGUN, False, True),
        (BEGUN, True, False),  # an obstacle that is over is taken back at once
        (BEGUN | {"phase": "Failed"}, False, False),
        (BEGUN | {"containerStatuses": [ENDED]}, False, False),
        (BEGUN | {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}, False, False),
    ],
)
async def test_a_trainer_that_begins_has_its_say_before_a_job_of_which_nothing_was_said_is_looked_at(
    status: dict[str, Any], said: bool, waits: bool
) -> None:
    cluster = await with_job()
    cluster.run_pod(phase="Pending")
    await cluster.settle()
    if not said:
        job = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
        cluster.store.put(FINE_TUNE_JOBS, {**job, "status": {"observedGeneration": 0}})
    cluster.delays.clear()
    cluster.kube.change(PODS, "sentiment-1-1-x", status=status)
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    assert (cluster.queue, cluster.delays) == (([], {JOB: 15}) if waits else ([JOB], {}))
