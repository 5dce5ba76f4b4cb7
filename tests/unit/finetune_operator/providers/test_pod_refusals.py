"""Why pods cannot be made: one listing for all Jobs of a namespace, by UID, and never older than some seconds."""

import asyncio
from datetime import timedelta
from typing import Any

from finetune_operator.providers.pod_refusals import PodRefusals
from finetune_operator.runtime.kube import EVENTS
from tests.unit.finetune_operator.decide.given import NOW
from tests.unit.finetune_operator.reconcilers.fake_kube import FakeKube


def batch_job(uid: str, namespace: str = "team-a") -> dict[str, Any]:
    return {"metadata": {"name": "sentiment-1-1", "namespace": namespace, "uid": uid}}


def refuse(kube: FakeKube, name: str, uid: str, note: str, at: str = "2026-11-21T12:00:00Z") -> None:
    metadata = {"name": name, "namespace": "team-a", "creationTimestamp": at}
    kube.put(EVENTS, {"metadata": metadata, "reason": "FailedCreate", "regarding": {"uid": uid}, "note": note})


async def test_jobs_of_one_namespace_share_a_listing_and_each_gets_its_own_newest_refusal() -> None:
    kube = FakeKube()
    refuse(kube, "late", "uid-1", "exceeded quota", "2026-11-21T12:00:09Z")
    refuse(kube, "early", "uid-1", "no service account", "2026-11-21T12:00:01Z")
    refuse(kube, "other", "uid-2", "forbidden by a policy")
    refusals = PodRefusals(kube, lambda: NOW)  # type: ignore[arg-type]
    told = await asyncio.gather(*(refusals.of(batch_job(uid)) for uid in ("uid-1", "uid-2", "uid-3")))
    assert told == ["exceeded quota", "forbidden by a policy", None]
    assert kube.asked("list", "events") == 1
    assert await refusals.of(batch_job("uid-1", "team-b")) is None
    assert kube.asked("list", "events") == 2


async def test_a_listing_is_good_for_some_seconds() -> None:
    kube, now = FakeKube(), [NOW]
    refusals = PodRefusals(kube, lambda: now[0])  # type: ignore[arg-type]
    assert await refusals.of(batch_job("uid-1")) is None
    refuse(kube, "a", "uid-1", "exceeded quota")
    now[0] += timedelta(seconds=9)
    assert await refusals.of(batch_job("uid-1")) is None
    now[0] += timedelta(seconds=1)
    assert await refusals.of(batch_job("uid-1")) == "exceeded quota"


async def test_what_is_said_again_counts_as_new_and_other_reasons_are_not_asked_for() -> None:
    kube = FakeKube()
    for name, last, note in (("a", "2026-11-21T12:05:00Z", "no key"), ("b", "2026-11-21T12:04:00Z", "no secret")):
        metadata = {"name": name, "namespace": "team-a", "creationTimestamp": "2026-11-21T12:00:00Z"}
        said = {"reason": "FailedMount", "regarding": {"uid": "uid-1"}, "note": note, "deprecatedLastTimestamp": last}
        kube.put(EVENTS, {"metadata": metadata, **said})
    refuse(kube, "c", "uid-1", "exceeded quota")
    assert await PodRefusals(kube, lambda: NOW, "FailedMount").of(batch_job("uid-1")) == "no key"  # type: ignore[arg-type]
