"""Why a pod has no node: what helps follows from the scheduler's words, which are Kubernetes 1.34's."""

from typing import Any

import pytest

from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.pods.unschedulable import unplaced

END = " no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
TAINT = "node(s) had untolerated taint "


def pending(message: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]}}


@pytest.mark.parametrize(
    ("why", "step"),
    [
        ("2 node(s) didn't match Pod's node affinity/selector.", "nodeSelector and affinity"),
        (f"1 {TAINT}{{nvidia.com/gpu: present}}, 1 {TAINT}{{team: b}}.", "tolerations"),
        (f"2 {TAINT}{{node.kubernetes.io/unreachable: }}.", "healthy again"),
        (f"1 {TAINT}{{node.kubernetes.io/disk-pressure: }}.", "make room on the nodes' disks"),
        ("2 node(s) had untolerated taint(s).", "tolerations"),
        ("2 node(s) were unschedulable.", "healthy again"),
        ("2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by "
         "another pod.", "ReadWriteMany"),
        ("2 node(s) didn't match PersistentVolume's node affinity.", "kubectl describe pv"),
        ("2 node(s) had volume node affinity conflict.", "kubectl describe pv"),
        ("2 node(s) didn't find available persistent volumes to bind.", "kubectl describe pvc"),
        ("pod has unbound immediate PersistentVolumeClaims.", "kubectl describe pvc"),
        ("1 node(s) exceed max volume count.", "one more volume"),
        ("2 node(s) didn't match pod anti-affinity rules.", "kubectl get pod -o yaml"),
        ("1 node(s) didn't match pod topology spread constraints.", "kubectl get pod -o yaml"),
        ("2 node(s) did not have enough free storage.", "kubectl describe pvc"),
        ("2 cannot allocate all claims.", "resourceclaims"),
        ('running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded', "kubectl describe pvc"),
    ],
)  # fmt: skip
def test_where_it_is_not_for_want_of_room_nobody_is_told_to_wait_for_room(why: str, step: str) -> None:
    failure = unplaced(pending(f"0/2 nodes are available: {why}{END}"))
    assert failure is not None
    assert failure.reason is Reason.UNSCHEDULABLE
    assert step in (failure.next_step or "")


@pytest.mark.parametrize(
    "why", ["2 Insufficient nvidia.com/gpu.", f"1 Insufficient memory, 1 {TAINT}{{a: b}}.", "2 Too many pods.", "?"]
)
def test_where_room_would_help_it_is_waited_for(why: str) -> None:
    failure = unplaced(pending(f"0/2 nodes are available: {why}{END}"))
    assert failure is not None
    assert failure.next_step == NEXT_STEP[Reason.UNSCHEDULABLE]
    assert failure.message == f"0/2 nodes are available: {why}", "what preemption found helps nobody"


GOING, LOST = (
    'persistentvolumeclaim "a" is being deleted',
    'persistentvolumeclaim "a" bound to non-existent persistentvolume "b"',
)


@pytest.mark.parametrize(
    ("said", "step"),
    [
        (GOING, "Delete those that have ended"),
        (LOST, "PersistentVolume of that name"),
    ],
)
def test_a_claim_that_takes_no_pods_any_more_is_told_with_what_brings_it_back(said: str, step: str) -> None:
    """The scheduler's own end, `. not found`, is about nodes."""
    failure = unplaced(pending(f"0/2 nodes are available: {said}. not found{END}"))
    assert failure is not None
    assert (failure.reason, failure.message) == (Reason.CONTAINER_CONFIG_INVALID, f"0/2 nodes are available: {said}.")
    assert step in (failure.next_step or "")


def test_a_gate_is_taken_away_by_whoever_has_put_it_there() -> None:
    failure = unplaced(pending("Scheduling is blocked due to non-empty scheduling gates"))
    assert failure is not None
    assert "schedulingGates" in (failure.next_step or "")


@pytest.mark.parametrize(
    "end",
    [
        END,
        END.replace("no new claims to deallocate,", "still not schedulable,"),
        END.replace("no new claims to deallocate, ", ""),
        "",
    ],
)
def test_of_the_schedulers_words_those_about_nodes_are_told(end: str) -> None:
    failure = unplaced(pending(f"0/2 nodes are available: 2 Insufficient cpu.{end}"))
    assert failure is not None
    assert failure.message == "0/2 nodes are available: 2 Insufficient cpu."
    assert "kubectl describe nodes" in (failure.next_step or "")
