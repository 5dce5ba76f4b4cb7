"""Jobs that a provider refuses or fails: said, retried only where that helps, and nothing left there that is billed."""

from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from finetune_operator.runtime.queue import Key
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, provider, with_cloud_job

__all__ = ["begin", "provider", "start"]

CREATE = "fine_tuning.jobs.create"


async def refused(begin: Any, provider: Any, **fault: Any) -> CloudCluster:
    """A job whose create was refused once, right now."""
    cluster: CloudCluster = await begin(with_cloud_job)
    provider.fault(CREATE, **fault)
    await cluster.check()
    await cluster.settle()
    return cluster


PASSING: dict[str, tuple[dict[str, Any], str, float]] = {
    "no credit": ({"status": 429, "code": "insufficient_quota"}, "QuotaExceeded", 300),
    "hard limit": ({"status": 400, "code": "billing_hard_limit_reached"}, "QuotaExceeded", 300),
    "payment required": ({"status": 402}, "QuotaExceeded", 300),
    "throttled, without a pause": ({"status": 429, "code": "rate_limit_exceeded"}, "RateLimited", 30),
    "throttled for a while": (
        {"status": 429, "code": "rate_limit_exceeded", "headers": {"Retry-After": "90"}},
        "RateLimited",
        90,
    ),
    "key renewed later": ({"status": 401, "code": "invalid_api_key"}, "CredentialsInvalid", 60),
    "a right given later": ({"status": 403, "code": "missing_scope"}, "CredentialsInvalid", 60),
}


@pytest.mark.parametrize("name", PASSING)
async def test_what_somebody_can_mend_is_waited_for_and_tried_once_more(begin: Any, provider: Any, name: str) -> None:
    fault, reason, pause = PASSING[name]
    cluster = await refused(begin, provider, **fault)
    failure = cluster.status()["failure"]
    assert (failure["reason"], bool(failure["nextStep"]), cluster.status()["phase"]) == (reason, True, "Queued")
    await cluster.pass_time(pause - 10)
    assert provider.count(CREATE, committed=False) == 1, "nobody is asked before the pause is over"
    await cluster.pass_time(pause)
    await cluster.pass_time(61)
    assert provider.count(CREATE) == 1
    await cluster.pass_time(7200)
    assert (cluster.status()["phase"], "failure" in cluster.status()) == ("Succeeded", False)


FINAL: dict[str, tuple[dict[str, Any], str]] = {
    "no such model": ({"status": 404, "code": "model_not_found"}, "spec.baseModel: "),
    "not for tuning": ({"status": 400, "code": "model_not_available"}, "spec.baseModel: "),
    "a value": ({"status": 422, "code": "unprocessable"}, "(422 unprocessable)"),
    "too large": ({"status": 413}, "(413"),
}


@pytest.mark.parametrize("name", FINAL)
async def test_what_nobody_can_mend_ends_the_job_and_leaves_nothing(begin: Any, provider: Any, name: str) -> None:
    fault, words = FINAL[name]
    cluster = await refused(begin, provider, **fault)
    await cluster.pass_time(61)
    failure = cluster.status()["failure"]
    assert (cluster.status()["phase"], failure["reason"]) == ("Failed", "ProviderRefused")
    assert words in failure["message"]
    assert failure["nextStep"]
    await cluster.pass_time(7200)
    assert (provider.count(CREATE, committed=False), provider.left()) == (1, [])


async def test_a_job_that_waits_for_room_keeps_nobody_from_asking_about_the_others(begin: Any, provider: Any) -> None:
    """That no more jobs may run at once is said of new ones alone: those that run are followed, and cancelled."""
    provider.set(job_limit=1)
    cluster: CloudCluster = await begin()
    await cluster.poll()
    cluster.add_cloud_job("sentiment-2", modelRef={"name": "other"})
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    waits = cluster.condition("Reconciling", Key(FINE_TUNE_JOBS.kind, "team-a", "sentiment-2"))
    assert (waits["reason"], "maximum of 1 active requests" in waits["message"]) == ("RateLimited", True)
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert provider.count("fine_tuning.jobs.cancel") == 1
