"""Objects as the API server keeps them: defaults, fixed specs, status."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException
from pydantic import ValidationError

from finetune_api.connection import LLMConnectionSpec
from finetune_api.crds import KINDS, object_schema
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.job import MUTABLE_FIELDS, FineTuneJobSpec
from finetune_api.job_status import Progress
from finetune_api.model import FineTunedModelSpec
from tests.cluster.errors import ClusterError
from tests.contract import statuses
from tests.contract.conftest import ROOT, Server
from tests.contract.manifests import (
    AZURE,
    BEDROCK,
    DEPLOYMENT,
    EVALUATION,
    JOB,
    LOCAL,
    MODEL,
    OPENAI,
    REMOVE,
    SAGEMAKER,
    Manifest,
    changed,
)
from tests.unit.docs.pages import CHART, fields, inline_parts, snippets

pytestmark = pytest.mark.cluster

PUSH: Manifest = {
    "oci": {"uri": "oci://ghcr.io/team/sentiment:1", "secretRef": {"name": "registry"}, "plainHTTP": False},
    "huggingFace": {
        "repository": "team/sentiment",
        "private": True,
        "tokenSecretRef": {"name": "hub", "key": "token"},
        "endpointURL": "https://hub.example.com",
    },
}
TRACKERS: Manifest = {
    "mlflow": {
        "trackingURI": "https://mlflow.example.com/x",
        "experiment": "sentiment",
        "secretRef": {"name": "mlflow"},
    },
    "tensorBoard": {},
    "wandb": {
        "secretRef": {"name": "wandb"},
        "entity": "team-a",
        "project": "sentiment",
        "baseURL": "https://wandb.example.com",
    },
}
STORE: Manifest = {
    "uri": "s3://team-models/tuned",
    "endpointURL": "https://minio.example.com:9000",
    "secretRef": {"name": "artifact-keys"},
}
GOOD: list[tuple[str, Manifest, type[Any]]] = [
    ("smallest job", JOB, FineTuneJobSpec),
    ("job of all weights", changed(JOB, "spec.method", "Full"), FineTuneJobSpec),
    (
        "job on a 4-bit base",
        changed(
            changed(JOB, "spec.method", "QLoRA"), "spec.lora", {"useRSLoRA": True, "useDoRA": True, "loraPlusRatio": 16}
        ),
        FineTuneJobSpec,
    ),
    ("job that learns from two answers", changed(JOB, "spec.preference", {}), FineTuneJobSpec),
    (
        "columns of two answers",
        changed(
            changed(JOB, "spec.preference", {"beta": 0.5, "labelSmoothing": 0.1}),
            "spec.dataset.columns",
            {"chosen": "good", "rejected": "bad"},
        ),
        FineTuneJobSpec,
    ),
    ("fractions as text", changed(JOB, "spec.resources.cpu", "0.5"), FineTuneJobSpec),
    ("exponents", changed(JOB, "spec.hyperparameters.learningRate", 2.0e-4), FineTuneJobSpec),
    ("versioned model names", changed(JOB, "spec.baseModel", "amazon.nova-lite-v1:0:300k"), FineTuneJobSpec),
    ("dates in model names", changed(JOB, "spec.baseModel", "gpt-4.1-mini-2025-04-14"), FineTuneJobSpec),
    (
        "datasets from everywhere",
        changed(
            JOB,
            "spec.dataset",
            {
                "train": {"uri": "abfs://box@account.dfs.core.windows.net/train.csv"},
                "validation": {"uri": "hf://datasets/owner/name/val.parquet"},
                "test": {"uri": "configmap://rows/test.csv", "format": "CSV"},
                "columns": {"prompt": "text", "completion": "label", "system": "instruction"},
                "secretRef": {"name": "data-credentials"},
            },
        ),
        FineTuneJobSpec,
    ),
    ("evaluation with all that there is", changed(JOB, "spec.evaluation", EVALUATION), FineTuneJobSpec),
    ("model without a spec", changed(MODEL, "spec", REMOVE), FineTunedModelSpec),
    ("pinned model", changed(MODEL, "spec.activeVersion", 2), FineTunedModelSpec),
    ("model with a template", changed(MODEL, "spec.deployment.template.huggingFace.replicas", 2), FineTunedModelSpec),
    ("deployment of the active version", DEPLOYMENT, ModelDeploymentSpec),
    ("deployment of one version", changed(DEPLOYMENT, "spec.version", 3), ModelDeploymentSpec),
    (
        "provisioned deployment",
        changed(
            DEPLOYMENT,
            "spec.bedrock",
            {"type": "ProvisionedThroughput", "modelUnits": 1, "commitment": "NoCommitment"},
        ),
        ModelDeploymentSpec,
    ),
    ("local connection", LOCAL, LLMConnectionSpec),
    (
        "air-gapped connection",
        changed(
            changed(LOCAL, "spec.huggingFace.airGapped", True),
            "spec.huggingFace.modelCache.volume",
            {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        ),
        LLMConnectionSpec,
    ),
    ("connection with code", changed(LOCAL, "spec.fineTuning.allowCode", True), LLMConnectionSpec),
    (
        "job with own code and a merged artifact",
        changed(
            changed(JOB, "spec.code", {"configMapRef": {"name": "my-recipe", "key": "train.py"}}),
            "spec.artifact",
            {"merge": True},
        ),
        FineTuneJobSpec,
    ),
    ("job with trackers", changed(JOB, "spec.trackers", TRACKERS), FineTuneJobSpec),
    ("job with pushes", changed(JOB, "spec.artifact", {"push": PUSH}), FineTuneJobSpec),
    ("connection with artifacts in a store", changed(LOCAL, "spec.huggingFace.artifacts", STORE), LLMConnectionSpec),
    ("OpenAI connection", OPENAI, LLMConnectionSpec),
    ("Azure connection", AZURE, LLMConnectionSpec),
    ("Bedrock connection", BEDROCK, LLMConnectionSpec),
    ("SageMaker connection", SAGEMAKER, LLMConnectionSpec),
    (
        "SageMaker connection without a network",
        changed(
            changed(SAGEMAKER, "spec.sageMaker.networkIsolation", True),
            "spec.sageMaker.modelCache",
            {"bucket": "models", "prefix": "cache"},
        ),
        LLMConnectionSpec,
    ),
    (
        "SageMaker connection on spot instances in a VPC",
        changed(
            changed(SAGEMAKER, "spec.sageMaker.spot", {"enabled": True, "maxWaitSeconds": 90000}),
            "spec.sageMaker.vpc",
            {"subnets": ["subnet-1", "subnet-2"], "securityGroupIDs": ["sg-1"]},
        ),
        LLMConnectionSpec,
    ),
    ("job on an instance type", changed(JOB, "spec.resources.instanceType", "ml.g5.xlarge"), FineTuneJobSpec),
    (
        "endpoint of SageMaker",
        changed(DEPLOYMENT, "spec.sageMaker", {"instanceType": "ml.g5.xlarge", "instances": 2}),
        ModelDeploymentSpec,
    ),
    (
        "Bedrock connection with private endpoints",
        changed(
            changed(
                BEDROCK,
                "spec.bedrock.endpoints",
                {"control": "https://vpce-1.example.com", "s3": "https://s3.example.com"},
            ),
            "spec.bedrock.results",
            "Keep",
        ),
        LLMConnectionSpec,
    ),
    (
        "Bedrock connection with keys",
        changed(BEDROCK, "spec.bedrock.credentials", {"secretRef": {"name": "aws"}}),
        LLMConnectionSpec,
    ),
]


@pytest.mark.parametrize(("manifest", "model"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_a_good_manifest_is_taken_and_the_models_read_it_the_same(
    server: Server, manifest: Manifest, model: type[Any]
) -> None:
    stored = server.accept(manifest)
    assert model.model_validate(stored["spec"]) == model.model_validate(manifest.get("spec", {}))


def test_defaults_are_written_out_for_everybody_to_see(server: Server) -> None:
    spec = server.accept(JOB)["spec"]
    assert spec["method"] == "LoRA"
    assert spec["hyperparameters"]["maxSequenceLength"] == 1024
    assert spec["dataset"]["columns"] == {
        "prompt": "prompt", "completion": "completion", "system": "system", "messages": "messages",
    }  # fmt: skip
    assert spec["evaluation"] == {"metrics": ["exactMatch"], "baselines": [{"zeroShot": {}}]}


def test_core_parts_are_taken_as_they_are(server: Server) -> None:
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    connection = changed(LOCAL, "spec.huggingFace.podTemplate.tolerations", [toleration])
    assert server.accept(connection)["spec"]["huggingFace"]["podTemplate"]["tolerations"] == [toleration]


def examples() -> Iterator[Any]:
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for number, manifest in enumerate(yaml.safe_load_all(path.read_text())):
            if isinstance(manifest, dict) and str(manifest.get("apiVersion", "")).startswith("finetune.dev/"):
                yield pytest.param(manifest, id=f"{path.relative_to(ROOT)}:{number}")


@pytest.mark.parametrize("manifest", list(examples()))
def test_every_example_is_taken_as_it_is(server: Server, manifest: Manifest) -> None:
    if manifest["kind"] != "LLMConnection":
        manifest = changed(manifest, "metadata.namespace", "default")
    server.accept(manifest)


CLOUDS = ("openai", "azure-openai", "bedrock", "sagemaker")
PARTS = [
    pytest.param(part, id=f"{page.relative_to(ROOT)}:{number}")
    for page in sorted((ROOT / "docs/guides").glob("*.md"))
    for number, part in enumerate([*snippets(page), *(inline_parts(page) if page.stem in CLOUDS else ())])
    if "kind" not in part and not set(part) <= set(CHART["properties"])
]
GOOD = [JOB, MODEL, DEPLOYMENT, LOCAL, OPENAI, AZURE, BEDROCK, SAGEMAKER]


def over(base: Any, part: Any) -> Any:
    """The base with what a part says, as somebody who reads a guide writes it in."""
    if not isinstance(base, dict) or not isinstance(part, dict):
        return part
    return {**base, **{name: over(base.get(name), value) for name, value in part.items()}}


def written_into(part: Manifest) -> Iterator[Manifest]:
    """Good manifests with a part in each place that has such fields: beside what is there, or instead of it."""
    for base in GOOD:
        schema = object_schema(next(kind for kind in KINDS if kind.kind == base["kind"]))
        for path, found in fields(schema):
            if path[:1] == ("spec",) and set(part) <= set(found.get("properties", {})):
                there = base
                for name in path:
                    there = there.get(name, {}) if isinstance(there, dict) else {}
                yield changed(base, ".".join(path), over(there, part))
                yield changed(base, ".".join(path), {**there, **part})


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_a_manifest_in_the_guides_is_taken_where_it_belongs(server: Server, part: Manifest) -> None:
    refused = []
    for manifest in written_into(part):
        try:
            server.accept(manifest)
        except ApiException as error:
            refused.append(str(json.loads(error.body)["message"]))
        else:
            return
    raise AssertionError(refused or "no kind has such fields")


def test_a_connection_keeps_its_provider(server: Server) -> None:
    server.store(changed(LOCAL, "metadata.name", "kept"))
    server.patch("llmc", "kept", {"spec": {"huggingFace": {"trainerImage": "example/trainer:2"}}})
    with pytest.raises(ClusterError, match="a connection keeps its provider"):
        server.patch("llmc", "kept", {"spec": {"huggingFace": None, **OPENAI["spec"]}})


@pytest.fixture(scope="module")
def stored_job(server: Server) -> Server:
    server.store(changed(JOB, "metadata.name", "fixed"))
    return server


ANOTHER: dict[str, Any] = {
    "connectionRef": {"name": "other"},
    "baseModel": "other/model",
    "modelRef": {"name": "other"},
    "dataset": {"test": {"uri": "pvc://data/test.csv"}},
    "method": "Full",
    "lora": {"r": 8},
    "preference": {"beta": 0.5},
    "hyperparameters": {"epochs": 7},
    "resources": {"nodes": 2},
    "artifact": {"merge": True},
    "code": {"configMapRef": {"name": "my-recipe", "key": "train.py"}},
    "evaluation": {"maxNewTokens": 8},
    "trackers": {"tensorBoard": {}},
    "adopt": {"jobID": "ftjob-1"},
    "budget": {"maxCost": "5.00"},
    "hubTokenSecretRef": {"name": "hub", "key": "token"},
    "activeDeadlineSeconds": 60,
}


def test_every_fixed_field_is_tried() -> None:
    names = {field.alias for field in FineTuneJobSpec.model_fields.values()}
    assert set(ANOTHER) == names - set(MUTABLE_FIELDS)


@pytest.mark.parametrize("field", ANOTHER)
def test_a_jobs_field_cannot_be_changed_or_added(stored_job: Server, field: str) -> None:
    with pytest.raises(ClusterError) as error:
        stored_job.patch("ftj", "fixed", {"spec": {field: ANOTHER[field]}})
    message = str(error.value)
    assert f"spec.{field}: Forbidden: {field} cannot be changed" in message
    assert "only suspend, ttlSecondsAfterFinished and retryNonce can" in message
    assert "under a new name" in message


@pytest.mark.parametrize("field", ["lora", "preference", "code", "hubTokenSecretRef", "activeDeadlineSeconds"])
def test_a_jobs_optional_field_cannot_be_taken_away(server: Server, field: str) -> None:
    name = f"without-{field.lower()}"
    server.store(changed(changed(JOB, "metadata.name", name), f"spec.{field}", ANOTHER[field]))
    with pytest.raises(ClusterError, match=f"{field} cannot be changed"):
        server.patch("ftj", name, {"spec": {field: None}})


def test_a_job_can_be_suspended_retried_and_given_a_time_to_live(stored_job: Server) -> None:
    stored_job.patch("ftj", "fixed", {"spec": {"suspend": True, "retryNonce": "again", "ttlSecondsAfterFinished": 60}})
    spec = stored_job.get("ftj", "fixed")["spec"]
    assert (spec["suspend"], spec["retryNonce"], spec["ttlSecondsAfterFinished"]) == (True, "again", 60)


def test_the_same_manifest_applied_again_changes_nothing(stored_job: Server) -> None:
    manifest = json.dumps(changed(JOB, "metadata.name", "fixed"))
    before = stored_job.get("ftj", "fixed")["metadata"]["generation"]
    stored_job.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)
    assert stored_job.get("ftj", "fixed")["metadata"]["generation"] == before


@pytest.mark.parametrize("manifest", [LOCAL, JOB, MODEL, DEPLOYMENT], ids=lambda manifest: manifest["kind"])
def test_a_new_object_is_on_its_way_before_anybody_has_looked_at_it(server: Server, manifest: Manifest) -> None:
    status = server.accept(manifest)["status"]
    assert status["observedGeneration"] == 0
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Ready": "False",
        "Reconciling": "True",
        "Stalled": "False",
    }


@pytest.mark.parametrize(
    ("kind", "name", "status"),
    [
        ("llmc", "local", statuses.CONNECTION),
        ("ftj", "sentiment-1", statuses.JOB),
        ("ftm", "sentiment", statuses.MODEL),
        ("md", "sentiment", statuses.DEPLOYMENT),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_of_a_status_is_lost(reported: Server, kind: str, name: str, status: Any) -> None:
    assert reported.get(kind, name)["status"] == status.wire()


def test_spec_and_status_are_written_apart(reported: Server) -> None:
    before = reported.get("ftm", "sentiment")
    reported.patch("ftm", "sentiment", {"status": {"activeVersion": 9}})
    reported.patch("ftm", "sentiment", {"spec": {"historyLimit": 9}}, status=True)
    after = reported.get("ftm", "sentiment")
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])


TIMES = {
    "2026-01-31T12:00:00Z": True,
    "2026-01-31T12:00:00.123456Z": True,
    "2026-01-31T13:00:00+01:00": True,
    "2026-01-31T12:00:00": False,
    "2026-01-31 12:00:00+00:00": False,
    "2026-01-31T12:00Z": False,
    "2026-01-31T12+00:00": False,
    "20260131T120000Z": False,
    "2026-W05-6T12:00:00Z": False,
    "2026-02-30T12:00:00Z": False,
}


@pytest.mark.parametrize(("text", "taken"), TIMES.items())
def test_a_time_that_the_models_take_the_server_takes_too(reported: Server, text: str, taken: bool) -> None:
    read = nullcontext() if taken else pytest.raises(ValidationError)
    with read:
        Progress(step=1, total_steps=2, updated_at=text)
    written = nullcontext() if taken else pytest.raises(ClusterError, match="updatedAt")
    with written:
        reported.patch("ftj", "sentiment-1", {"status": {"progress": {"updatedAt": text}}}, status=True)


def test_a_status_of_another_shape_is_refused(reported: Server) -> None:
    with pytest.raises(ClusterError, match=r"status\.phase"):
        reported.patch("ftj", "sentiment-1", {"status": {"phase": "Sleeping"}}, status=True)
