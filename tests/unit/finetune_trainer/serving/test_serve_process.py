"""`finetune-trainer serve` as a process: it listens at once, finishes its answers on SIGTERM, says why it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.serve import listen
from tests.cluster.ports import free_port
from tests.unit.finetune_trainer.waiting import wait_until

ROOT = Path(__file__).parents[4]


@pytest.fixture
def start(tmp_path):
    processes = []

    def run(*flags):
        port = free_port()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer_image'}:{os.environ.get('PYTHONPATH', '')}",
        }
        log = (tmp_path / "log").open("w")
        command = [sys.executable, "-m", "finetune_trainer", "serve", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen([*command, *map(str, flags)], env=environment, stderr=log, stdout=log)
        processes.append(process)
        return process, f"http://127.0.0.1:{port}", tmp_path / "log"

    yield run
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def client():
    """It keeps its connection to a server."""
    with httpx.Client(timeout=30) as one:
        yield one


@pytest.fixture
def health(client):
    def status(address):
        try:
            return client.get(f"{address}/health").status_code
        except httpx.TransportError:
            return None

    return status


def test_it_listens_while_loading_and_finishes_its_answers_on_sigterm(start, client, health, adapter, tiny_model):
    process, address, log = start("--model", adapter, "--model-cache", tiny_model, "--name", "tuned")
    seen = set()
    wait_until(lambda: seen.add(health(address)) or 200 in seen or process.poll() is not None, 180)
    assert seen >= {503, 200}
    body = {"model": "tuned", "prompt": "one", "max_tokens": 250, "logit_bias": {"2": -100}, "stream": True}
    with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: {")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in log.read_text())
        assert "Shutting down" not in log.read_text(), "a client that kept its connection may be about to use it"
        last = client.get(f"{address}/health")
        assert (last.status_code, last.headers["connection"]) == (200, "close")
        wait_until(lambda: "Shutting down" in log.read_text())
        assert health(address) is None
        events = [line for line in lines if line]
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()


def test_a_model_that_cannot_be_served_ends_the_process_with_the_reasons_code(start, adapter, tmp_path):
    (tmp_path / "empty-cache").mkdir()
    process, _, log = start("--model", adapter, "--model-cache", tmp_path / "empty-cache")
    assert process.wait(60) == 67
    said = log.read_text()
    assert "ModelNotInCache: test/tiny-llama is not in the model cache; the cache is empty" in said
    assert "next step: Put the model into the connection's model cache" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_server_answers_by_both_families_of_addresses():
    """In a cluster of IPv6 alone the kubelet's probes come by nothing else."""
    with listen(None, 0) as both:
        assert both.family == socket.AF_INET6
        assert both.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
        socket.create_connection(("127.0.0.1", both.getsockname()[1]), timeout=5).close()


def test_a_machine_without_ipv6_is_served_by_ipv4(monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen(None, 0) as only:
        assert only.family == socket.AF_INET


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(TrainerError, match=f"--host 127.0.0.1 --port {port}: Address already in use") as raised:
            listen("127.0.0.1", port)
        with pytest.raises(TrainerError, match=f"^--port {port}: Address already in use"):
            listen(None, port)
    assert raised.value.exit_code == 78
    with pytest.raises(TrainerError, match=r"--host 192\.0\.2\.1 "):  # an address of no machine
        listen("192.0.2.1", 0)
