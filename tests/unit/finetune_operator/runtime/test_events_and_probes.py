"""Events: once in ten minutes, never raising. Probes: what is wrong is said, metrics are readable."""

import logging
from datetime import UTC, datetime

import aiohttp
import fake_api
import pytest

from finetune_operator.runtime import events, metrics
from finetune_operator.runtime.events import Recorder
from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.probes import ProbeServer

JOB = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "sentiment-1", "namespace": "team", "uid": "u1"},
}
DONE = ("Normal", "Succeeded", "version 3 is there")


def noted(note):
    return "Normal", "Succeeded", note


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


async def test_an_event_has_the_shape_that_the_api_wants(tmp_path):
    async with fake_api.serve(tmp_path) as (api, kube):
        api.answer({"kind": "Event"}, status=201)
        await Recorder(kube, "pod").post(JOB, "Warning", "DatasetInvalid", "train.jsonl line 17")
    (seen,) = api.seen
    assert seen.path == "/apis/events.k8s.io/v1/namespaces/team/events"
    assert seen.body["regarding"] == {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "name": "sentiment-1",
        "namespace": "team",
        "uid": "u1",
    }
    assert (seen.body["type"], seen.body["reason"], seen.body["action"]) == ("Warning", "DatasetInvalid", "Reconcile")
    assert seen.body["eventTime"].endswith("Z")
    assert seen.body["reportingInstance"]
    assert seen.body["metadata"]["name"].startswith("sentiment-1.")


@pytest.mark.parametrize(
    ("second", "after", "posts"),
    [
        ((JOB, *DONE), 599, 1),
        ((JOB, *DONE), 600, 2),
        ((JOB, *noted("version 4 is there")), 1, 2),
        ((JOB, "Normal", "Activated", "version 3 is there"), 1, 2),
        ((JOB | {"metadata": JOB["metadata"] | {"uid": "u2"}}, *DONE), 1, 2),
    ],
)
async def test_the_same_event_is_posted_once_in_ten_minutes(tmp_path, second, after, posts):
    clock = Clock()
    async with fake_api.serve(tmp_path) as (api, kube):
        recorder = Recorder(kube, "pod", clock)
        api.answer({"kind": "Event"}, status=201)
        await recorder.post(JOB, *DONE)
        clock.now += after
        await recorder.post(*second)
    assert len(api.seen) == posts


async def test_two_processes_that_tell_the_same_have_one_event(tmp_path):
    """Two releases, or one before and one after a restart: the API server takes no second one of the name."""
    async with fake_api.serve(tmp_path) as (api, kube):
        api.answer({"kind": "Event"}, status=201).refuse(409, "AlreadyExists", "there is one")
        for pod in ("pod", "another"):
            await Recorder(kube, pod, Clock()).post(JOB, *DONE)
    assert len({seen.body["metadata"]["name"] for seen in api.seen}) == 1


async def test_an_event_is_dated_by_the_api_servers_clock(tmp_path, monkeypatch):
    """By its node's own, hours off, what happened would be yet to come, and another replica would tell it again."""
    monkeypatch.setattr(Kube, "now", lambda _: datetime(2026, 11, 21, 12, tzinfo=UTC))
    async with fake_api.serve(tmp_path) as (api, kube):
        api.answer({"kind": "Event"}, status=201)
        await Recorder(kube, "pod", Clock()).post(JOB, *DONE)
    assert api.seen[0].body["eventTime"] == "2026-11-21T12:00:00.000000Z"


async def test_a_failure_is_logged_not_raised_and_the_event_may_be_posted_again(tmp_path, caplog):
    async with fake_api.serve(tmp_path) as (api, kube):
        recorder = Recorder(kube, "pod", Clock())
        api.refuse(403, "Forbidden", "namespace team is being terminated").answer({"kind": "Event"}, status=201)
        await recorder.post(JOB, *DONE)
        await recorder.post(JOB, *DONE)
    assert len(api.seen) == 2
    assert "being terminated" in caplog.text


async def test_notes_are_cut_to_the_apis_limit_and_redacted(tmp_path):
    async with fake_api.serve(tmp_path) as (api, kube):
        recorder = Recorder(kube, "pod", Clock())
        api.answer({"kind": "Event"}, status=201)
        await recorder.post(JOB, *noted("api_key=abcdefgh " + "ä" * 2000))
    note = api.seen[0].body["note"]
    assert len(note.encode()) <= 1024
    assert "abcdefgh" not in note


async def test_a_note_ends_in_no_half_of_a_command(tmp_path):
    async with fake_api.serve(tmp_path) as (api, kube):
        recorder = Recorder(kube, "pod", Clock())
        api.answer({"kind": "Event"}, status=201)
        await recorder.post(JOB, *noted(f"{'a' * 900}: `jq -c '{'.[]|' * 50}' FILE > ROWS.jsonl`"))
    assert api.seen[0].body["note"] == f"{'a' * 900}:..."


async def test_events_of_cluster_scoped_objects_go_to_the_default_namespace(tmp_path):
    connection = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "LLMConnection",
        "metadata": {"name": "x" * 253, "uid": "u"},
    }
    async with fake_api.serve(tmp_path) as (api, kube):
        api.answer({"kind": "Event"}, status=201)
        await Recorder(kube, "pod", Clock()).post(connection, *DONE)
    assert api.seen[0].body["metadata"]["namespace"] == "default"
    assert len(api.seen[0].body["metadata"]["name"]) <= 253
    assert "namespace" not in api.seen[0].body["regarding"]


async def test_what_is_remembered_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "REMEMBERED", 10)
    async with fake_api.serve(tmp_path) as (api, kube):
        recorder = Recorder(kube, "pod", Clock())
        api.answer({"kind": "Event"}, status=201)
        for number in range(30):
            await recorder.post(JOB, *noted(str(number)))
    assert len(recorder._posted) == 10


async def test_what_may_be_posted_again_is_forgotten_though_there_is_room(tmp_path):
    clock = Clock()
    async with fake_api.serve(tmp_path) as (api, kube):
        recorder = Recorder(kube, "pod", clock)
        api.answer({"kind": "Event"}, status=201)
        for number in range(5):
            await recorder.post(JOB, *noted(str(number)))
        clock.now += events.REPEAT_SECONDS
        await recorder.post(JOB, *noted("last"))
    assert len(recorder._posted) == 1


async def test_a_flood_of_normal_events_is_cut_off_for_its_namespace_and_warnings_never_are(tmp_path):
    clock = Clock()
    dropped = metrics.EVENTS.labels("dropped")
    before = dropped._value.get()
    elsewhere = JOB | {"metadata": JOB["metadata"] | {"namespace": "other"}}
    async with fake_api.serve(tmp_path) as (api, kube):
        recorder = Recorder(kube, "pod", clock)
        api.answer({"kind": "Event"}, status=201)
        for number in range(events.NORMAL_AT_ONCE + 10):
            await recorder.post(JOB, *noted(str(number)))
        assert len(api.seen) == events.NORMAL_AT_ONCE
        assert dropped._value.get() == before + 10
        await recorder.post(JOB, "Warning", "OutOfMemory", "version 3 is there")
        await recorder.post(elsewhere, *DONE)
        clock.now += 1
        await recorder.post(JOB, *noted("a second later"))
    assert len(api.seen) == events.NORMAL_AT_ONCE + 3


async def probe(path, **checks):
    server = ProbeServer("127.0.0.1", 0, live=checks.get("live", {}), ready=checks.get("ready", {}))
    await server.start()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}{path}") as response:
            return response.status, await response.text()
    finally:
        await server.stop()


def broken():
    raise KeyError("queue")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize(
    ("check", "status", "text"),
    [(lambda: None, 200, "ok"), (lambda: "no event for 300 s", 503, "no event for 300 s"), (broken, 503, "KeyError")],
)
async def test_probes_say_what_is_wrong(path, check, status, text):
    checks = {"live" if path == "/healthz" else "ready": {"queue": check}}
    answered, body = await probe(path, **checks)
    assert answered == status
    assert text in body


async def test_liveness_does_not_depend_on_readiness():
    assert (await probe("/healthz", ready={"leader": lambda: "follower"}))[0] == 200


async def test_a_failing_probe_is_logged_when_it_changes_and_not_each_time(caplog):
    caplog.set_level(logging.INFO)
    wrong = ["stuck", "stuck", None, None]
    server = ProbeServer("127.0.0.1", 0, live={"queue": lambda: wrong.pop(0)}, ready={})
    await server.start()
    async with aiohttp.ClientSession() as session:
        for _ in range(4):
            async with session.get(f"http://127.0.0.1:{server.port}/healthz"):
                pass
    await server.stop()
    assert [r.getMessage() for r in caplog.records if "probes" in r.name] == [
        "not live: queue: stuck",
        "live again: queue",
    ]


async def test_metrics_are_in_the_format_that_prometheus_reads():
    status, text = await probe("/metrics")
    assert status == 200
    for name in (
        "finetune_api_requests_total",
        "finetune_queue_ready",
        "finetune_leader",
        "process_resident_memory_bytes",
    ):
        assert f"# HELP {name.removesuffix('_total')}" in text
