"""The port, the Lease and the Secret of the certificates against a real API server."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_api.names import TOKEN_AUDIENCE
from finetune_operator.runtime.certificates import OwnAuthority
from finetune_operator.runtime.errors import Conflict, Invalid, NotFound
from finetune_operator.runtime.events import Recorder
from finetune_operator.runtime.kube import (
    EVENTS,
    FINE_TUNE_JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
    Kube,
    Resource,
)
from finetune_operator.runtime.settings import Settings
from tests.contract.conftest import ROOT
from tests.contract.manifests import JOB

pytestmark = pytest.mark.cluster

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
CONTENDER = Path(__file__).with_name("lease_contender.py")


@pytest.fixture(scope="module")
def cluster(server):
    yield server.cluster
    server.kubectl("delete", "ftj", "--all")  # other modules look at all that are there


@pytest.fixture
async def kube(cluster):
    async with Kube.connect(Settings(kubeconfig=cluster.kubeconfig)) as client:
        yield client


async def until(ask, good):
    """Asks the API server again until the answer is good; for what nothing can be awaited for."""
    while not good(await ask()):  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def config_map(name, data=None, **metadata):
    return {"metadata": {"name": name, "namespace": "default"} | metadata, "data": data or {}}


async def test_apply_makes_changes_and_removes_what_is_no_longer_wanted(kube):
    made = await kube.apply(CONFIG_MAPS, config_map("applied", {"a": "1", "b": "2"}))
    changed = await kube.apply(CONFIG_MAPS, config_map("applied", {"a": "3"}))
    same = await kube.apply(CONFIG_MAPS, config_map("applied", {"a": "3"}))
    assert changed["data"] == {"a": "3"}
    assert made["metadata"]["uid"] == changed["metadata"]["uid"]
    assert same["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"], "no change, no write"


async def test_apply_leaves_fields_of_others_alone_and_takes_over_its_own(cluster, kube):
    await kube.apply(CONFIG_MAPS, config_map("shared", {"ours": "1"}))
    cluster.kubectl("patch", "configmap", "shared", "--type=merge", "--patch", '{"data":{"ours":"2","theirs":"3"}}')
    assert (await kube.apply(CONFIG_MAPS, config_map("shared", {"ours": "1"})))["data"] == {"ours": "1", "theirs": "3"}


async def test_a_misspelled_field_is_refused_and_named(kube):
    service = {
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"ports": [{"port": 80}], "selektor": {"a": "b"}},
    }
    with pytest.raises(Invalid, match="selektor"):
        await kube.apply(SERVICES, service)
    with pytest.raises(Invalid, match="selektor"):
        await kube.create(SERVICES, service)


async def test_a_successor_of_the_same_name_is_not_applied_onto_when_the_uid_is_given(kube):
    await kube.apply(CONFIG_MAPS, config_map("mine", {"a": "1"}))
    with pytest.raises(Invalid, match=r"metadata\.uid"):
        await kube.apply(CONFIG_MAPS, config_map("mine", {"a": "2"}, uid="00000000-0000-0000-0000-000000000000"))


async def test_a_status_is_replaced_whole_and_only_onto_the_version_that_was_read(kube):
    job = await kube.create(FINE_TUNE_JOBS, JOB | {"metadata": {"name": "a", "namespace": "default"}})
    first = await kube.patch_status(
        FINE_TUNE_JOBS,
        "a",
        "default",
        {"phase": "Running", "observedGeneration": 1},
        job["metadata"]["resourceVersion"],
    )
    assert first["status"] == {"phase": "Running", "observedGeneration": 1}
    second = await kube.patch_status(FINE_TUNE_JOBS, "a", "default", {"phase": "Failed"})
    assert second["status"] == {"phase": "Failed"}, "what is not in the status any more has to be gone"
    again = await kube.patch_status(FINE_TUNE_JOBS, "a", "default", {"phase": "Failed"})
    assert again["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"], "no change, no write"
    with pytest.raises(Conflict):
        await kube.patch_status(
            FINE_TUNE_JOBS, "a", "default", {"phase": "Succeeded"}, first["metadata"]["resourceVersion"]
        )
    assert (await kube.get(FINE_TUNE_JOBS, "a", "default"))["status"] == {"phase": "Failed"}
    with pytest.raises(Invalid, match="phase"):
        await kube.patch_status(FINE_TUNE_JOBS, "a", "default", {"phase": "Dreaming"})
    with pytest.raises(Invalid) as unknown:
        await kube.patch_status(FINE_TUNE_JOBS, "a", "default", {"phase": "Failed", "mood": "good"})
    assert unknown.value.message == 'strict decoding error: unknown field "status.mood"', "the object is not repeated"
    with pytest.raises(NotFound):
        await kube.patch_status(FINE_TUNE_JOBS, "nobody", "default", {"phase": "Failed"})
    assert second["metadata"]["generation"] == job["metadata"]["generation"]


async def test_merge_patch_with_an_old_version_is_a_conflict(kube):
    made = await kube.apply(CONFIG_MAPS, config_map("merged", {"a": "1", "b": "1"}))
    version = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    changed = await kube.merge_patch(CONFIG_MAPS, "merged", "default", version | {"data": {"a": None}})
    assert changed["data"] == {"b": "1"}
    with pytest.raises(Conflict):
        await kube.merge_patch(CONFIG_MAPS, "merged", "default", version | {"data": {"b": "2"}})


async def test_delete_by_uid_spares_a_successor_of_the_same_name(kube):
    old = await kube.apply(CONFIG_MAPS, config_map("reborn"))
    assert await kube.delete(CONFIG_MAPS, "reborn", "default", uid=old["metadata"]["uid"])
    assert not await kube.delete(CONFIG_MAPS, "reborn", "default", uid=old["metadata"]["uid"])
    new = await kube.apply(CONFIG_MAPS, config_map("reborn"))
    assert not await kube.delete(CONFIG_MAPS, "reborn", "default", uid=old["metadata"]["uid"])
    assert (await kube.get(CONFIG_MAPS, "reborn", "default"))["metadata"]["uid"] == new["metadata"]["uid"]


async def test_a_list_of_several_pages_is_whole(kube, monkeypatch):
    monkeypatch.setattr("finetune_operator.runtime.kube.PAGE_SIZE", 3)
    for number in range(8):
        await kube.apply(CONFIG_MAPS, config_map(f"page-{number}", labels={"pages": "yes"}))
    found = await kube.list(CONFIG_MAPS, "default", "pages=yes")
    assert [item["metadata"]["name"] for item in found] == [f"page-{number}" for number in range(8)]
    assert all(item["kind"] == "ConfigMap" for item in found)
    assert len(await kube.list(CONFIG_MAPS, label_selector="pages=yes")) == 8
    assert {item["metadata"]["name"] for item in await kube.list(NAMESPACES)} >= {"default", "kube-system"}


async def test_creating_what_is_there_is_a_conflict(kube):
    await kube.create(CONFIG_MAPS, config_map("once"))
    with pytest.raises(Conflict, match="already exists"):
        await kube.create(CONFIG_MAPS, config_map("once"))


async def test_the_log_of_a_pod_that_is_not_there_is_empty(kube):
    assert await kube.pod_log_tail("default", "nobody", "trainer", 10, 1000) == ""


@pytest.fixture(scope="module")
def pods_token(cluster):
    """Of the pod trainer-0, for reports."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainer", "namespace": "default"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "trainer-0", "namespace": "default"},
        "spec": {"serviceAccountName": "trainer", "containers": [{"name": "trainer", "image": "example/trainer:1"}]},
    }
    cluster.apply(account, pod)
    bound = ("--bound-object-kind=Pod", "--bound-object-name=trainer-0")
    return cluster.kubectl("create", "token", "trainer", f"--audience={TOKEN_AUDIENCE}", *bound).strip()


async def test_a_pods_token_is_recognised_for_its_audience_alone(cluster, kube, pods_token):
    identity = await kube.review_token(pods_token, TOKEN_AUDIENCE)
    assert identity is not None
    assert (identity.namespace, identity.service_account) == ("default", "trainer")
    uid = (await kube.get(PODS, "trainer-0", "default"))["metadata"]["uid"]
    assert (identity.pod_name, identity.pod_uid) == ("trainer-0", uid)
    assert await kube.review_token(pods_token, "somebody-else") is None
    general = cluster.kubectl("create", "token", "trainer").strip()
    assert await kube.review_token(general, TOKEN_AUDIENCE) is None, "a token for the API server is not a report token"
    assert await kube.review_token(pods_token[:-6] + "AAAAAA", TOKEN_AUDIENCE) is None
    await kube.delete(PODS, "trainer-0", "default")  # the last test of this file asks again


async def test_an_event_is_posted_about_a_job(kube):
    job = await kube.create(FINE_TUNE_JOBS, JOB | {"metadata": {"name": "told", "namespace": "default"}})
    await Recorder(kube, "pod").post(job, "Warning", "DatasetInvalid", "train.jsonl line 17: completion is empty")
    (event,) = [e for e in await kube.list(EVENTS, "default") if e["regarding"]["name"] == "told"]
    assert (event["reason"], event["type"], event["regarding"]["uid"]) == (
        "DatasetInvalid",
        "Warning",
        job["metadata"]["uid"],
    )


async def test_an_event_about_a_cluster_scoped_object_is_taken(kube):
    namespace = {"apiVersion": "v1", "kind": "Namespace"} | await kube.get(NAMESPACES, "kube-public")
    await Recorder(kube, "pod").post(namespace, "Normal", "Checked", "as a connection would be")
    assert [e for e in await kube.list(EVENTS, "default") if e["regarding"]["name"] == "kube-public"]


async def test_replicas_that_start_together_agree_on_one_certificate_authority(kube):
    def replica():
        return OwnAuthority(kube, "default", "own-tls", ("localhost",), lambda: datetime.now(UTC))

    found = await asyncio.gather(*(replica().current() for _ in range(4)))
    assert len(set(found)) == 1
    secret = await kube.get(SECRETS, "own-tls", "default")
    assert set(secret["data"]) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    await kube.merge_patch(SECRETS, "own-tls", "default", {"data": {"tls.crt": "eA==", "left-over": "eA=="}})
    assert (await replica().current())[0] != found[0][0]
    secret = await kube.get(SECRETS, "own-tls", "default")
    assert set(secret["data"]) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}


class Contender:
    """A process that competes for the Lease `name`."""

    def __init__(self, process):
        self.process = process

    async def says(self, word, seconds=60.0):
        async with asyncio.timeout(seconds):
            line = (await self.process.stdout.readline()).decode().strip()
        assert line == word

    def send(self, number):
        self.process.send_signal(number)


@asynccontextmanager
async def contender(cluster, name, identity):
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CONTENDER), str(cluster.kubeconfig), name, identity,
        stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT / "operator")},
    )  # fmt: skip
    try:
        yield Contender(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def turns(kube):
    return int(((await kube.get(CONFIG_MAPS, "turns", "default")).get("data") or {}).get("a", 0))


@pytest.fixture
async def no_turns(kube):
    await kube.delete(CONFIG_MAPS, "turns", "default")
    await kube.create(CONFIG_MAPS, config_map("turns"))


async def test_a_killed_leader_is_replaced_when_its_lease_has_ended(cluster, kube, no_turns):  # noqa: ARG001
    async with contender(cluster, "killed", "a") as first:
        await first.says("leads")
        async with contender(cluster, "killed", "b") as second:
            first.send(signal.SIGKILL)
            await second.says("leads")
            lease = (await kube.get(LEASES, "killed", "default"))["spec"]
            assert (lease["holderIdentity"], lease["leaseTransitions"], lease["leaseDurationSeconds"]) == ("b", 1, 5)


async def test_a_leader_that_ends_cleanly_is_replaced_before_its_lease_would_have_ended(cluster, kube, no_turns):  # noqa: ARG001
    async with contender(cluster, "released", "a") as first:
        await first.says("leads")
        first.send(signal.SIGTERM)
        await first.says("released")
        lease = (await kube.get(LEASES, "released", "default"))["spec"]
        assert lease["holderIdentity"] == ""
        async with contender(cluster, "released", "b") as second:
            await second.says("leads")


async def test_a_frozen_leader_writes_nothing_after_it_wakes(cluster, kube, no_turns):  # noqa: ARG001
    async with contender(cluster, "frozen", "a") as first:
        await first.says("leads")
        async with asyncio.timeout(60):
            await until(lambda: turns(kube), lambda written: written >= 3)
        first.send(signal.SIGSTOP)
        async with contender(cluster, "frozen", "b") as second:
            await second.says("leads")
            before = await turns(kube)
            first.send(signal.SIGCONT)
            await first.says("lost")
            assert await first.process.wait() == 0
            assert await turns(kube) == before
            assert (await kube.get(LEASES, "frozen", "default"))["spec"]["holderIdentity"] == "b"


async def test_a_leader_that_is_busy_for_longer_than_its_lease_keeps_it(cluster, kube, no_turns):  # noqa: ARG001
    async with contender(cluster, "busy", "a") as first:
        await first.says("leads")
        async with contender(cluster, "busy", "b"):
            first.send(signal.SIGUSR1)
            await first.says("idle")
            before = await turns(kube)
            async with asyncio.timeout(60):
                await until(lambda: turns(kube), lambda written: written > before)
            lease = (await kube.get(LEASES, "busy", "default"))["spec"]
            assert (lease["holderIdentity"], lease["leaseTransitions"]) == ("a", 0)


async def test_a_token_ends_with_its_pod(kube, pods_token):
    """Last: the API server itself remembers a good token for 10 s, in which other tests do their work."""
    await kube.delete(PODS, "trainer-0", "default")
    async with asyncio.timeout(60):
        await until(lambda: kube.review_token(pods_token, TOKEN_AUDIENCE), lambda identity: identity is None)
