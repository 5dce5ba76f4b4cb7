"""Pods and batch Jobs as the tests of a run have them."""

from datetime import datetime
from typing import Any

from finetune_operator.decide.job.run import read_run
from tests.unit.finetune_operator.decide.given import NOW

BACKOFF = ("Failed", "BackoffLimitExceeded")


def waiting_for(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": "no"}}


def target(reason: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}]}


def read(job: dict[str, Any] | None, pods: list[dict[str, Any]], posted: Any = None, now: datetime = NOW) -> Any:
    return read_run(job, pods, posted, now)
