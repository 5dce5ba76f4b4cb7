"""`finetune-operator ask`: the same for a Service of the cluster and for a provider."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from finetune_api import RELEASE
from finetune_operator import ask
from finetune_operator.__main__ import main, parser
from finetune_operator.ask import KEY_VARIABLE, CannotAsk, answer
from finetune_operator.command_line import print_result
from finetune_operator.runtime.errors import error_for
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS
from finetune_operator.runtime.service_account import namespace_in
from tests.simulators.bedrock import BedrockSimulator
from tests.simulators.clock import HOUR
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.reconcilers.bedrock import NOVA, ROLE, bedrock, client, conversations
from tests.unit.finetune_operator.reconcilers.cloud import MINI, rows
from tests.unit.finetune_operator.reconcilers.fake_kube import FakeKube
from tests.unit.finetune_operator.reconcilers.sagemaker import sagemaker

__all__ = ["s3_endpoint", "start"]


class Cluster(FakeKube):
    """With a Service behind the API server's proxy."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_of: list[tuple[str, ...]] = []
        self.bodies: list[dict[str, Any]] = []

    async def post_to_service(self, namespace: str, name: str, port: str, path: str, body: bytes) -> bytes:
        self.asked_of.append((namespace, name, port, path))
        self.bodies.append(json.loads(body))
        said = self.bodies[-1]["messages"][-1]["content"]
        return json.dumps({"choices": [{"message": {"content": f"you said {said}"}}]}).encode()

    def deploy(self, url: str, model: str, served: int | None = 1, conditions: Any = (), **more: str) -> None:
        endpoint = {"url": url, "model": model, **more}
        status: dict[str, Any] = {"phase": "Ready", "endpoint": endpoint, "conditions": list(conditions)}
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


@pytest.mark.parametrize("reply", [b"<html>sign in</html>", b'{"choices": []}', b"[]", b'{"detail": "no"}'])
async def test_an_answer_of_another_shape_is_said_in_a_sentence(reply: bytes) -> None:
    class Proxied(Cluster):
        async def post_to_service(self, *_: Any) -> bytes:
            return reply

    cluster = Proxied()
    cluster.deploy("http://mood.team-a.svc/v1", "mood")
    with pytest.raises(CannotAsk, match="something else than a model's words"):
        await answer(cluster, args(), {})


async def test_a_page_at_a_providers_address_is_said_in_a_sentence(start: Any) -> None:
    simulator = OpenAISimulator()
    simulator.fault("chat.completions.create", outcome="page")
    cluster = Cluster()
    cluster.deploy(f"{start(simulator)}/v1", MINI)
    with pytest.raises(CannotAsk, match="something else than a model's words"):
        await answer(cluster, args(), {KEY_VARIABLE: "sk-simulated"})


async def test_length_and_temperature_are_the_askers_and_else_the_models() -> None:
    cluster = Cluster()
    cluster.deploy("http://mood.team-a.svc/v1", "mood")
    for flags in ((), ("--max-tokens", "3", "--temperature", "0")):
        await answer(cluster, args(*flags), {})
    limits = [{name: body.get(name) for name in ("max_tokens", "temperature")} for body in cluster.bodies]
    assert limits == [{"max_tokens": None, "temperature": None}, {"max_tokens": 3, "temperature": 0.0}]


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


async def test_a_provider_that_is_a_service_of_the_cluster_is_asked_as_a_provider() -> None:
    cluster = Cluster()
    cluster.deploy("https://gateway.llm.svc/v1", MINI)
    with pytest.raises(CannotAsk, match=KEY_VARIABLE):
        await answer(cluster, args(), {})
    assert cluster.asked_of == []


async def test_bedrock_is_asked_by_converse_with_ones_own_credentials(
    start: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = bedrock(s3_endpoint)
    url = start(simulator)
    cluster = Cluster()
    cluster.deploy(url, served_by(simulator, url, s3_endpoint), api="Converse")
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(CannotAsk, match="AWS_PROFILE"):
        await answer(cluster, args(), {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASIMULATED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "simulated-secret")
    assert await answer(cluster, args("--temperature", "0", "--system", "Be brief."), {}) == "answer 3"
    simulator.set(denied=["Converse"])
    with pytest.raises(CannotAsk, match="AccessDeniedException"):
        await answer(cluster, args(), {})


async def test_sagemaker_is_asked_by_invoke_endpoint_with_ones_own_credentials(
    start: Any, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = sagemaker(s3_endpoint)
    hosting, variant = simulator.hosting, {"VariantName": "a", "ModelName": "mood", "InstanceType": "ml.m5.large"}
    hosting.create_model({"ModelName": "mood"})
    hosting.create_config({"EndpointConfigName": "mood", "ProductionVariants": [variant]})
    hosting.create_endpoint({"EndpointName": "mood", "EndpointConfigName": "mood"})
    simulator.advance(HOUR)
    cluster = Cluster()
    cluster.deploy(start(simulator), "mood", api="InvokeEndpoint")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASIMULATED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "simulated-secret")
    with pytest.raises(CannotAsk, match="set AWS_REGION"):
        await answer(cluster, args(), {})
    region = {"AWS_REGION": "us-east-1"}
    assert await answer(cluster, args("--max-tokens", "9"), region) == "question 3"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert await answer(cluster, args(), {}) == "question 3"
    cluster.deploy(cluster.objects[MODEL_DEPLOYMENTS, "team-a", "mood"]["status"]["endpoint"]["url"], "gone",
                   api="InvokeEndpoint")  # fmt: skip
    with pytest.raises(CannotAsk, match="not found"):
        await answer(cluster, args(), {})


def served_by(simulator: BedrockSimulator, url: str, s3_endpoint: str) -> str:
    """The ARN of a deployment."""
    client("s3", s3_endpoint).create_bucket(Bucket="asked")
    client("s3", s3_endpoint).put_object(Bucket="asked", Key="train.jsonl", Body=conversations())
    control = client("bedrock", url)
    control.create_model_customization_job(
        jobName="mood",
        customModelName="mood",
        roleArn=ROLE,
        baseModelIdentifier=NOVA,
        trainingDataConfig={"s3Uri": "s3://asked/train.jsonl"},
        outputDataConfig={"s3Uri": "s3://asked/out"},
    )
    simulator.advance(HOUR)
    model = control.get_model_customization_job(jobIdentifier="mood")["outputModelArn"]
    made = control.create_custom_model_deployment(modelDeploymentName="mood", modelArn=model)
    simulator.advance(HOUR)
    return str(made["customModelDeploymentArn"])


async def test_what_cannot_answer_is_said() -> None:
    cluster = Cluster()
    with pytest.raises(CannotAsk, match="is not in namespace team-a"):
        await answer(cluster, args(), {})
    cluster.deploy("http://mood.team-a.svc/v1", "mood", served=None)
    with pytest.raises(CannotAsk, match="does not answer yet"):
        await answer(cluster, args(), {})
    why: Any = [{"type": "Stalled", "message": "x"}, {"type": "Ready", "message": "mood has no version 7"}]
    cluster.deploy("http://mood.team-a.svc/v1", "mood", served=None, conditions=why)
    with pytest.raises(CannotAsk, match=r"does not answer yet \(phase Ready: mood has no version 7\)"):
        await answer(cluster, args(), {})


@pytest.mark.parametrize(
    "wrong",
    [
        ["ask", "m/d", "q"],
        ["ask", "m", "q", "-n", "team a"],
        ["ask", "m", "q", "--max-tokens", "0"],
        *(["ask", "m", "q", "--temperature", value] for value in ("hot", "2.1", "-1", "nan")),
    ],
)
def test_a_wrong_flag_ends_with_what_to_write(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(wrong)
    assert ended.value.code == 2
    assert "not " in capsys.readouterr().err


def test_an_answer_that_cannot_be_written_is_said_and_a_reader_that_has_left_has_had_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert print_result("a") == "standard output could not be written: No space left on device"
    monkeypatch.setattr("sys.stdout", None)
    assert print_result("a") == "standard output is closed"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="ascii") as left:
        monkeypatch.setattr("sys.stdout", left)
        assert print_result("\N{HEDGEHOG}") is None


async def test_a_server_with_a_key_says_how_to_ask_it() -> None:
    cluster = Cluster()
    cluster.deploy("http://mood.team-a.svc/v1", "mood")
    cluster.objects[MODEL_DEPLOYMENTS, "team-a", "mood"]["spec"] = {"apiKeySecretRef": {"name": "key", "key": "k"}}
    with pytest.raises(CannotAsk, match="port-forward svc/mood 8000:80"):
        await answer(cluster, args(), {})


async def test_what_sleeps_says_how_it_wakes() -> None:
    cluster = Cluster()
    asleep = {"since": "2026-11-01T00:00:00Z", "generation": 1}
    metadata = {"name": "mood", "namespace": "team-a"}
    cluster.put(MODEL_DEPLOYMENTS, {"metadata": metadata, "status": {"phase": "Idle", "asleep": asleep}})
    with pytest.raises(CannotAsk, match=r"annotate md mood --overwrite finetune\.dev/wake="):
        await answer(cluster, args(), {})


@pytest.mark.parametrize(("mounted", "expected"), [("team-a\n", "team-a"), (None, "default")])
def test_in_a_pod_the_namespace_is_the_pods_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: str | None, expected: str
) -> None:
    if mounted is not None:
        (tmp_path / "namespace").write_text(mounted)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(ask, "namespace_in", lambda _: namespace_in(tmp_path))
    assert ask._current_namespace() == expected


def test_without_a_command_it_is_the_operator() -> None:
    assert parser().parse_args([]).command is None


@pytest.mark.parametrize(("context", "expected"), [({"namespace": "team-a"}, "team-a"), ({}, "default")])
async def test_the_namespace_is_that_of_the_current_context_unless_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: dict[str, str], expected: str
) -> None:
    asked: list[str] = []

    @asynccontextmanager
    async def connect(_: Any) -> AsyncIterator[Cluster]:
        yield Cluster()

    async def note(_: Any, args: Any, __: Any) -> str:
        asked.append(args.namespace)
        return "answer"

    there = {"cluster": "c", "user": "u", **context}
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": "https://c.example.com"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": there}],
        "current-context": "here",
    }
    (tmp_path / "config").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **kubeconfig}))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(ask.Kube, "connect", connect)
    monkeypatch.setattr(ask, "answer", note)
    assert await ask.main(parser().parse_args(["ask", "mood", "q"]), {}) == ask.OK
    assert await ask.main(parser().parse_args(["ask", "mood", "q", "-n", "team-b"]), {}) == ask.OK
    assert asked == [expected, "team-b"]


async def test_an_api_server_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(_: Any) -> Any:
        raise error_for(0, "Unreachable", "cannot connect to c.example.com")

    monkeypatch.setattr(ask.Kube, "connect", connect)
    assert await ask.main(args(), {}) == ask.FAILED
    assert capsys.readouterr().err == "the API server does not answer: cannot connect to c.example.com\n"


async def test_without_a_kubeconfig_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none"
    monkeypatch.setenv("KUBECONFIG", str(missing))
    assert await ask.main(parser().parse_args(["ask", "mood", "q"]), {}) == ask.FAILED
    said = capsys.readouterr()
    assert said.err == f"no credentials for a cluster: {missing} is not there; KUBECONFIG names another file\n"
    assert said.out == ""


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_not_asked(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["ask", "mood", question])
    assert (ended.value.code, "QUESTION: it is empty" in capsys.readouterr().err) == (2, True)


def test_who_interrupts_it_reads_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(asking: Any) -> int:
        asking.close()
        raise KeyboardInterrupt  # as asyncio.run does after Ctrl-C

    monkeypatch.setattr(asyncio, "run", interrupted)
    assert main(["ask", "mood", "q"]) == ask.INTERRUPTED
    assert capsys.readouterr().err == ""


WAITS_FOR_AWS = """
import contextlib, signal, sys, time
from finetune_operator import ask
from finetune_operator.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without

class Cluster:
    async def get(self, *names):
        return {"status": {"servedVersion": 1, "endpoint": {"url": "https://a", "model": "m", "api": "Converse"}}}

@contextlib.asynccontextmanager
async def connect(settings):
    yield Cluster()

def converse(endpoint, args):
    print("asked", flush=True)
    time.sleep(60)

ask.Kube.connect, ask._converse = connect, converse
sys.exit(main(["ask", "mood", "q", "-n", "team-a"]))
"""


def test_who_interrupts_an_answer_of_aws_does_not_wait_for_it() -> None:
    asking = subprocess.Popen(
        [sys.executable, "-c", WAITS_FOR_AWS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with asking:
        assert asking.stdout is not None
        try:
            assert asking.stdout.readline() == "asked\n"
            asking.send_signal(signal.SIGINT)
            _, said = asking.communicate(timeout=30)
        finally:
            asking.kill()
    assert (asking.returncode, said) == (ask.INTERRUPTED, "")


def test_help_says_what_the_command_does_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert "usage: finetune-operator [-h] [--version] [COMMAND] ..." in said
    assert "Without a command this starts the operator" in said


def test_the_release_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--version"])
    assert capsys.readouterr().out == f"finetune-operator {RELEASE}\n"
