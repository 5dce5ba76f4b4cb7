"""What SageMaker asks of a serving container: /ping, /invocations, and a command without flags."""

import httpx
import pytest
from running_server import SERVED, running_server

from finetune_api.names import SERVE_FLAGS_VARIABLE
from finetune_trainer.__main__ import with_flags
from finetune_trainer.errors import TrainerError
from finetune_trainer.serving.app import ModelHolder
from finetune_trainer.serving.artifact import open_artifact, unpacked

QUESTION = {"model": SERVED, "max_tokens": 4, "temperature": 0, "messages": [{"role": "user", "content": "red?"}]}


@pytest.fixture(scope="module")
def container(served):
    with (
        running_server(ModelHolder(served), sagemaker=True) as address,
        httpx.Client(base_url=address, timeout=30) as client,
    ):
        yield client


def test_ping_says_whether_the_model_answers(container):
    assert container.get("/ping").status_code == 200
    with running_server(ModelHolder(), sagemaker=True) as loading:
        assert httpx.get(f"{loading}/ping").status_code == 503


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/chat/completions", QUESTION),
        ("/v1/completions", {"model": SERVED, "max_tokens": 4, "temperature": 0, "prompt": "red?"}),
    ],
)
def test_invocations_answers_as_the_route_that_the_body_is_of(container, route, body):
    invoked, asked = container.post("/invocations", json=body).json(), container.post(route, json=body).json()
    assert (invoked["object"], invoked["choices"]) == (asked["object"], asked["choices"])
    assert invoked["choices"]


def test_invocations_refuses_as_any_route_does(container):
    assert container.post("/invocations", content=b"{").json()["error"]["type"] == "invalid_request_error"
    assert container.post("/invocations", json=QUESTION | {"model": "other"}).status_code == 404


def test_a_server_of_the_cluster_does_not_have_these_routes(address):
    assert httpx.get(f"{address}/ping").status_code == 404


def test_flags_come_by_a_variable_where_the_command_is_serve_alone():
    environment = {SERVE_FLAGS_VARIABLE: "--model /opt/ml/model --name 'my model' --port 8080"}
    assert with_flags(["serve"], environment)[1:] == [
        "--model", "/opt/ml/model", "--name", "my model", "--port", "8080",
    ]  # fmt: skip
    assert with_flags(["serve", "--model", "here"], environment) == ["serve", "--model", "here"]
    assert with_flags(["check"], environment) == ["check"]


def test_an_adapters_base_may_be_given_by_its_folder(tiny_model, adapter, tmp_path):
    base = tiny_model / "test/tiny-llama"
    assert open_artifact(adapter, None, base=base).base == base
    with pytest.raises(TrainerError, match=r"has no config\.json"):
        open_artifact(adapter, None, base=tmp_path)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["model/adapter_config.json", "report.json"], "model"),
        (["config.json", "model/vocab.txt"], "."),
        (["adapter_config.json"], "."),
        (["report.json"], "."),
    ],
)
def test_an_archive_of_a_training_job_may_hold_the_model_one_folder_deeper(tmp_path, files, found):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert unpacked(tmp_path) == tmp_path / found
