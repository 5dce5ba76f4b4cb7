"""From a FineTuneJob to an answer at a simulated SageMaker: the real trainer and the real server in its containers."""

import argparse
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobSpec
from finetune_api.names import SERVE_FLAGS_VARIABLE
from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from finetune_trainer import sagemaker
from finetune_trainer.__main__ import parser
from finetune_trainer.data.provider.rules import rules_for
from finetune_trainer.data.verdict import check_dataset
from finetune_trainer.prepare import convert_all
from finetune_trainer.serving.app import ModelHolder, build_app
from finetune_trainer.serving.artifact import open_artifact
from tests.simulators.aws.s3 import place
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers import sagemaker as given
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_trainer.jobs import COLOURS, make_job

__all__ = ["s3_endpoint", "start"]

CACHE = "s3://models/cache"


class Instance:
    """What SageMaker does around a container: copies in, runs it, copies out."""

    def __init__(self, objects: given.Objects, root: Path) -> None:
        self.objects = objects
        self.root = root

    def download(self, uri: str, folder: Path) -> None:
        """All objects whose keys begin so; one whose key it is by its last name."""
        bucket, prefix = place(uri)
        folder.mkdir(parents=True, exist_ok=True)
        for one in self.objects.s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []):
            path = folder / (one["Key"].removeprefix(prefix) if prefix.endswith("/") else Path(one["Key"]).name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.objects.get(f"s3://{bucket}/{one['Key']}"))

    def upload(self, folder: Path, uri: str) -> None:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            self.objects.put(f"{uri}{path.relative_to(folder).as_posix()}", path.read_bytes())

    def train(self, request: dict[str, Any]) -> None:
        """A training job's container."""
        shutil.rmtree(self.root, ignore_errors=True)
        for channel, uri in given.channels(request).items():
            self.download(uri, self.root / "input" / "data" / channel)
        self.download(request["CheckpointConfig"]["S3Uri"], self.root / "checkpoints")
        for name in ("model", "output"):
            (self.root / name).mkdir()
        [command, *more] = request["AlgorithmSpecification"]["ContainerArguments"]
        assert (command, more) == ("sagemaker", [])
        code = sagemaker.main(argparse.Namespace(root=self.root))
        self.upload(self.root / "checkpoints", request["CheckpointConfig"]["S3Uri"])
        if code != ExitCode.OK:
            raise given.ContainerFailed((self.root / "output" / "failure").read_text(), code)
        output = request["OutputDataConfig"]["S3OutputPath"]
        self.upload(self.root / "model", f"{output}{request['TrainingJobName']}/output/model/")

    def serve(self, model: dict[str, Any]) -> TestClient:
        """A server's container: its files where SageMaker puts them, but below a folder of the test's."""
        from finetune_trainer.serving.load import LoadOptions, load

        container = model["PrimaryContainer"]
        flags = parser().parse_args(["serve", *shlex.split(container["Environment"][SERVE_FLAGS_VARIABLE])])
        folder = self.root / "served"
        self.download(container["ModelDataSource"]["S3DataSource"]["S3Uri"], folder)
        assert "AdditionalModelDataSources" not in container, "a whole model needs no base"
        served = load(open_artifact(folder, None, all_checksums=True), LoadOptions(name=flags.name))
        return TestClient(build_app(ModelHolder(served), sagemaker=flags.sagemaker))


SPLITS = ("train", "validation", "test")


@pytest.fixture
def begin(tiny_model, tmp_path, s3_endpoint, start):
    """Makes a cluster whose connection is to a SageMaker with our containers, and their instance."""

    def begun() -> tuple[given.SageMakerCluster, Instance]:
        provider = given.sagemaker(s3_endpoint)
        connection = {"modelCache": {"bucket": "models", "prefix": "cache"}, "networkIsolation": True}
        cluster = given.SageMakerCluster(provider, start(provider), **connection)
        instance = Instance(cluster.objects, tmp_path / "ml")
        instance.upload(tiny_model, f"{CACHE}/")
        provider.training.container = instance.train
        return cluster, instance

    return begun


async def train(cluster: given.SageMakerCluster, here: FineTuneJobSpec, scratch: Path, **fields: Any) -> dict[str, Any]:
    """Have a job with the data of `here` made and done; its status."""
    splits = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in SPLITS}
    cluster.add_cloud_job(baseModel="test/tiny-llama", dataset=splits, evaluation={"maxNewTokens": 8}, **fields)
    await cluster.settle()
    cluster.run_pod()
    await cluster.settle()
    verdict = check_dataset(here, tokenizer=None, allow_local=True, no_tokens="the trainer counts them")
    converted = convert_all(here, verdict, rules_for("sageMaker", here), scratch, allow_local=True)
    files = [await cluster.send(file.path.read_bytes(), split=file.split) for file in converted]
    cluster.end_pod(0, cluster.checked(files).model_copy(update={"dataset": verdict}))
    await cluster.settle()
    await cluster.pass_time(1200)
    status = cluster.status()
    assert status["phase"] == "Succeeded", status.get("failure")
    return status


async def test_a_job_is_trained_and_served_by_our_own_containers(tiny_model, tmp_path, begin):
    cluster, instance = begin()
    provider = cluster.provider
    template = {"deployment": {"template": {"sageMaker": {"instanceType": "ml.g5.xlarge"}}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    here = make_job(tmp_path / "data", tiny_model, splits=SPLITS).spec
    hyperparameters = {"epochs": 12, "learningRate": 0.01, "batchSize": 8}

    status = await train(cluster, here, tmp_path, method="Full", hyperparameters=hyperparameters)
    assert status["progress"]["step"] == status["progress"]["totalSteps"] == 60
    assert status["loss"]["validation"][-1]["value"] < status["loss"]["train"][0]["value"]
    assert status["evaluation"]["verdict"] == "Better"
    assert status["dataset"]["train"]["rows"] == 40
    version = cluster.status(MODEL)["versions"][0]
    assert (version["artifact"]["kind"], version["method"]) == ("Full", "Full")
    assert version["datasetSHA256"] == status["dataset"]["train"]["sha256"]

    await cluster.pass_time(60)
    name = next(iter(provider.hosting.endpoints))
    server = instance.serve(provider.hosting.models[name].request)
    provider.hosting.answer = lambda body: server.post("/invocations", content=body).raise_for_status().content
    for _ in range(8):
        await cluster.pass_time(60)
    endpoint = cluster.status(DEPLOYMENT)["endpoint"]
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    row = json.loads((tmp_path / "data" / "test.jsonl").read_text().splitlines()[0])
    messages = [{"role": "system", "content": row["system"]}, {"role": "user", "content": row["prompt"]}]
    asked = {"model": endpoint["model"], "messages": messages, "max_tokens": 8, "temperature": 0}
    reply = json.loads(provider.hosting.answer(json.dumps(asked).encode()))
    assert reply["choices"][0]["message"]["content"] in COLOURS
