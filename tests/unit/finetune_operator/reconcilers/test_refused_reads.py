"""Rights of the operator that somebody has taken away: what cannot be read is said, and nothing else is made of it."""

from contextlib import suppress
from typing import Any

import pytest

from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import DEPLOYMENTS, JOBS, PODS
from tests.unit.finetune_operator.decide.given import ended
from tests.unit.finetune_operator.reconcilers.fake_cluster import (
    DEPLOYMENT,
    MODEL,
    Cluster,
    with_job,
    with_running_job,
)
from tests.unit.finetune_operator.reconcilers.versions import with_version

ASKS_FOR_RIGHTS = "Ask an admin: the operator's role lacks the right that the message names"


def lacks(cluster: Cluster, verb: str, plural: str, group: str = "") -> str:
    """The API server's words from now on for what the operator's role does not grant."""
    said = (
        f'{plural}.{group} is forbidden: User "system:serviceaccount:finetune-system:finetune-operator" cannot {verb} '
        f'resource "{plural}" in API group "{group}" in the namespace "team-a"'
    )
    cluster.kube.refusals[verb, plural] = Forbidden(403, "Forbidden", said)
    return said


async def test_a_job_without_a_pod_says_that_nobody_may_read_why() -> None:
    cluster = await with_job()
    said = lacks(cluster, "list", "events", "events.k8s.io")
    await cluster.wait(15)
    reconciling = cluster.condition("Reconciling")
    assert (reconciling["status"], reconciling["reason"]) == ("True", "Queued")
    assert reconciling["message"] == f"waiting for its pod to start; why it does not is not known: {said}"
    cluster.run_pod()
    cluster.reports.accept(cluster.report("Running"))
    await cluster.settle()
    assert cluster.status()["phase"] == "Running", "it goes on all the same"


async def test_a_pod_that_is_not_brought_up_says_that_nobody_may_read_why() -> None:
    cluster = await with_job()
    cluster.run_pod(phase="Pending")
    said = lacks(cluster, "list", "events", "events.k8s.io")
    await cluster.wait(15)
    assert cluster.condition("Reconciling")["message"].endswith(f"why it does not is not known: {said}")
    assert "failure" not in cluster.status()


async def test_a_server_that_comes_up_is_not_called_refused_because_nobody_may_read_events() -> None:
    cluster = await with_version()
    labels = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"]["template"]["metadata"]["labels"]
    cluster.kube.put(
        PODS,
        {"metadata": {"name": "sentiment-x", "namespace": "team-a", "labels": labels}, "status": {"phase": "Pending"}},
    )
    said = lacks(cluster, "list", "events", "events.k8s.io")
    await cluster.wait(30)
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    message = cluster.condition("Reconciling", DEPLOYMENT)["message"]
    assert message == f"version 1 is being deployed; why its pod does not start is not known: {said}"
    cluster.roll_out()
    await cluster.settle()
    assert cluster.condition("Ready", MODEL)["status"] == "True"


@pytest.mark.parametrize(("verb", "plural"), [("get", "jobs"), ("list", "pods")])
async def test_a_job_whose_attempt_cannot_be_read_says_so_and_is_not_begun_again(verb: str, plural: str) -> None:
    cluster = await with_running_job()
    said = lacks(cluster, verb, plural)
    if plural == "jobs":
        cluster.kube.drop(JOBS, "sentiment-1-1")
    else:
        cluster.end_pod(0, cluster.result())
        cluster.kube.drop(PODS, "sentiment-1-1-x")
    await cluster.settle()
    failure, stalled = cluster.status()["failure"], cluster.condition("Stalled")
    assert (stalled["status"], failure["reason"], failure["message"]) == ("True", "WriteRefused", said)
    assert failure["nextStep"].startswith(ASKS_FOR_RIGHTS)
    assert cluster.status()["provider"]["attempt"] == 1
    asked = len(cluster.kube.requests)
    await cluster.settle()
    await cluster.wait(59)
    assert len(cluster.kube.requests) == asked, "it waits between two looks"
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert "failure" not in cluster.status() or cluster.status()["failure"]["reason"] != "WriteRefused"


@pytest.mark.parametrize("verb", ["create", "delete"])
async def test_a_write_that_the_operators_role_does_not_grant_asks_for_the_right(verb: str) -> None:
    cluster = await with_running_job() if verb == "delete" else Cluster()
    said = lacks(cluster, verb, "jobs", "batch")
    if verb == "create":
        cluster.add_namespace()
        cluster.add_connection()
        cluster.add_job()
    else:
        cluster.change_job(suspend=True)
    await cluster.settle()
    failure: dict[str, Any] = cluster.status()["failure"]
    assert failure["message"] == said
    assert failure["nextStep"].startswith(ASKS_FOR_RIGHTS)


async def test_a_model_whose_deployment_may_not_be_written_asks_for_the_right() -> None:
    cluster = await with_running_job()
    lacks(cluster, "apply", "modeldeployments", "finetune.dev")
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert ASKS_FOR_RIGHTS in cluster.condition("Stalled", MODEL)["message"]


async def test_a_result_whose_models_status_may_not_be_written_says_so() -> None:
    cluster = await with_running_job()
    said = lacks(cluster, "patch_status", "finetunedmodels", "finetune.dev")
    cluster.end_pod(0, cluster.result())
    with pytest.raises(Forbidden):
        await cluster.settle()
    with suppress(Forbidden):  # the model's own watch has it looked at once more
        await cluster.settle()
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert failure["reason"] == "WriteRefused"
    assert failure["message"] == f"FineTunedModel sentiment cannot be written: {said}"
    cluster.kube.refusals.clear()
    cluster.wake(MODEL)
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)


async def test_a_crash_whose_log_nobody_may_read_says_so_since_its_pod_goes_with_the_log() -> None:
    cluster = await with_running_job()
    said = lacks(cluster, "log", "pods")
    cluster.end_pod(1)
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert (failure["reason"], failure["logTail"]) == ("TrainerCrashed", "")
    assert failure["message"] == f"the trainer ended with exit code 1; its log cannot be read: {said}"
    assert "helm upgrade" in failure["nextStep"]
    assert "Read failure.logTail" not in failure["nextStep"]


async def test_of_a_log_that_nobody_may_read_there_is_what_the_kubelet_has_kept_of_it() -> None:
    cluster = await with_running_job()
    lacks(cluster, "log", "pods")
    cluster.end_pod(1, **ended(1, message="Authorization: Bearer abcdefghijklmnop\nZeroDivisionError"))
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert failure["logTail"].endswith("ZeroDivisionError")
    assert "abcdefghijklmnop" not in failure["logTail"]
    assert failure["message"] == "the trainer ended with exit code 1"
    assert failure["nextStep"].startswith("Read failure.logTail")
