"""The small pods of jobs at providers end and wait as any pod may, and are told of in words of their own."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job.small_pods import worded_for_small_pod
from finetune_operator.decide.pods.refused import refusal_of_pod
from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, PODS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import begin, provider, with_cloud_job
from tests.unit.finetune_operator.reconcilers.test_reconcile_evaluation import begin as begin_measuring

__all__ = ["begin", "begin_measuring", "provider", "start"]

Begin = Callable[..., Awaitable[Any]]

KILLED = {"exitCode": 137, "reason": "OOMKilled"}
OUT_OF_MEMORY = {
    "containerStatuses": [
        {"name": "trainer", "state": {"terminated": KILLED}, "resources": {"limits": {"memory": "1Gi"}}}
    ]
}
ON_A_FULL_NODE = {
    "reason": "Evicted",
    "message": "The node was low on resource: memory. Container trainer was using 900Mi, request is 256Mi, has larger "
    "consumption of memory. ",
}
OF_TRAINING = ("spec.resources", "checkpoint", "training", "microBatchSize", "the trainer")


def told(failure: dict[str, Any]) -> str:
    """What is said, once it is known to speak of no training."""
    said = f"{failure['message']} {failure['nextStep']}"
    assert not [word for word in OF_TRAINING if word in said], said
    return said


async def test_an_image_that_cannot_be_pulled_is_named_by_where_it_is_written(begin: Begin) -> None:
    cluster = await begin(with_cloud_job)
    cluster.run_pod(phase="Pending")
    waits = {"name": "trainer", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
    cluster.kube.change(PODS, "sentiment-1-1-x", status={"phase": "Pending", "containerStatuses": [waits]})
    await cluster.settle()
    said = told(cluster.status()["failure"])
    assert "checkPod.image of the connection, else checkImage of the chart's values" in said
    assert said.endswith("The job continues automatically once they are right.")


@pytest.mark.parametrize(
    ("end", "words"),
    [(OUT_OF_MEMORY, "it used more memory than its limit of 1Gi"), (ON_A_FULL_NODE, "the pod was evicted: The node")],
    ids=["out of memory", "evicted"],
)
@pytest.mark.parametrize("begun", [False, True])
async def test_a_pod_that_checks_data_is_given_more_by_an_admin(
    begin: Begin, end: dict[str, Any], words: str, begun: bool
) -> None:
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    if begun:
        cluster.reports.accept(cluster.report("Validating"))
    cluster.end_pod(137, **end)
    await cluster.settle()
    said = told(cluster.status()["provider"]["lastFailure"])
    assert words in said
    assert "checkPod.podTemplate.resources" in said


async def test_a_pod_that_asks_a_model_is_given_more_by_an_admin(begin_measuring: Begin) -> None:
    cluster = await begin_measuring()
    cluster.start_pod()
    await cluster.settle()
    cluster.end_pod(137, attempt="1-eval1", **OUT_OF_MEMORY)
    await cluster.settle()
    said = told(cluster.evaluation["failure"])
    assert "it used more memory than its limit of 1Gi" in said
    assert "checkPod.podTemplate.resources" in said


async def test_what_a_pod_that_asks_a_model_lacks_is_told_with_its_field(begin_measuring: Begin) -> None:
    cluster = await begin_measuring(evaluation={"output": {"uri": "pvc://reports/tweets"}})
    cluster.start_pod()
    missing = '0/1 nodes are available: persistentvolumeclaim "reports" not found.'
    waits = {"type": "PodScheduled", "status": "False", "message": missing}
    cluster.kube.change(PODS, "sentiment-1-1-eval1-x", status={"phase": "Pending", "conditions": [waits]})
    await cluster.settle()
    said = 'spec.evaluation.output.uri: persistentvolumeclaim "reports" not found'
    assert cluster.status()["failure"]["message"] == said


async def test_who_refuses_or_does_not_place_such_a_pod_is_told_with_its_own_template(begin: Begin) -> None:
    cluster = await begin(with_cloud_job)
    cluster.run_pod(phase="Pending")
    taints = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 had untolerated taint"}
    cluster.kube.change(PODS, "sentiment-1-1-x", status={"phase": "Pending", "conditions": [taints]})
    await cluster.settle()
    await cluster.wait(61)
    assert "the connection's checkPod.podTemplate" in cluster.status()["failure"]["nextStep"]

    cluster = await begin()
    cluster.kube.refusals["create", "jobs"] = Forbidden(
        403, "Forbidden", 'jobs "x" is forbidden: failed quota: q: must'
    )
    cluster.add_cloud_job("other", modelRef={"name": "other"})
    await cluster.settle()
    step = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "other"]["status"]["failure"]["nextStep"]
    assert "checkPod.podTemplate.resources" in step


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("Ask for more in the connection's podTemplate.", "Ask for more in the connection's checkPod.podTemplate."),
        ("Name it in huggingFace.podTemplate.caBundleRef.", "Name it in checkPod.podTemplate.caBundleRef."),
        ("Ask for more in checkPod.podTemplate.resources.", "Ask for more in checkPod.podTemplate.resources."),
        (
            str(refusal_of_pod("maximum cpu usage per Pod is 2, but limit is 4").next_step),
            "Ask an admin to let checkPod.podTemplate.resources of the connection ask for what the message says. It is "
            "retried automatically.",
        ),
    ],
)
def test_a_pods_own_next_step_names_the_template_once_and_no_field_that_its_job_lacks(step: str, said: str) -> None:
    failure = Failure(reason=Reason.STORE_UNAVAILABLE, message="it does not answer", next_step=step)
    assert worded_for_small_pod(failure).next_step == said
