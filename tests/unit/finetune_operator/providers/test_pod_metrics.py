"""What metrics of serving pods tell of their requests."""

from datetime import UTC, datetime

import pytest

from finetune_operator.providers.pod_metrics import is_answering, running_since, use_of

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
