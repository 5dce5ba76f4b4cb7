"""`finetune-operator ask`: the same for a Service of the cluster and for a provider."""

import json
from typing import Any

import openai
import pytest

from finetune_operator.__main__ import parser
from finetune_operator.ask import KEY_VARIABLE, CannotAsk, answer
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS
from tests.simulators.clock import HOUR
from tests.simulators.conftest import start
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.reconcilers.cloud import MINI, rows
from tests.unit.finetune_operator.reconcilers.fake_kube import FakeKube

__all__ = ["start"]


class Cluster(FakeKube):
    """With a Service behind the API server's proxy."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_of: list[tuple[str, ...]] = []

    async def post_to_service(self, namespace: str, name: str, port: str, path: str, body: bytes) -> bytes:
        self.asked_of.append((namespace, name, port, path))
        said = json.loads(body)["messages"][-1]["content"]
        return json.dumps({"choices": [{"message": {"content": f"you said {said}"}}]}).encode()

    def deploy(self, url: str, model: str, served: int | None = 1) -> None:
        status: dict[str, Any] = {"phase": "Ready", "endpoint": {"url": url, "model": model}}
        if served is not None:
            status["servedVersion"] = served
        self.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "mood", "namespace": "team-a"}, "status": status})


def args(*more: str) -> Any:
    return parser().parse_args(["ask", "mood", "question 3", "-n", "team-a", *more])


async def test_a_service_is_asked_through_the_api_server() -> None:
    cluster = Cluster()
    cluster.deploy("http://mood.team-a.svc/v1", "mood")
    assert await answer(cluster, args(), {}) == "you said question 3"
    assert cluster.asked_of == [("team-a", "mood", "http", "v1/chat/completions")]


async def test_a_provider_is_asked_with_ones_own_key(start: Any) -> None:
    simulator = OpenAISimulator()
    url = start(simulator) + "/v1"
    with openai.OpenAI(api_key="sk-simulated", base_url=url) as client:
        file = client.files.create(file=("train.jsonl", rows()), purpose="fine-tune").id
        job = client.fine_tuning.jobs.create(model=MINI, training_file=file)
        simulator.advance(HOUR)
        model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    cluster = Cluster()
    cluster.deploy(url, str(model))
    assert await answer(cluster, args("--max-tokens", "9"), {KEY_VARIABLE: "sk-simulated"}) == "answer 3"
    for environment, words in (({}, KEY_VARIABLE), ({KEY_VARIABLE: "sk-wrong-key"}, "is refused")):
        with pytest.raises(CannotAsk, match=words) as refused:
            await answer(cluster, args(), environment)
        assert "sk-" not in str(refused.value)


async def test_what_cannot_answer_is_said() -> None:
    cluster = Cluster()
    with pytest.raises(CannotAsk, match="is not in namespace team-a"):
        await answer(cluster, args(), {})
    cluster.deploy("http://mood.team-a.svc/v1", "mood", served=None)
    with pytest.raises(CannotAsk, match="answers not yet"):
        await answer(cluster, args(), {})


def test_without_a_command_it_is_the_operator() -> None:
    assert parser().parse_args([]).command is None
