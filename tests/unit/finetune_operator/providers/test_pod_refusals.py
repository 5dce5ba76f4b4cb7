"""Why pods cannot be made or brought up: one listing for all of a namespace, by UID, never older than some seconds."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.providers.hugging_face.pod_refusals import ObjectEvents, StartFailures
from finetune_operator.runtime.kube import EVENTS, PODS
from tests.unit.finetune_operator.decide.given import NOW, stamp
from tests.unit.finetune_operator.reconcilers.fake_kube import FakeKube


def batch_job(uid: str, namespace: str = "team-a") -> dict[str, Any]:
    return {"metadata": {"name": "sentiment-1-1", "namespace": namespace, "uid": uid}}


def refuse(kube: FakeKube, name: str, uid: str, note: str, at: str = "2026-11-21T12:00:00Z") -> None:
    metadata = {"name": name, "namespace": "team-a", "creationTimestamp": at}
    kube.put(EVENTS, {"metadata": metadata, "reason": "FailedCreate", "regarding": {"uid": uid}, "note": note})


class SlowKube(FakeKube):
    """Its Events are many: listing them takes a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.clock = seconds, NOW

    async def list(self, *selected: Any, **more: Any) -> list[dict[str, Any]]:
        self.clock += timedelta(seconds=self.seconds)
        return await super().list(*selected, **more)


async def test_jobs_of_one_namespace_share_a_listing_and_each_gets_its_own_newest_refusal() -> None:
    kube = FakeKube()
    refuse(kube, "late", "uid-1", "exceeded quota", "2026-11-21T12:00:09Z")
    refuse(kube, "early", "uid-1", "no service account", "2026-11-21T12:00:01Z")
    refuse(kube, "other", "uid-2", "forbidden by a policy")
    refusals = ObjectEvents(kube, lambda: NOW)  # type: ignore[arg-type]
    told = await asyncio.gather(*(refusals.of(batch_job(uid)) for uid in ("uid-1", "uid-2", "uid-3")))
    assert [one and one[1] for one in told] == ["exceeded quota", "forbidden by a policy", None]
    assert kube.asked("list", "events") == 1
    assert await refusals.of(batch_job("uid-1", "team-b")) is None
    assert kube.asked("list", "events") == 2


async def test_what_is_said_for_the_tenth_time_is_said_in_the_same_words() -> None:
    kube = FakeKube()
    refuse(kube, "a", "uid-1", "(combined from similar events): exceeded quota")
    assert await ObjectEvents(kube, lambda: NOW).of(batch_job("uid-1")) == ("FailedCreate", "exceeded quota")  # type: ignore[arg-type]


async def test_a_listing_is_good_for_some_seconds() -> None:
    kube, now = FakeKube(), [NOW]
    refusals = ObjectEvents(kube, lambda: now[0])  # type: ignore[arg-type]
    assert await refusals.of(batch_job("uid-1")) is None
    refuse(kube, "a", "uid-1", "exceeded quota")
    now[0] += timedelta(seconds=9)
    assert await refusals.of(batch_job("uid-1")) is None
    now[0] += timedelta(seconds=1)
    assert await refusals.of(batch_job("uid-1")) == ("FailedCreate", "exceeded quota")


@pytest.mark.parametrize(("took", "good_for"), [(0.1, 10), (1, 30), (5, 60)])
async def test_a_listing_that_took_long_is_good_for_longer_and_for_a_minute_at_most(took: float, good_for: int) -> None:
    kube = SlowKube(took)
    refusals = ObjectEvents(kube, lambda: kube.clock)  # type: ignore[arg-type]
    for _ in range(120):
        await refusals.of(batch_job("uid-1"))
        kube.clock += timedelta(seconds=1)
    seconds = (kube.clock - NOW).total_seconds()
    assert kube.asked("list", "events") == pytest.approx(seconds / good_for, abs=1)


async def test_a_listing_of_a_clock_that_went_back_since_is_good_no_more() -> None:
    kube, now = FakeKube(), [NOW]
    refusals = ObjectEvents(kube, lambda: now[0])  # type: ignore[arg-type]
    await refusals.of(batch_job("uid-1"))
    refuse(kube, "a", "uid-1", "exceeded quota")
    now[0] -= timedelta(hours=3)
    assert await refusals.of(batch_job("uid-1")) == ("FailedCreate", "exceeded quota")


async def test_whoever_a_listing_is_the_first_to_tell_of_is_news_once_and_whoever_asked_is_none() -> None:
    kube, now, news = FakeKube(), [NOW], list[Any]()
    refusals = ObjectEvents(kube, lambda: now[0], news=news.append)  # type: ignore[arg-type]
    refuse(kube, "a", "uid-1", "exceeded quota")
    refuse(kube, "b", "uid-2", "exceeded quota")
    heard = []
    for uid in ("uid-3", "uid-1", "uid-4"):
        await refusals.of(batch_job(uid))
        heard.append([one["uid"] for one in news])
        now[0] += timedelta(seconds=11)
        refuse(kube, f"of {uid}", "uid-4", "exceeded quota")
    first, then, last = (sorted(uids) for uids in heard)
    assert (first, then, last) == (["uid-1", "uid-2"], ["uid-1", "uid-2", "uid-4"], then)


async def test_what_was_listed_of_a_namespace_is_forgotten_with_its_time() -> None:
    kube, now = FakeKube(), [NOW]
    refusals = ObjectEvents(kube, lambda: now[0])  # type: ignore[arg-type]
    for number in range(50):
        await refusals.of(batch_job("uid-1", f"team-{number}"))
        now[0] += timedelta(seconds=5)
    assert (len(refusals._listed), len(refusals._listing)) == (2, 0)


def warn(kube: FakeKube, name: str, reason: str, note: str, last: str, **fields: Any) -> None:
    metadata = {"name": name, "namespace": "team-a", "creationTimestamp": "2026-11-21T11:00:00Z"}
    said = {"type": "Warning", "reason": reason, "note": note, "deprecatedLastTimestamp": last}
    uid = kube.objects[PODS, "team-a", "pod-1"]["metadata"]["uid"]
    kube.put(EVENTS, {"metadata": metadata, **said, "regarding": {"kind": "Pod", "uid": uid}, **fields})


def pending(**fields: Any) -> dict[str, Any]:
    metadata = {"name": "pod-1", "namespace": "team-a", "labels": {"a": "b"}}
    metadata["creationTimestamp"] = stamp(-60)
    return {"metadata": metadata, "status": {"phase": "Pending", **fields}}


async def why(kube: FakeKube) -> tuple[str, str] | None:
    found = await StartFailures(kube, lambda: NOW).of([kube.objects[PODS, "team-a", "pod-1"]], "a=b")  # type: ignore[arg-type]
    return (found[0].reason.value, found[0].message) if found else None


async def test_what_is_said_again_counts_as_new() -> None:
    kube = FakeKube()
    kube.put(PODS, pending())
    warn(kube, "a", "FailedMount", 'secret "a" not found', "2026-11-21T12:05:00Z")
    warn(kube, "b", "FailedMount", 'secret "b" not found', "2026-11-21T12:04:00Z")
    assert await why(kube) == ("ContainerConfigInvalid", 'secret "a" not found')


MULTI_ATTACH = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) other-0'
NO_PAUSE_IMAGE = (
    "Failed to create pod sandbox: rpc error: code = NotFound desc = failed to get sandbox image "
    '"registry.test/pause:1": failed to resolve reference "registry.test/pause:1": registry.test/pause:1: not found'
)
"""A kubelet's, on a node whose images were deleted for want of room on its disk: nothing that anybody here can make."""
SUMMARY = "Unable to attach or mount volumes: unmounted volumes=[v1]: timed out waiting for the condition"


@pytest.mark.parametrize(
    ("reason", "note", "told"),
    [
        ("FailedMount", 'MountVolume.SetUp failed for volume "v1" : secret "a" not found', "ContainerConfigInvalid"),
        ("FailedMount", 'MountVolume.SetUp failed for volume "v1" : configmap "b" not found', "ContainerConfigInvalid"),
        ("FailedMount", "references non-existent secret key: api-key", "ContainerConfigInvalid"),
        ("FailedMount", "mount.nfs: Connection timed out", "VolumeUnavailable"),
        ("FailedMount", SUMMARY, "VolumeUnavailable"),
        ("FailedAttachVolume", MULTI_ATTACH, "VolumeUnavailable"),
        ("FailedMapVolume", "MapVolume.WaitForAttach failed", "VolumeUnavailable"),
        ("FailedCreatePodSandBox", 'plugin type="calico" failed (add): no IP', "PodNotStarted"),
        ("FailedCreatePodSandBox", NO_PAUSE_IMAGE, "PodNotStarted"),
        ("FailedCreatePodSandBox", "runc: container init was OOM-killed (memory limit too low?)", "InsufficientMemory"),
        ("NetworkNotReady", "network is not ready", "PodNotStarted"),
        ("FailedPrepareDynamicResources", "no such claim", "PodNotStarted"),
        ("FailedScheduling", "0/1 nodes", None),
        ("Unhealthy", "probe failed", None),
        ("DNSConfigForming", "Nameserver limits were exceeded", None),
    ],
)
async def test_why_a_pod_is_not_brought_up(reason: str, note: str, told: str | None) -> None:
    kube = FakeKube()
    kube.put(PODS, pending())
    warn(kube, "a", reason, note, "2026-11-21T12:05:00Z")
    assert await why(kube) == ((told, note) if told else None)
    seen = kube.objects[PODS, "team-a", "pod-1"]
    kube.change(PODS, "pod-1", status={"conditions": [{"type": "PodReadyToStartContainers", "status": "True"}]})
    found = await StartFailures(kube, lambda: NOW).of([seen], "a=b")  # type: ignore[arg-type]
    assert found is None, "the store's state of the pod is an old one"


async def test_the_cause_is_told_and_not_the_summary_that_the_kubelet_says_after_it() -> None:
    kube = FakeKube()
    kube.put(PODS, pending())
    warn(kube, "a", "FailedAttachVolume", MULTI_ATTACH, "2026-11-21T12:01:00Z")
    warn(kube, "b", "FailedMount", SUMMARY, "2026-11-21T12:05:00Z")
    assert await why(kube) == ("VolumeUnavailable", MULTI_ATTACH)


async def test_events_of_other_kinds_and_those_that_are_no_warnings_are_not_asked_for() -> None:
    kube = FakeKube()
    kube.put(PODS, pending())
    warn(kube, "a", "FailedMount", "no", "2026-11-21T12:01:00Z", type="Normal")
    warn(kube, "b", "FailedMount", "no", "2026-11-21T12:01:00Z", regarding={"kind": "PersistentVolumeClaim"})
    warn(kube, "c", "FailedMount", "no", "2026-11-21T12:01:00Z", regarding={"kind": "Pod", "uid": "another"})
    assert await why(kube) is None


NO_NODE = "the pod has no node, and the scheduler has not said why: it waits for a claim's volume, or does not run"
PROVISIONER = "Waiting for a volume to be created either by the external provisioner 'none.example.com' or manually"


def unplaced(**spec: Any) -> dict[str, Any]:
    """A pod that is 61 seconds old."""
    volumes = [{"name": "v0", "emptyDir": {}}, {"name": "v1", "persistentVolumeClaim": {"claimName": "models"}}]
    pod = pending()
    pod["metadata"]["creationTimestamp"] = stamp(-61)
    return {**pod, "spec": {"volumes": volumes, **spec}}


def said_of_claim(kube: FakeKube, name: str, claim: str, reason: str, note: str, at: str) -> None:
    metadata = {"name": name, "namespace": "team-a", "creationTimestamp": at}
    regarding = {"kind": "PersistentVolumeClaim", "name": claim, "uid": f"uid-of-{claim}"}
    kube.put(EVENTS, {"metadata": metadata, "reason": reason, "regarding": regarding, "note": note, "type": "Normal"})


async def test_a_pod_of_which_the_scheduler_says_nothing_is_told_with_what_is_said_of_its_claim() -> None:
    """It waits up to ten minutes for a volume that nobody makes before it has a word for it."""
    kube = FakeKube()
    kube.put(PODS, unplaced())
    assert await why(kube) == ("Unschedulable", NO_NODE)
    said_of_claim(kube, "a", "models", "WaitForFirstConsumer", "waiting for first consumer", "2026-11-21T12:03:00Z")
    said_of_claim(kube, "b", "models", "ExternalProvisioning", PROVISIONER, "2026-11-21T12:02:00Z")
    said_of_claim(kube, "c", "another", "ProvisioningFailed", "no", "2026-11-21T12:05:00Z")
    assert await why(kube) == ("Unschedulable", f"{NO_NODE}; claim models: {PROVISIONER}")


async def test_a_pod_that_has_a_node_or_of_which_something_was_said_is_not_told_so() -> None:
    kube = FakeKube()
    kube.put(PODS, unplaced(nodeName="node-1"))
    assert await why(kube) is None
    kube.put(PODS, {**unplaced(), "status": {"phase": "Pending", "containerStatuses": [{"name": "trainer"}]}})
    asked = kube.asked("list", "pods")
    assert await why(kube) is None
    assert kube.asked("list", "pods") == asked
    unheard = unplaced()
    kube.put(PODS, {**unheard, "metadata": unheard["metadata"] | {"creationTimestamp": stamp(-60)}})
    assert await why(kube) is None
