"""One attempt on several nodes: which of its pods says why it failed, and when it runs at all."""

from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_api.trainer import termination_message
from finetune_operator.decide.job.attempt_end import most_telling
from finetune_operator.decide.job.read_run import read_run
from tests.unit.finetune_operator.decide.given import NOW, at, batch_job, ended, pod, report, stamp, succeeded, waiting

BACKOFF = ("Failed", "BackoffLimitExceeded")


def on(node: int, made: dict[str, Any], seconds: float = 0) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/job-completion-index": str(node)}
    metadata = {"labels": labels, "name": f"pod-{node}", "creationTimestamp": stamp(seconds)}
    return {**made, "metadata": made["metadata"] | metadata}


def saying(reason: str, code: int = 1) -> dict[str, Any]:
    told = report("Failed", failure={"reason": reason, "message": f"because of {reason}"})
    return pod("Failed", **ended(code, message=termination_message(told)))


LOST = saying("Interrupted", 75)
"""What a trainer says whose peer is gone."""


@pytest.mark.parametrize(
    ("pods", "reason", "node"),
    [
        ([LOST, pod("Failed", **ended(137, "OOMKilled"))], Reason.OUT_OF_MEMORY, 1),
        ([pod("Failed", **ended(137, "OOMKilled")), LOST], Reason.OUT_OF_MEMORY, 0),
        ([LOST, saying("OutOfMemory", 79)], Reason.OUT_OF_MEMORY, 1),
        ([LOST, pod("Failed", **ended(79))], Reason.OUT_OF_MEMORY, 1),
        ([LOST, LOST, saying("ModelUnusable", 81)], Reason.MODEL_UNUSABLE, 2),
        ([saying("DatasetInvalid", 65), LOST, LOST], Reason.DATASET_INVALID, 0),
        ([LOST, pod("Failed", reason="Evicted", message="disk")], Reason.EVICTED, 1),
        ([LOST, saying("TrainerCrashed")], Reason.TRAINER_CRASHED, 1),
        ([LOST, pod("Failed", **ended(1))], Reason.TRAINER_CRASHED, 1),
        ([saying("TrainerCrashed"), pod("Failed", **ended(137))], Reason.INTERRUPTED, 1),
        ([pod("Failed", **ended(134)), pod("Failed", **ended(137))], Reason.INTERRUPTED, 1),
        ([pod("Failed", deleted=-5, **ended(137)), saying("TrainerCrashed")], Reason.TRAINER_CRASHED, 1),
        ([saying("TrainingDiverged", 80), saying("TrainingDiverged", 80)], Reason.TRAINING_DIVERGED, 0),
        ([pod("Succeeded", **ended(0)), saying("TrainerCrashed")], Reason.TRAINER_CRASHED, 1),
        ([saying("ArtifactFailed", 73), pod("Succeeded", **ended(0))], Reason.ARTIFACT_FAILED, 0),
        ([LOST, LOST], Reason.INTERRUPTED, 0),
    ],
)
def test_the_end_that_explains_most_is_why_an_attempt_failed(
    pods: list[dict[str, Any]], reason: Reason, node: int
) -> None:
    pods = [on(place, made) for place, made in enumerate(pods)]
    posted = report("Failed", failure={"reason": "Interrupted", "message": "another process of this attempt has ended"})
    for posts in (posted, None):
        found = read_run(batch_job(BACKOFF), pods[::-1], posts if node else None, NOW)
        assert found.state == "Failed"
        assert found.failure is not None
        assert found.failure.reason is reason
        assert most_telling(pods) is pods[node]


def test_the_first_node_speaks_for_all() -> None:
    last = succeeded()
    pods = [
        on(0, pod("Succeeded", **ended(0, message=termination_message(last)))),
        on(1, pod("Succeeded", **ended(0, message=termination_message(report("Running"))))),
    ]
    found = read_run(batch_job(("Complete", "")), pods[::-1], None, NOW)
    assert (found.state, found.report) == ("Succeeded", last)


@pytest.mark.parametrize(
    ("pods", "state", "reason"),
    [
        ([pod("Running"), pod("Running")], "Active", None),
        ([pod("Running"), pod("Succeeded", **ended(0))], "Active", None),
        ([pod("Running"), pod("Pending")], "Queued", None),
        ([pod("Running"), pod("Pending", **waiting("ErrImagePull"))], "Queued", Reason.IMAGE_PULL_FAILED),
        ([pod("Running", 60), pod("Failed", **ended(137))], "Active", None),
    ],
)
def test_an_attempt_runs_while_any_of_its_pods_does(pods: Any, state: str, reason: Reason | None) -> None:
    found = read_run(batch_job(BACKOFF), [on(place, made) for place, made in enumerate(pods)], None, NOW)
    assert (found.state, found.failure.reason if found.failure else None) == (state, reason)


def test_of_a_nodes_pods_the_newest_counts() -> None:
    pods = [on(0, LOST), on(1, pod("Failed", **ended(79))), on(1, LOST, seconds=5)]
    found = read_run(batch_job(BACKOFF), pods, None, NOW)
    assert found.failure is not None
    assert found.failure.reason is Reason.INTERRUPTED


def test_pods_of_several_nodes_have_waited_together_since_the_last_of_them_was_made() -> None:
    pods = [on(0, pod("Pending"), -60), on(1, pod("Pending"), -20)]
    assert read_run(batch_job(), pods, None, NOW).since == at(-20)
