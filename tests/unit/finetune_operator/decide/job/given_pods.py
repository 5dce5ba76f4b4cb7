"""Builders of pods and batch Jobs for the tests of runs."""

from datetime import datetime
from typing import Any

from finetune_operator.decide.job.read_run import read_run
from tests.unit.finetune_operator.decide.given import NOW, pod

BACKOFF = ("Failed", "BackoffLimitExceeded")


def waiting_for(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": "no"}}


def target(reason: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]}


def read(job: dict[str, Any] | None, pods: list[dict[str, Any]], posted: Any = None, now: datetime = NOW) -> Any:
    return read_run(job, pods, posted, now)


LOW = "The node was low on resource: ephemeral-storage. Threshold quantity: 2705531679, available: 2491552Ki. "
LARGER = "Container trainer was using 52Ki, request is 0, has larger consumption of ephemeral-storage. "
LOW_ON_MEMORY = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 92764Ki. "
LARGER_IN_MEMORY = "Container trainer was using 812Mi, request is 300Mi, has larger consumption of memory. "
EARLIER = "The node was low on resource: memory. Container trainer was using 1Gi, which exceeds its request of 300Mi. "
PRESSED = "The node had condition: [DiskPressure]. "
OVER_ITS_LIMIT = "Pod ephemeral local storage usage exceeds the total limit of containers 50Mi. "
OVER_A_CONTAINERS = 'Container trainer exceeded its local ephemeral storage limit "50Mi". '
OVER_A_VOLUME = 'Usage of EmptyDir volume "v0" exceeds the limit "1Gi". '
"""The kubelet's messages, of 1.34 except EARLIER. A pod without a disk request exceeds it with a few KiB."""


def evicted(message: str) -> dict[str, Any]:
    return pod("Failed", reason="Evicted", message=message)
