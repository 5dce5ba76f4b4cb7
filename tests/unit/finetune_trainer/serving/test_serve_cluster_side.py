"""What the cluster sees of the server: health, metrics, a client that leaves, a full queue."""

import json
import socket
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from running_server import SERVED, running_server

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer import serve
from finetune_trainer.errors import TrainerError
from finetune_trainer.serving.app import ModelHolder
from finetune_trainer.serving.asks import QueueFullError
from tests.unit.finetune_trainer.waiting import wait_until

ENDLESS = {"model": SERVED, "prompt": "one two", "max_tokens": 480, "temperature": 0, "logit_bias": {"2": -100}}


def metric(address, name, **labels):
    for family in text_string_to_metric_families(httpx.get(f"{address}/metrics").text):
        for sample in family.samples:
            if sample.name == f"finetune_server_{name}" and sample.labels == labels:
                return sample.value
    return None


def test_health_is_503_until_there_is_a_model(served):
    room = ModelHolder()
    with running_server(room) as address:
        before = httpx.get(f"{address}/health")
        assert (before.status_code, before.json()["status"]) == (503, "unavailable")
        refused = httpx.post(f"{address}/v1/completions", json=ENDLESS)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["code"] == "model_not_ready"
        room.served = served
        assert httpx.get(f"{address}/health").json() == {"status": "ok", "model": SERVED}
        assert httpx.post(f"{address}/v1/completions", json=ENDLESS | {"max_tokens": 1}).status_code == 200


def test_metrics_count_requests_tokens_and_the_last_request(served):
    with running_server(ModelHolder(served)) as address:
        assert metric(address, "last_request_timestamp_seconds") == 0
        before = time.time()
        httpx.post(f"{address}/v1/completions", json={"model": SERVED, "prompt": [5, 6, 7], "max_tokens": 4})
        stream = httpx.post(f"{address}/v1/completions", json=ENDLESS | {"max_tokens": 2, "stream": True})
        assert stream.text.endswith("data: [DONE]\n\n")
        httpx.post(f"{address}/v1/completions", json={})
        httpx.get(f"{address}/nowhere")
        assert metric(address, "requests_total", route="/v1/completions", status="200") == 2
        assert metric(address, "requests_total", route="/v1/completions", status="400") == 1
        assert metric(address, "requests_total", route="other", status="404") == 1
        assert metric(address, "prompt_tokens_total") == 3 + 2
        assert metric(address, "completion_tokens_total") == 4 + 2
        assert metric(address, "first_token_seconds_count") == 2
        assert metric(address, "request_seconds_count", route="/v1/completions") == 3
        assert before <= metric(address, "last_request_timestamp_seconds") <= time.time()
        assert (metric(address, "queue_length"), metric(address, "running")) == (0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_generation(served, address, stream):
    body = json.dumps(ENDLESS | {"stream": stream}).encode()
    left_before = metric(address, "completion_tokens_total")
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: served.engine.running == 1)
    wait_until(lambda: served.engine.running == 0)
    wait_until(lambda: metric(address, "completion_tokens_total") is not None)
    assert metric(address, "completion_tokens_total") - left_before < ENDLESS["max_tokens"]


def test_a_full_queue_is_503_with_retry_after(served, monkeypatch):
    def refuse(_):
        raise QueueFullError(128)

    with running_server(ModelHolder(served)) as address:
        monkeypatch.setattr(served.engine, "submit", refuse)
        refused = httpx.post(f"{address}/v1/completions", json=ENDLESS)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "queue_full")
        assert error["message"] == "128 requests are waiting; try again soon."
        assert metric(address, "last_request_timestamp_seconds") == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_the_model_is_told_to_the_client(served, monkeypatch, stream):
    def fail(*_):
        raise RuntimeError("no such kernel")

    with running_server(ModelHolder(served)) as address:
        with monkeypatch.context() as broken:
            broken.setattr(served.engine._batch, "_forward", fail)
            answer = httpx.post(f"{address}/v1/completions", json=ENDLESS | {"stream": stream})
        if stream:
            error = json.loads(answer.text.removeprefix("data: "))["error"]
        else:
            assert answer.status_code == 500
            error = answer.json()["error"]
        assert error["code"] == "generation_failed"
        assert "kernel" not in error["message"]
        assert httpx.post(f"{address}/v1/completions", json=ENDLESS | {"max_tokens": 1}).status_code == 200


def test_why_a_server_ends_is_left_for_its_pods_status_where_there_is_one(tmp_path, monkeypatch, caplog):
    word = tmp_path / "termination-log"
    monkeypatch.setattr(serve, "TERMINATION_MESSAGE_PATH", str(word))
    error = TrainerError(Reason.MODEL_UNUSABLE, "adapter_model.safetensors is missing", "Run the job again.")
    assert serve._say(error) == ExitCode.MODEL_UNUSABLE
    assert not word.exists(), "no kubelet asks"
    word.touch()
    serve._say(error)
    assert word.read_text() == "ModelUnusable: adapter_model.safetensors is missing. Run the job again."
    assert "next step: Run the job again." in caplog.text
