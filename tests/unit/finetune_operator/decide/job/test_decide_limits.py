"""Ends at a limit of memory or disk: whose limit it was, and what helps."""

from typing import Any

import pytest

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import decide
from finetune_operator.reconcilers.watched.observed import make_store
from finetune_operator.runtime.kube import PODS
from tests.unit.finetune_operator.decide.given import (
    batch_job,
    condition,
    ended,
    pod,
    progress,
    report,
    running,
    view,
)
from tests.unit.finetune_operator.decide.job.given_pods import (
    BACKOFF,
    EARLIER,
    LARGER,
    LARGER_IN_MEMORY,
    LOW,
    LOW_ON_MEMORY,
    OVER_A_CONTAINERS,
    OVER_A_VOLUME,
    OVER_ITS_LIMIT,
    PRESSED,
    evicted,
    read,
)


@pytest.mark.parametrize(
    ("limits", "said", "at_its_limit"),
    [
        (
            {"memory": "300Mi", "cpu": "1"},
            "the kernel killed the trainer: it used more memory than its limit of 300Mi",
            True,
        ),
        ({"cpu": "1"}, "the kernel killed the trainer: it used more memory than its limit", False),
    ],
)
def test_who_used_too_much_memory_is_told_how_much_there_was(limits: Any, said: str, at_its_limit: bool) -> None:
    raw = pod("Failed", **ended(137, "OOMKilled"))
    raw["spec"] = {"containers": [{"name": "trainer", "resources": {"limits": limits}}]}
    store = make_store()
    store.put(PODS, raw)
    found = read(batch_job(BACKOFF), [store.get(PODS, "pod-1", "team-a")])
    assert (found.failure.message, found.at_its_limit) == (said, at_its_limit)


def test_who_used_too_much_memory_while_measuring_does_it_with_more_care_next_time() -> None:
    """Alike ends are given up: of these the next one is not alike, and the one after that asks nobody."""
    raw = pod("Failed", **ended(137, "OOMKilled"))
    raw["spec"] = {"containers": [{"name": "trainer", "resources": {"limits": {"memory": "300Mi"}}}]}
    store = make_store()
    store.put(PODS, raw)
    pods = [store.get(PODS, "pod-1", "team-a")]
    limits = {phase: read(batch_job(BACKOFF), pods, report(phase)).at_its_limit for phase in ("Running", "Evaluating")}
    assert limits == {"Running": True, "Evaluating": False}


@pytest.mark.parametrize(
    ("said", "at_its_limit"),
    [(OVER_ITS_LIMIT, True), (OVER_A_CONTAINERS, True), (OVER_A_VOLUME, True), (f"{LOW}{LARGER}", False)],
)
def test_who_was_evicted_for_a_limit_of_its_own_is_told_from_who_was_on_a_full_node(
    said: str, at_its_limit: bool
) -> None:
    found = read(batch_job(BACKOFF), [evicted(said)])
    assert (found.failure.reason, found.at_its_limit) == (Reason.EVICTED, at_its_limit)


@pytest.mark.parametrize(
    ("step", "saved", "kept"),
    [
        (99, 99, None),
        (100, None, "up to step 0."),
        (100, 99, "up to step 99."),
        (100, 100, "Training is done and kept."),
    ],
)
@pytest.mark.parametrize("phase", ["Running", "Evaluating"])
def test_who_used_too_much_memory_after_training_is_not_told_to_train_in_smaller_steps(
    phase: Any, step: int, saved: int | None, kept: str | None
) -> None:
    """In a store the newest checkpoint may not be there yet: the model was merged all the same."""
    trained = kept is not None
    told = report(phase, progress=progress(step) | ({"savedStep": saved} if saved else {}))
    failure = read(batch_job(BACKOFF), [pod("Failed", **ended(137, "OOMKilled"))], told).failure
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert failure.message.endswith(", after its last training step") is trained
    assert ("microBatchSize" in failure.next_step) is not trained
    assert (kept or "lower microBatchSize") in failure.next_step


@pytest.mark.parametrize(
    ("told", "begins"), [(report("Validating"), True), (report("Running", progress=progress(0)), False), (None, False)]
)
def test_who_used_too_much_memory_before_training_is_not_told_to_train_in_smaller_steps(
    told: Any, begins: bool
) -> None:
    failure = read(batch_job(BACKOFF), [pod("Failed", **ended(137, "OOMKilled"))], told).failure
    assert failure.reason is Reason.OUT_OF_MEMORY
    assert failure.message.endswith(", before its first training step") is begins
    assert ("microBatchSize" in failure.next_step) is not begins
    assert failure.next_step.startswith("Ask for more memory")


def test_who_used_too_much_memory_is_told_how_much_is_enough_where_the_trainer_knew() -> None:
    parts = dict.fromkeys(("weights", "gradients", "optimizer", "activations", "overhead"), 1)
    known = {"device": "CPU", "estimatedBytes": 5, "leastBytes": 5, "fits": False, "parts": parts, "passTokens": 1}
    memory = known | {"activationCheckpointing": True, "advice": f"It takes {'2' * 1000}Gi."}
    told = report("Running", progress=progress(0), memory=memory)
    killed = pod("Failed", **ended(137, "OOMKilled"))
    step = read(batch_job(BACKOFF), [killed], told).failure.next_step
    assert ("It takes 222" in step, len(step)) == (True, 1024)
    its_own = told.model_copy(update={"failure": Failure(reason=Reason.OUT_OF_MEMORY, message="no memory")})
    step = read(batch_job(BACKOFF), [pod("Failed", **ended(12))], its_own).failure.next_step
    assert step.startswith("It takes 222")
    before = told.model_copy(update={"phase": "Validating", "progress": None})
    step = read(batch_job(BACKOFF), [killed], before).failure.next_step
    assert "It takes" not in step, "smaller steps need no less before the first one"


@pytest.mark.parametrize(
    ("said", "step"),
    [
        (OVER_ITS_LIMIT, "Apply the job under a new name with more spec.resources.ephemeralStorage"),
        (OVER_A_CONTAINERS, "Apply the job under a new name with more spec.resources.ephemeralStorage"),
        (OVER_A_VOLUME, "Ask an admin to raise the limit that a policy of the cluster has put on this volume"),
        (f"{LOW}{LARGER}", "Have the pod ask for as much ephemeral-storage as it uses, in spec.resources or"),
        (f"{LOW_ON_MEMORY}{LARGER_IN_MEMORY}", "Have the pod ask for as much memory as it uses, in spec.resources or"),
        (EARLIER, "Have the pod ask for as much as it uses, in spec.resources or"),
        (LOW, "Set spec.retryNonce to resume from the last checkpoint when the node has room."),
        (PRESSED, "Set spec.retryNonce to resume from the last checkpoint when the node has room."),
    ],
)
def test_who_was_evicted_by_the_kubelet_is_told_what_helps(said: str, step: str) -> None:
    failure = read(batch_job(BACKOFF), [evicted(said)]).failure
    assert (failure.reason, failure.message) == (Reason.EVICTED, f"the training pod was evicted: {said.strip()}")
    assert failure.next_step.startswith(step)


WROTE_MUCH = LARGER.replace("52Ki", "900Mi")


@pytest.mark.parametrize(
    ("said", "disk", "little"),
    [
        (f"{LOW}{LARGER}", True, True),
        (f"{LOW}{WROTE_MUCH}", False, False),
        (LOW, True, False),
        (PRESSED, True, False),
        ("The node was low on resource: inodes. Threshold quantity: 5, available: 2. ", True, False),
        (f"{LOW_ON_MEMORY}{LARGER_IN_MEMORY}", False, False),
        (OVER_ITS_LIMIT, False, False),
    ],
)
def test_that_a_nodes_disk_is_full_is_told_where_the_pod_has_not_filled_it(said: str, disk: bool, little: bool) -> None:
    """LOW lacks some 150 MB: no request of a pod that wrote less than that would have kept the disk from filling."""
    step = read(batch_job(BACKOFF), [evicted(said)]).failure.next_step
    assert ("make room on the node's disk" in step) is disk
    assert ("It has written little (52Ki)." in step) is little


def test_why_the_last_attempt_ended_is_told_while_the_next_one_waits() -> None:
    run = read(batch_job(BACKOFF), [evicted(f"{LOW}{LARGER}")])
    decision = decide(view(run, running(attempt=1)))
    message = condition(decision.status, "Ready").message
    assert message.startswith(f"attempt 1 ended (Evicted): the training pod was evicted: {LOW}{LARGER}".rstrip(". "))
    assert "; the next one starts at" in message
    assert "make room on the node's disk" in message
    assert "retryNonce" not in decision.status.provider.last_failure.next_step, "it starts by itself"
    waits = decide(view(Run("Absent"), decision.status, live_pods=True))
    assert condition(waits.status, "Ready").message.startswith("attempt 1 ended (Evicted): ")
