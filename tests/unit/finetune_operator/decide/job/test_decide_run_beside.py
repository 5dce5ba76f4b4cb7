"""What runs beside the trainer in its pod, or before it: sidecars, and what policies of the cluster put there."""

from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_api.trainer import termination_message
from tests.unit.finetune_operator.decide.given import batch_job, ended, pod, stamp, succeeded, waiting
from tests.unit.finetune_operator.decide.job.given_pods import BACKOFF, read, target, waiting_for


def beside(trainer: dict[str, Any], **state: Any) -> dict[str, Any]:
    """Status fields of a pod with a proxy beside the trainer."""
    return {"containerStatuses": [*trainer["containerStatuses"], {"name": "proxy", "state": state}]}


UP = {"running": {"startedAt": stamp()}}
BROKEN = {"terminated": {"exitCode": 3, "reason": "Error"}}
DONE = ended(0, message=termination_message(succeeded()))
NOT_BEGUN = waiting("PodInitializing")


@pytest.mark.parametrize(
    ("job", "its_pod", "state", "reason"),
    [
        pytest.param(batch_job(), pod(**beside(DONE, **UP)), "Succeeded", None, id="proxy goes on"),
        pytest.param(batch_job(), pod(deleted=60, **beside(DONE, **UP)), "Succeeded", None, id="told to end by then"),
        pytest.param(batch_job(), pod(**beside(ended(0), **UP)), "ResultUnknown", None, id="no result told"),
        pytest.param(batch_job(), pod(**beside(ended(65), **UP)), "Failed", Reason.DATASET_INVALID, id="bad data"),
        pytest.param(batch_job(), pod(**beside(ended(75), **UP)), "Failed", Reason.INTERRUPTED, id="interrupted"),
        pytest.param(batch_job(), pod(**beside(ended(1), **UP)), "Failed", Reason.TRAINER_CRASHED, id="crashed"),
        pytest.param(
            batch_job(),
            pod(**beside(ended(75), **UP), **target("EvictionByEvictionAPI")),
            "Failed",
            Reason.EVICTED,
            id="drained",
        ),
        pytest.param(batch_job(), pod(**DONE), "Active", None, id="the kubelet has yet to say that the pod has ended"),
        pytest.param(batch_job(BACKOFF), pod("Failed", **beside(DONE, **BROKEN)), "Succeeded", None, id="proxy fails"),
        pytest.param(
            batch_job(("Failed", "DeadlineExceeded")),
            pod("Failed", **beside(DONE, **BROKEN)),
            "Failed",
            Reason.DEADLINE_EXCEEDED,
            id="deadline",
        ),
        pytest.param(
            batch_job(BACKOFF),
            pod("Failed", **beside(NOT_BEGUN, **BROKEN)),
            "Failed",
            Reason.SIDECAR_FAILED,
            id="before it",
        ),
        pytest.param(
            batch_job(BACKOFF),
            pod("Failed", **beside(ended(1), **BROKEN)),
            "Failed",
            Reason.TRAINER_CRASHED,
            id="both fail",
        ),
        pytest.param(
            batch_job(),
            pod("Pending", **beside(NOT_BEGUN, **waiting_for("ErrImagePull"))),
            "Queued",
            Reason.SIDECAR_FAILED,
            id="no image",
        ),
        pytest.param(
            batch_job(),
            pod("Pending", **beside(NOT_BEGUN, **waiting_for("CrashLoopBackOff"))),
            "Queued",
            Reason.SIDECAR_FAILED,
            id="no start",
        ),
    ],
)
def test_what_is_beside_the_trainer_neither_holds_it_up_nor_spoils_its_work(
    job: Any, its_pod: Any, state: str, reason: Reason | None
) -> None:
    found = read(job, [its_pod])
    assert (found.state, found.failure and found.failure.reason) == (state, reason)


def behind(name: str, seconds_ago: float, before: str = "PodInitializing") -> dict[str, Any]:
    """Status fields of a pod whose trainer waits for a container that has run for so long."""
    init = {"name": name, "state": {"running": {"startedAt": stamp(-seconds_ago)}}}
    return {**waiting(before), "initContainerStatuses": [init]}


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        pytest.param(behind("warm-up", 10), False, None, id="at its beginning"),
        pytest.param(behind("warm-up", 60), True, None, id="for a while"),
        pytest.param(behind("warm-up", 601), True, Reason.SIDECAR_FAILED, id="never ends"),
        pytest.param(behind("proxy", 601, "ContainerCreating"), False, None, id="a sidecar that is up"),
        pytest.param(behind("fetch", 601), False, None, id="ours"),
    ],
)
def test_what_a_policy_has_put_before_the_trainer_is_named_when_it_does_not_end(
    status: Any, said: bool, reason: Reason | None
) -> None:
    found = read(batch_job(), [pod("Pending", **status)])
    words = found.note or (found.failure.message if found.failure else "")
    assert (found.state, found.failure and found.failure.reason) == ("Queued", reason)
    assert ("container warm-up, which a policy of the cluster has put before the trainer" in words) is said
    assert found.awaiting_pod, "nothing tells of its end"


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ({"exitCode": 3, "reason": "Error"}, "it ended with exit code 3"),
        ({"exitCode": 137, "reason": "OOMKilled"}, "it ended with exit code 137 (OOMKilled)"),
    ],
)
def test_a_container_that_ended_the_pod_is_named_with_how_it_ended(ending: dict[str, Any], said: str) -> None:
    first = {"initContainerStatuses": [{"name": "fetch-secrets", "state": {"terminated": ending}}]}
    failure = read(batch_job(BACKOFF), [pod("Failed", **NOT_BEGUN, **first)]).failure
    assert failure.message == f"container fetch-secrets, which a policy of the cluster has put into the pod: {said}"
    assert "podTemplate" in failure.next_step
