"""What metrics of serving pods tell of their requests."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from finetune_operator.providers.hugging_face import pod_metrics
from finetune_operator.providers.hugging_face.pod_metrics import PodMetrics, Unread, is_answering, running_since, use_of

STARTED = datetime(2026, 11, 1, tzinfo=UTC)
LAST = datetime(2026, 11, 2, tzinfo=UTC)

OURS = """
# TYPE finetune_server_last_request_timestamp_seconds gauge
finetune_server_last_request_timestamp_seconds {last}
# TYPE finetune_server_running gauge
finetune_server_running {running}
# TYPE finetune_server_queue_length gauge
finetune_server_queue_length {waiting}
"""
VLLM = """
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="sentiment"} 0.0
vllm:num_requests_running{engine="1",model_name="sentiment"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="sentiment"} 0.0
# TYPE vllm:request_success counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="sentiment"} 4.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="sentiment"} 1.0
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="sentiment"} 100.0
vllm:request_success_created{engine="0",finished_reason="abort",model_name="sentiment"} 1.7e+09
"""


def test_this_projects_server_tells_the_time() -> None:
    use = use_of(OURS.format(last=LAST.timestamp(), running=0, waiting=0), STARTED)
    assert (use.last, use.busy, use.counted) == (LAST, False, None)
    assert use_of(OURS.format(last=0, running=0, waiting=0), STARTED).last is None
    assert use_of(OURS.format(last=0, running=1, waiting=0), STARTED).busy
    assert use_of(OURS.format(last=0, running=0, waiting=2), STARTED).busy


def test_times_are_told_by_the_clock_of_who_asks() -> None:
    use = use_of(OURS.format(last=LAST.timestamp(), running=0, waiting=0), STARTED, ahead=timedelta(hours=2))
    assert (use.started, use.last) == (STARTED - timedelta(hours=2), LAST - timedelta(hours=2))


def test_vllm_counts() -> None:
    use = use_of(VLLM, STARTED)
    assert (use.last, use.busy, use.counted) == (None, True, 105)


@pytest.mark.parametrize("text", ["", "up 1\n", "<html>"])
def test_what_is_neither_tells_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        use_of(text, STARTED)


def test_a_pod_answers_when_it_is_ready_and_stays() -> None:
    ready = {"metadata": {}, "status": {"containerStatuses": [{"name": "server", "ready": True}]}}
    assert is_answering(ready)
    assert not is_answering({**ready, "metadata": {"deletionTimestamp": "2026-11-01T00:00:00Z"}})
    assert not is_answering({"metadata": {}, "status": {}})


def test_a_server_runs_since_its_container_does() -> None:
    running = {"name": "server", "state": {"running": {"startedAt": "2026-11-01T00:00:00Z"}}}
    assert running_since({"status": {"containerStatuses": [{"name": "other"}, running]}}) == STARTED
    assert running_since({"status": {"containerStatuses": [{"name": "server", "state": {"waiting": {}}}]}}) is None


POD = {
    "metadata": {"name": "server-1"},
    "status": {
        "podIP": "127.0.0.1",
        "containerStatuses": [{"name": "server", "state": {"running": {"startedAt": "2026-11-01T00:00:00Z"}}}],
    },
}


@pytest.fixture
async def in_pieces() -> AsyncIterator[PodMetrics]:
    """A server whose metrics come in two pieces, as long ones do."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (VLLM[:120], VLLM[120:]):
            await response.write(piece.encode())
            await asyncio.sleep(0.02)
        return response

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield PodMetrics(lambda: datetime.now(UTC), runner.addresses[0][1])
    await runner.cleanup()


async def test_metrics_are_read_to_their_end(in_pieces: PodMetrics) -> None:
    assert (await in_pieces.read(POD)).counted == 105


@pytest.mark.parametrize("endless", [VLLM.replace("100.0", "+Inf"), OURS.format(last="+Inf", running=0, waiting=0)])
async def test_a_figure_without_bounds_is_not_believed(
    in_pieces: PodMetrics, monkeypatch: pytest.MonkeyPatch, endless: str
) -> None:
    monkeypatch.setitem(globals(), "VLLM", endless)
    with pytest.raises(Unread):
        await in_pieces.read(POD)


async def test_metrics_without_an_end_are_given_up(in_pieces: PodMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_metrics, "MOST_BYTES", 130)
    with pytest.raises(Unread):
        await in_pieces.read(POD)
