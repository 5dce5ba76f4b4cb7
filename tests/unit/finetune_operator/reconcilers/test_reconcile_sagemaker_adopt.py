"""Training jobs of SageMaker that others have made: looked at, made a version of, served, and never touched."""

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

import boto3
import pytest

from finetune_api.reasons import Reason
from finetune_operator.providers.aws.s3 import Bucket, S3Object
from finetune_operator.providers.calls.errors import Denied
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.sagemaker import SageMakerSimulator
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import BASE, ROLE, SageMakerCluster, progress, sagemaker

__all__ = ["s3_endpoint", "start"]

NAME = "mood-2026-11-26"
ADAPTER = {"peft_type": "LORA", "r": 8, "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE}
AN_ADAPTER = {"adapter_config.json": json.dumps(ADAPTER).encode(), "adapter_model.safetensors": b"weights"}
A_MODEL = {"config.json": b'{"architectures": ["LlamaForCausalLM"]}', "model.safetensors": b"weights"}
objects = Bucket.objects
CHANGES = {"CreateTrainingJob", "StopTrainingJob", "DeleteTrainingJob"}


@pytest.fixture
def provider(s3_endpoint: str) -> SageMakerSimulator:
    return sagemaker(s3_endpoint)


@pytest.fixture
def cluster(provider: SageMakerSimulator, start: Any) -> SageMakerCluster:
    return SageMakerCluster(provider, start(provider))


def packed(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def made_elsewhere(cluster: SageMakerCluster, files: Mapping[str, bytes], *, archive: bool = False, **more: Any) -> str:
    """A training job of somebody else in the same account, by boto3; the URI of its output."""
    output = f"s3://{cluster.objects.bucket}/theirs"
    compressed = {} if archive else {"CompressionType": "NONE"}
    where = f"{output}/{NAME}/output/model" + (".tar.gz" if archive else "")

    def train(request: dict[str, Any]) -> None:
        if request["TrainingJobName"] != NAME:
            cluster.containers(request)
        elif archive:
            cluster.objects.put(where, packed(files))
        else:
            for name, content in files.items():
                cluster.objects.put(f"{where}/{name}", content)

    cluster.provider.training.container = train
    keys = {"aws_access_key_id": "AKIASIMULATED", "aws_secret_access_key": "simulated-secret"}
    client = boto3.client("sagemaker", endpoint_url=cluster.url, region_name="us-east-1", **keys)
    asked = {
        "TrainingJobName": NAME,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {
            "TrainingImage": "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-training:2",
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": name, "Regex": "x"} for name in ("train:loss", "eval_loss")],
        },
        "HyperParameters": {"epochs": "3", "model_id": '"tiny/llama"'},
        "OutputDataConfig": {"S3OutputPath": output, **compressed},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    }
    client.create_training_job(**(asked | more))
    return where


async def adopt(cluster: SageMakerCluster, name: str = NAME, **fields: Any) -> None:
    cluster.provider.calls.clear()
    cluster.add_cloud_job(**({"adopt": {"jobID": name}, "baseModel": BASE} | fields))
    await cluster.settle()
    await cluster.poll()


async def denied(bucket: Bucket, begins: str) -> list[S3Object]:
    if not begins.startswith("theirs"):
        return await objects(bucket, begins)
    raise Denied(Reason.CREDENTIALS_INVALID, "s3 does not let the operator's identity ListObjectsV2 (AccessDenied)")


def changed(cluster: SageMakerCluster) -> set[str]:
    return CHANGES & {call.operation for call in cluster.provider.calls}


@pytest.mark.alike
@pytest.mark.parametrize("archive", [False, True], ids=["a folder", "an archive"])
@pytest.mark.parametrize(
    ("files", "kind", "method", "rank"),
    [(AN_ADAPTER, "Adapter", "LoRA", 8), (A_MODEL, "Full", "Full", None)],
    ids=["adapter", "whole model"],
)
async def test_a_job_made_elsewhere_becomes_a_version(provider, cluster, files, kind, method, rank, archive):
    provider.set(final_metrics={"train:loss": 0.25, "eval_loss": 0.5})
    uri = made_elsewhere(cluster, files, archive=archive)
    await adopt(cluster)
    assert (cluster.status()["phase"], cluster.status()["provider"]["jobID"]) == ("Queued", NAME)
    await cluster.pass_time(300)
    assert cluster.status()["phase"] == "Running"
    await cluster.pass_time(3600)
    status, version = cluster.status(), cluster.status(MODEL)["versions"][0]
    assert (status["phase"], status["modelVersion"], status["trainLoss"], status["evalLoss"]) == (
        "Succeeded", 1, 0.25, 0.5,
    )  # fmt: skip
    assert (version["artifact"]["uri"], version["artifact"]["kind"], version["adopted"]) == (uri, kind, True)
    assert (version["method"], version.get("loraRank")) == (method, rank)
    assert changed(cluster) == set()
    assert not cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"].get("finalizers")


@pytest.mark.parametrize("archive", [False, True], ids=["a folder", "an archive"])
async def test_it_is_served_from_where_it_is(provider, cluster, archive):
    uri = made_elsewhere(cluster, AN_ADAPTER, archive=archive)
    spec = {"deployment": {"template": {"sageMaker": {"instanceType": "ml.g5.xlarge"}}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await adopt(cluster)
    for _ in range(6):
        await cluster.pass_time(1200)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    model = next(iter(provider.hosting.models.values())).request
    source = model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert source == (
        {"S3Uri": uri, "S3DataType": "S3Object", "CompressionType": "Gzip"}
        if archive
        else {"S3Uri": f"{uri}/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    )


async def test_a_job_of_our_own_image_tells_its_progress_and_its_record(cluster):
    checkpoints = f"s3://{cluster.objects.bucket}/theirs/checkpoints"
    report: dict[str, Any] = {"namespace": "x", "name": "x", "uid": "x", "attempt": 1, "phase": "Running"}
    artifact = {"uri": "s3://elsewhere/model"}
    files = {f"model/{name}": content for name, content in AN_ADAPTER.items()}
    uri = made_elsewhere(cluster, files, CheckpointConfig={"S3Uri": checkpoints})
    await adopt(cluster)
    await cluster.pass_time(300)
    cluster.objects.put(f"{checkpoints}/report.json", json.dumps(report | progress(12)).encode())
    await cluster.pass_time(30)
    assert (cluster.status()["phase"], cluster.status()["progress"]["step"]) == ("Running", 12)
    done = {"phase": "Succeeded", "result": {"artifact": artifact, "steps": 30, "trainLoss": 0.3}}
    cluster.objects.put(f"{checkpoints}/report.json", json.dumps(report | progress(30) | done).encode())
    await cluster.pass_time(3600)
    result = cluster.status()["result"]
    assert (result["steps"], result["trainLoss"], result["artifact"]["uri"]) == (30, 0.3, f"{uri}/model")


@pytest.mark.alike
@pytest.mark.parametrize("manifest", [b"[1]", b"{", b'{"files": ["a"]}', b'{"files": {"a": 1}}'])
async def test_a_manifest_of_another_kind_promises_nothing(cluster, manifest):
    made_elsewhere(cluster, A_MODEL | {"manifest.json": manifest})
    await adopt(cluster)
    await cluster.pass_time(3600)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_job_is_adopted_by_its_arn_too(cluster):
    made_elsewhere(cluster, AN_ADAPTER)
    await adopt(cluster, f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{NAME}")
    await cluster.pass_time(3600)
    assert cluster.status()["phase"] == "Succeeded"


ELSEWHERE = (
    f"us-east-1:999999999999:training-job/{NAME}",
    f"eu-west-1:123456789012:training-job/{NAME}",
    f"us-east-1:123456789012:processing-job/{NAME}",
)


@pytest.mark.parametrize("arn", ELSEWHERE)
async def test_an_arn_of_elsewhere_is_not_that_of_the_job_that_has_its_name_here(provider, cluster, arn):
    made_elsewhere(cluster, AN_ADAPTER)
    provider.advance(3600)
    await adopt(cluster, f"arn:aws:sagemaker:{arn}")
    failure = cluster.status()["failure"]
    assert (cluster.status()["phase"], failure["reason"]) == ("Failed", "DeletedAtProvider")
    assert f"there is no job arn:aws:sagemaker:{arn}" in failure["message"]
    assert MODEL not in cluster.kube.objects


@pytest.mark.parametrize("trouble", ["a name that there cannot be", "a job that nobody may look at"])
async def test_one_that_cannot_be_looked_at_leaves_the_connections_other_jobs_alone(provider, cluster, trouble):
    cluster.add_cloud_job("other")
    await cluster.settle()
    await cluster.check(job="other")
    await cluster.settle()
    if trouble == "a name that there cannot be":
        await adopt(cluster, "no_such_name")
    else:
        provider.fault("DescribeTrainingJob", status=400, code="AccessDeniedException", times=99)
        await adopt(cluster)
    other = (FINE_TUNE_JOBS, "team-a", "other")
    await cluster.pass_time(30)
    assert cluster.kube.objects[other]["status"]["phase"] in {"Queued", "Running"}


REFUSED: dict[str, tuple[dict[str, bytes], str, str]] = {
    "pickles": (
        {"config.json": b"{}", "pytorch_model.bin": b"\x80"}, "ModelUnusable", "pytorch_model.bin is pickled",
    ),
    "a pickled adapter": (
        {"adapter_config.json": b"{}", "adapter_model.bin": b"\x80"}, "ModelUnusable", "no adapter_model.safetensors",
    ),
    "no model": ({"xgboost-model": b"x"}, "ModelUnusable", "has neither adapter_config.json nor config.json"),
    "a classifier": (
        {"config.json": b'{"architectures": ["BertForSequenceClassification"]}', "model.safetensors": b"w"},
        "ModelUnusable", "BertForSequenceClassification is not a model that answers in text",
    ),
    "another kind of adapter": (
        AN_ADAPTER | {"adapter_config.json": b'{"peft_type": "PROMPT_TUNING"}'}, "ModelUnusable", "PROMPT_TUNING",
    ),
    "a configuration that is none": (AN_ADAPTER | {"adapter_config.json": b"["}, "ModelUnusable", "cannot be read"),
    "several models": (
        {f"checkpoint-{n}/{name}": content for n in (1, 2) for name, content in A_MODEL.items()},
        "ModelUnusable", "2 models (checkpoint-1, checkpoint-2)",
    ),
    "another base model": (
        AN_ADAPTER | {"adapter_config.json": json.dumps(ADAPTER | {"base_model_name_or_path": "other/llama"}).encode()},
        "SpecInvalid", "spec.baseModel: the job's adapter was tuned from other/llama, and not from tiny/llama",
    ),
    "a base model that is a folder": (
        AN_ADAPTER | {"adapter_config.json": json.dumps(ADAPTER | {"base_model_name_or_path": "/opt/base"}).encode()},
        "ModelNotInCache", "sageMaker.modelCache",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_served_is_refused_in_words(cluster, case):
    files, reason, said = REFUSED[case]
    made_elsewhere(cluster, files)
    await adopt(cluster)
    await cluster.pass_time(3600)
    failure = cluster.status()["failure"]
    assert (failure["reason"], said in failure["message"]) == (reason, True), failure
    assert failure["nextStep"]
    assert cluster.kube.objects.get(MODEL) is None
    assert changed(cluster) == set()


async def test_an_archive_that_is_none_is_refused(cluster):
    uri = made_elsewhere(cluster, {}, archive=True)
    cluster.objects.put(uri, b"not a gzip at all")
    await adopt(cluster)
    cluster.provider.training.container = None
    await cluster.pass_time(3600)
    assert "is not an archive that can be read" in cluster.status()["failure"]["message"]


async def test_files_that_its_manifest_has_and_s3_has_not_are_named(cluster):
    manifest = json.dumps({"files": {"adapter_model.safetensors": {"bytes": 1000, "sha256": "0"}}}).encode()
    made_elsewhere(cluster, AN_ADAPTER | {"manifest.json": manifest})
    await adopt(cluster)
    await cluster.pass_time(3600)
    assert "adapter_model.safetensors is missing or cut short" in cluster.status()["failure"]["message"]


@pytest.mark.parametrize("reason", [Reason.BUCKET_NOT_FOUND, Reason.CREDENTIALS_INVALID])
async def test_a_place_that_cannot_be_read_is_the_trouble_of_that_job_alone(cluster, monkeypatch, reason):
    made_elsewhere(cluster, AN_ADAPTER, CheckpointConfig={"S3Uri": "s3://no-such-bucket-of-theirs/x"})
    if reason is Reason.CREDENTIALS_INVALID:
        monkeypatch.setattr(Bucket, "objects", denied)
    else:
        cluster.provider.training.found[NAME].request["OutputDataConfig"]["S3OutputPath"] = "s3://no-such-bucket/x"
    cluster.add_cloud_job("sentiment-2")
    await adopt(cluster)
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)
    failure, other = cluster.status()["failure"], cluster.status(JOB._replace(name="sentiment-2"))
    assert (failure["reason"], "S3" in failure["nextStep"]) == (reason, True), failure
    assert (other["phase"], "failure" in other) == ("Succeeded", False), other


async def test_deleting_suspending_and_history_leave_the_job_and_its_model_alone(cluster):
    made_elsewhere(cluster, AN_ADAPTER)
    await adopt(cluster)
    await cluster.pass_time(300)
    cluster.change_job(suspend=True)
    await cluster.pass_time(60)
    assert cluster.status()["phase"] == "Running"
    await cluster.pass_time(3600)
    before = cluster.objects.names("theirs")
    model = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]
    spec = {"historyLimit": 1, "deletionPolicy": "Delete", "deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, model | {"spec": spec})
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    cluster.kube.drop(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    for _ in range(3):
        await cluster.pass_time(60)
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects
    assert (cluster.objects.names("theirs"), len(before), changed(cluster)) == (before, 2, set())


async def test_an_old_version_leaves_history_and_its_files_stay(cluster, begin_second):
    files = await begin_second(cluster)
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [2]
    assert cluster.objects.names("theirs") == files


@pytest.mark.parametrize("compared", ["as a baseline", "by the model"])
async def test_an_archive_is_no_baseline_and_is_refused_before_anything_is_made(cluster, provider, compared):
    model = {"metadata": {"name": "sentiment", "namespace": "team-a"}}
    if compared == "by the model":
        model["spec"] = {"activation": "IfBetter"}
    cluster.kube.put(FINE_TUNED_MODELS, model)
    made_elsewhere(cluster, AN_ADAPTER, archive=True)
    await adopt(cluster)
    await cluster.pass_time(3600)
    assert cluster.status(MODEL)["activeVersion"] == 1
    dataset = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in ("train", "test")}
    baselines = {"evaluation": {"baselines": [{"activeVersion": {}}]}} if compared == "as a baseline" else {}
    cluster.add_cloud_job("sentiment-2", baseModel=BASE, dataset=dataset, **baselines)
    await cluster.settle()
    failure = cluster.status(JOB._replace(name="sentiment-2"))["failure"]
    assert (failure["reason"], "version 1 of the model, which is active, is an archive" in failure["message"]) == (
        "SpecInvalid",
        True,
    )
    assert "leave the baseline activeVersion out" in failure["message"]
    assert not any(key[2].startswith("sentiment-2") for key in cluster.kube.objects if key[0] is JOBS)
    assert provider.count("CreateTrainingJob") == 0


@pytest.fixture
def begin_second() -> Callable[..., Any]:
    async def begin(cluster: SageMakerCluster) -> list[str]:
        model = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"historyLimit": 1}}
        cluster.kube.put(FINE_TUNED_MODELS, model)
        made_elsewhere(cluster, AN_ADAPTER)
        await adopt(cluster)
        await cluster.pass_time(3600)
        files = cluster.objects.names("theirs")
        cluster.add_cloud_job("sentiment-2", baseModel=BASE)
        await cluster.settle()
        await cluster.check(job="sentiment-2")
        await cluster.settle()
        await cluster.pass_time(3600)
        return files

    return begin


async def test_one_that_is_asked_for_again_is_looked_at_anew(provider, cluster):
    """Somebody has put there what was missing."""
    where = made_elsewhere(cluster, {"readme.txt": b"x"})
    provider.advance(3600)
    await adopt(cluster)
    assert cluster.status()["failure"]["reason"] == "ModelUnusable"
    for name, content in AN_ADAPTER.items():
        cluster.objects.put(f"{where}/{name}", content)
    cluster.change_job(retryNonce="mended")
    await cluster.settle()
    await cluster.pass_time(60)
    assert cluster.status()["phase"] == "Succeeded"
