"""Servers whose certificate nobody trusts: each client of the trainer says so, in one and the same words."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException

from finetune_api.evaluation import Endpoint
from finetune_api.names import REGISTRY_KEYS_VARIABLE, TRACKERS_PREFIX
from finetune_api.push import Push
from finetune_trainer.attempt import trackers
from finetune_trainer.data import Turn
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import endpoint
from finetune_trainer.models import base_fetch
from finetune_trainer.output import pushes, registry
from finetune_trainer.output.model_pack import Packed
from finetune_trainer.storage.store_errors import TRUST_STEP, UNTRUSTED
from tests.simulators import certificates
from tests.unit.finetune_trainer.jobs import make_job


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An address that answers over TLS, by an authority of its own."""
    found = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    found.handle_error = lambda *_: None  # its client goes away at the first look
    found.socket = certificates.make(tmp_path / "tls").context().wrap_socket(found.socket, server_side=True)
    threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(registry.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield f"https://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


def pushed(**where) -> str:
    (failed,) = pushes.push_all(Push.model_validate(where), Path("nothing"))
    assert failed.message
    return failed.message


def test_a_hub_of_base_models(server, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TrainerError) as raised:
        base_fetch.fetch("org/model")
    assert UNTRUSTED in raised.value.message
    assert raised.value.next_step == TRUST_STEP


def test_an_endpoint_of_an_evaluation(server):
    service = Endpoint(name="rag", url=f"{server}/v1", model="m")
    asked = [(0, (Turn("user", "x"),))]
    outcome = endpoint.ask(service, None, asked, max_tokens=1, on_answer=pytest.fail, pause=0.001)
    assert UNTRUSTED in outcome.problem


def test_a_registry(server, monkeypatch):
    monkeypatch.setattr(registry, "pack", lambda _folder: Packed(layers=[], config=b"{}", manifest=b"{}"))
    monkeypatch.setenv(REGISTRY_KEYS_VARIABLE, '{"auths": {}}')
    host = server.removeprefix("https://")
    assert UNTRUSTED in pushed(oci={"uri": f"oci://{host}/team/model:1"})


def test_a_hub_that_is_pushed_to(server):
    asked = {"repository": "team/model", "tokenSecretRef": {"name": "hub", "key": "token"}, "endpointURL": server}
    assert UNTRUSTED in pushed(huggingFace=asked)


def test_mlflow(server, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    job = make_job(tmp_path, tiny_model, trackers={"mlflow": {"trackingURI": server}})
    mlflow = trackers._MAKERS["mlflow"](job)
    with pytest.raises(MlflowException) as raised:
        mlflow.on_train_begin(SimpleNamespace(run_name="team-a/job"), trackers._state(0), None, model=None)
    assert UNTRUSTED in trackers._cause(raised.value)


def test_weights_and_biases(server, tiny_model, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv(f"{TRACKERS_PREFIX}WANDB_API_KEY", "k" * 40)
    asked = {"wandb": {"secretRef": {"name": "wandb"}, "baseURL": server}}
    job = make_job(tmp_path, tiny_model, trackers=asked).model_copy(update={"uid": "untrusted"})
    with pytest.raises(wandb.errors.CommError) as raised:
        trackers._MAKERS["wandb"](job)
    wandb.teardown()
    assert UNTRUSTED in trackers._cause(raised.value)
