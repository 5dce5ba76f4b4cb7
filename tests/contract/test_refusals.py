"""What the API server itself refuses, and that it says which field is wrong and what to write instead."""

import json
from typing import Any

import pytest

from tests.cluster.errors import ClusterError
from tests.contract.conftest import Server
from tests.contract.manifests import (
    BEDROCK,
    DEPLOYMENT,
    JOB,
    LOCAL,
    MODEL,
    REMOVE,
    SAGEMAKER,
    Manifest,
    Refused,
    changed,
)
from tests.contract.refused_connections import CONNECTIONS
from tests.contract.refused_deployments import DEPLOYMENTS

pytestmark = pytest.mark.cluster

TRAIN = "spec.dataset.train.uri"
BASELINES = "spec.evaluation.baselines"
NO_JOB_IDS = (
    *(".", "..", "/", "a//b", "ftjob-1/../../files", "ftjob-1/", "%2e", "ftjob-1?limit=1", "ftjob-1#1", "a\\b"),
    *(
        " ",
        " ftjob-1",
        "ftjob-1 ",
        "ftjob 1",
        "ftjob-1\n",
        "ftjob-1\t",
        "ftjob-ä",
        "<job>",
        '"ftjob-1"',
        "ftjob-1,ftjob-2",
    ),
)
"""What a path to a job would lead elsewhere with, and what people paste with an ID."""


def endpoint(**fields: Any) -> Manifest:
    return {"endpoint": {"name": "rag", "url": "https://rag.example.com/v1", "model": "m"} | fields}


JOBS: list[Refused] = [
    (JOB, "spec", REMOVE, ("spec: Required",)),
    (JOB, "spec.connectionRef", REMOVE, ("spec.connectionRef: Required",)),
    (JOB, "spec.baseModel", REMOVE, ("spec.baseModel: Required",)),
    (JOB, "spec.modelRef", REMOVE, ("spec.modelRef: Required",)),
    (JOB, "spec.dataset", REMOVE, ("spec.dataset: Required",)),
    (JOB, "spec.dataset.train", REMOVE, ("spec.dataset.train: Required",)),
    (JOB, "spec.connectionRef.name", "local ", ("spec.connectionRef.name", "write a-z, 0-9, - and .")),
    (JOB, "spec.connectionRef.name", "Local-CPU", ("spec.connectionRef.name", "in lower case", "such as local-cpu")),
    (JOB, "spec.dataset.secretRef", {"name": "Data_Keys"}, ("spec.dataset.secretRef.name", "write a-z, 0-9, - and .")),
    (JOB, "spec.hubTokenSecretRef", {"name": "hub", "key": "my token"}, ("hubTokenSecretRef.key", "letters, digits")),
    (JOB, "spec.connectionRef.name", "", ("spec.connectionRef.name", "at least 1")),
    (JOB, "spec.baseModel", "../secrets", ("spec.baseModel", "such as HuggingFaceTB/SmolLM2-135M-Instruct")),
    (JOB, "spec.baseModel", "/models/llama", ("spec.baseModel", "and no path")),
    (JOB, "spec.baseModel", "meta-llama/../x", ("spec.baseModel", "and no path")),
    (JOB, "spec.baseModel", " tiny/one", ("spec.baseModel", "without white space")),
    (JOB, TRAIN, "configmap://rows/my train.jsonl", (TRAIN, "only letters, digits, -, _ and .")),
    (JOB, "spec.baseModel", "a" * 257, ("spec.baseModel", "Too long", "256")),
    (JOB, "spec.modelRef.name", "Sentiment", ("modelRef.name", "at most 63 of a-z, 0-9 and -")),
    (JOB, "spec.modelRef.name", "a.b", ("modelRef.name", "at most 63 of a-z, 0-9 and -")),
    (JOB, "spec.modelRef.name", "1st", ("modelRef.name", "beginning with a letter")),
    (JOB, "spec.modelRef.name", "a" * 64, ("modelRef.name", "at most 63")),
    (JOB, TRAIN, "train.jsonl", (f"{TRAIN}: ", "pvc://CLAIM/PATH", "configmap://NAME/KEY")),
    (JOB, TRAIN, "file:///data/train.jsonl", (f"{TRAIN}: ", "file:// works only in `finetune-trainer check`")),
    (JOB, TRAIN, "ftp://host/train.jsonl", (f"{TRAIN}: ", "s3://BUCKET/KEY")),
    (JOB, TRAIN, "pvc://data/", (f"{TRAIN}: ", "a scheme, a place and a path")),
    (JOB, TRAIN, "pvc://data/../x", (f"{TRAIN}: ", "'..' segment", "write the path without it")),
    (JOB, TRAIN, "pvc://data/x.csv\n", (f"{TRAIN}: ", "line break", "write the path without it")),
    *(
        (JOB, TRAIN, f"pvc://data/{path}", (f"{TRAIN}: ", "a space at its end or another character that is not seen"))
        for path in ("x.csv ", "x.csv'", "x.csv\u201d", "x.csv\u00a0", "x\u200b.csv", "\ufeffx.csv")
    ),
    *(
        (JOB, TRAIN, text, (f"{TRAIN}: ", "write what the placeholder stands for"))
        for text in ("s3://<bucket>/x.csv", "pvc://data/${FILE}", "https://host/{{ name }}.csv")
    ),
    (JOB, "spec.lora.targetModules", "All-Linear", ("spec.lora.targetModules", "write all-linear in lower case")),
    (JOB, "spec.lora.targetModules", "all", ("spec.lora.targetModules", "write all-linear in lower case")),
    (JOB, "spec.lora.targetModules", "all_linear", ("spec.lora.targetModules", "write all-linear in lower case")),
    *(
        (JOB, "spec.lora.targetModules", text, ("spec.lora.targetModules", "names of modules with commas"))
        for text in (".*_proj", "q_proj|v_proj", "(q", "q_proj v_proj", " , ", "[q_proj]")
    ),
    (JOB, "spec.lora.targetModules", "q_proj, all-linear", ("spec.lora.targetModules", "write all-linear alone")),
    (JOB, TRAIN, "https://me:secret@host/x.csv", (f"{TRAIN}: ", "dataset.secretRef")),
    (JOB, TRAIN, "configmap://rows/a/b", (f"{TRAIN}: ", "write configmap://NAME/KEY")),
    (JOB, TRAIN, "hf://datasets/my team/name/x.csv", (f"{TRAIN}: ", "hf://datasets/OWNER/NAME/PATH")),
    (
        JOB,
        TRAIN,
        "hf://owner/name/x.csv",
        (f"{TRAIN}: ", "hf://datasets/OWNER/NAME/PATH", "one file of the repository"),
    ),
    *(
        (JOB, TRAIN, f"https://{place}", (f"{TRAIN}: ", "a page of a hub, not a file: write hf://datasets/OWNER/"))
        for place in ("huggingface.co/datasets/a/b", "www.hf.co/datasets/a/b/blob/main/x.csv")
    ),
    *(
        (JOB, TRAIN, f"{scheme}://KEY:SECRET@place/a.csv", ("uri holds credentials", "dataset.secretRef"))
        for scheme in ("s3", "gs", "https")
    ),
    *(
        (JOB, TRAIN, f"https://host/a.csv?x=1&{key}=SECRET", ("uri holds a signature or a key", "dataset.secretRef"))
        for key in ("sig", "X-Amz-Signature", "X-Goog-Signature", "access_token", "apiKey")
    ),
    (JOB, TRAIN, "pvc://Data_X/a.csv", ("CLAIM and NAME have a-z, 0-9, - and . only",)),
    (JOB, TRAIN, "configmap://rows-/a.csv", ("CLAIM and NAME have a-z, 0-9, - and . only",)),
    (JOB, "spec.dataset.test.uri", "pvc://x", ("spec.dataset.test.uri: ", "pvc://CLAIM/PATH")),
    (JOB, "spec.dataset.train.format", "csv", ("spec.dataset.train.format", '"CSV"', '"Parquet"')),
    (JOB, "spec.dataset.columns.prompt", "", ("spec.dataset.columns.prompt", "at least 1")),
    (JOB, "spec.method", "lora", ("spec.method", '"LoRA"', '"QLoRA"', '"Full"')),
    (JOB, "spec.method", "DPO", ("spec.method", '"LoRA"', '"Full"')),
    (JOB, "spec.lora.r", 0, ("spec.lora.r", "greater than or equal to 1")),
    (JOB, "spec.lora.dropout", 1, ("spec.lora.dropout", "less than 1")),
    (JOB, "spec.lora.loraPlusRatio", 0.5, ("spec.lora.loraPlusRatio", "greater than or equal to 1")),
    (JOB, "spec.lora.useDoRA", "yes", ("spec.lora.useDoRA", "boolean")),
    (JOB, "spec.lora.use_rslora", True, ('unknown field "spec.lora.use_rslora"',)),
    (JOB, "spec.preference", {"beta": 0}, ("spec.preference.beta", "greater than 0")),
    (JOB, "spec.preference", {"labelSmoothing": 0.5}, ("spec.preference.labelSmoothing", "less than or equal to 0.49")),
    (JOB, "spec.preference", {"lossType": "sigmoid"}, ('unknown field "spec.preference.lossType"',)),
    (JOB, "spec.dataset.columns", {"prompt": "completion"}, ("completion and system are three columns",)),
    (JOB, "spec.dataset.columns", {"system": "prompt"}, ("completion and system are three columns",)),
    (JOB, "spec.dataset.columns", {"chosen": "a", "rejected": "a"}, ("chosen and rejected are two columns",)),
    (JOB, "spec.dataset.columns", {"chosen": "good"}, ("two answers: write preference: {}, or remove them",)),
    (
        changed(JOB, "spec.preference", {}),
        "spec.dataset.columns",
        {"completion": "label"},
        ("spec.dataset.columns.completion: ", "no meaning with preference", "remove it"),
    ),
    (JOB, "spec.dataset.columns", {"rejected": "bad"}, ("two answers: write preference: {}, or remove them",)),
    (
        changed(JOB, "spec.code", {"configMapRef": {"name": "my-recipe", "key": "train.py"}}),
        "spec.preference",
        {},
        ("preference is a part of the built-in recipe: remove it, or remove code",),
    ),
    (JOB, "spec.code", {}, ("spec.code.configMapRef: Required",)),
    (JOB, "spec.code", {"configMapRef": {"name": "my-recipe"}}, ("spec.code.configMapRef.key: Required",)),
    (
        JOB,
        "spec.code",
        {"configMapRef": {"name": "x", "key": "../train.py"}},
        ("spec.code.configMapRef.key", "letters"),
    ),
    (JOB, "spec.artifact.merge", "yes", ("spec.artifact.merge", "boolean")),
    (JOB, "spec.trackers", {}, ("trackers needs mlflow, tensorBoard or wandb",)),
    (JOB, "spec.trackers", {"comet": {}}, ('unknown field "spec.trackers.comet"',)),
    (JOB, "spec.trackers", {"wandb": {}}, ("spec.trackers.wandb.secretRef: Required",)),
    (JOB, "spec.trackers", {"mlflow": {}}, ("spec.trackers.mlflow.trackingURI: Required",)),
    (JOB, "spec.trackers", {"mlflow": {"trackingURI": "mlflow.svc"}}, ("mlflow.trackingURI", "whole URL")),
    *(
        (JOB, "spec.trackers", {"mlflow": {"trackingURI": f"http://mlflow.svc/{end}"}}, ("trackingURI", "without cred"))
        for end in ("#/experiments/1", "?workspace=a")
    ),
    (JOB, "spec.artifact.push", {}, ("push needs oci or huggingFace, or both",)),
    (
        JOB,
        "spec.artifact.push",
        {"oci": {"uri": "ghcr.io/team/a:1"}},
        ("artifact.push.oci.uri", "write oci://REGISTRY/"),
    ),
    (JOB, "spec.artifact.push", {"oci": {"uri": "oci://ghcr.io/team/a"}}, ("oci.uri", "oci://REGISTRY/REPOSITORY:TAG")),
    (JOB, "spec.artifact.push", {"oci": {"uri": "oci://ghcr.io/Team/a:1"}}, ("oci.uri", "in lower case")),
    (JOB, "spec.artifact.push", {"huggingFace": {"repository": "a/b"}}, ("huggingFace.tokenSecretRef: Required",)),
    (
        JOB,
        "spec.artifact.push",
        {"huggingFace": {"repository": "sentiment", "tokenSecretRef": {"name": "hub", "key": "token"}}},
        ("huggingFace.repository", "write OWNER/NAME"),
    ),
    (JOB, "spec.hyperparameters.epochs", 0, ("spec.hyperparameters.epochs", "greater than 0")),
    (JOB, "spec.hyperparameters.epochs", "three", ("spec.hyperparameters.epochs", "number")),
    (JOB, "spec.hyperparameters.learningRate", 2, ("spec.hyperparameters.learningRate", "less than or equal to 1")),
    (JOB, "spec.hyperparameters.batchSize", 1.5, ("spec.hyperparameters.batchSize", "integer")),
    (JOB, "spec.hyperparameters.microBatchSize", 3, ("microBatchSize must be a divisor of hyperparameters.batchSize",)),
    (JOB, "spec.hyperparameters.schedule", "cosine", ("spec.hyperparameters.schedule", '"Cosine"')),
    (JOB, "spec.hyperparameters.precision", "Float16", ("spec.hyperparameters.precision", '"BFloat16"', '"Float32"')),
    (JOB, "spec.hyperparameters.seed", -1, ("spec.hyperparameters.seed", "greater than or equal to 0")),
    (JOB, "spec.resources.gpusPerNode", 99, ("spec.resources.gpusPerNode", "less than or equal to 16")),
    (JOB, "spec.resources.nodes", 0, ("spec.resources.nodes", "greater than or equal to 1")),
    (
        JOB,
        "spec.resources.nodes",
        17,
        ("hyperparameters.batchSize must be at least resources.nodes times gpusPerNode",),
    ),
    (
        JOB,
        "spec.resources",
        {"nodes": 3, "gpusPerNode": 8},
        ("hyperparameters.batchSize must be at least resources.nodes times gpusPerNode",),
    ),
    (
        changed(JOB, "spec.code", {"configMapRef": {"name": "my-recipe", "key": "train.py"}}),
        "spec.resources.nodes",
        2,
        ("code runs in one pod: remove resources.nodes",),
    ),
    (JOB, "spec.resources.memory", "16GB", ("spec.resources.memory", "write a quantity of bytes such as 16Gi or 16G")),
    (JOB, "spec.resources.cpu", "four", ("spec.resources.cpu", "write a quantity of CPU such as 4 or 500m")),
    (JOB, "spec.resources.memory", 16, ("spec.resources.memory", "write the unit, such as 16Gi")),
    *(
        (JOB, "spec.resources.cpu", amount, ("spec.resources.cpu", "no node has so many cores", "such as 4000m"))
        for amount in ("4000M", "4Gi", 10**6, "1e6")
    ),
    (JOB, "spec.resources.memory", "16m", ("spec.resources.memory", "write the unit, such as 16Gi")),
    (JOB, "spec.resources.ephemeralStorage", "20", ("spec.resources.ephemeralStorage", "write the unit")),
    *((JOB, "spec.resources.cpu", none, ("spec.resources.cpu", "0 asks for no CPU")) for none in (0, "0", "0m")),
    (JOB, "spec.resources.memory", 0, ("spec.resources.memory", "write the unit, such as 16Gi")),
    (JOB, "spec.resources.cpu", "-1", ("spec.resources.cpu", "write a quantity")),
    (JOB, "spec.resources.cpu", 0.5, ("spec.resources.cpu", "integer,string")),
    (JOB, "spec.resources.instanceType", "g5.xlarge", ("spec.resources.instanceType", "such as ml.g5.xlarge")),
    (JOB, "spec.evaluation.metrics", ["bleu"], ("spec.evaluation.metrics[0]", '"exactMatch"')),
    (JOB, "spec.evaluation.metrics", [], ("spec.evaluation.metrics", "at least 1")),
    (JOB, "spec.adopt", {}, ("spec.adopt.jobID: Required",)),
    (JOB, "spec.adopt.jobID", "", ("spec.adopt.jobID", "at least 1")),
    *((JOB, "spec.adopt.jobID", wrong, ("spec.adopt.jobID", "as the provider shows it")) for wrong in NO_JOB_IDS),
    (JOB, "spec.adopt.jobID", "f" * 1025, ("spec.adopt.jobID", "1024")),
    (JOB, "spec.budget", {"currency": "USD"}, ("spec.budget.maxCost: Required",)),
    (JOB, "spec.budget.maxCost", "a lot", ("spec.budget.maxCost", "[0-9]")),
    (JOB, "spec.budget.maxCost", "25 USD", ("spec.budget.maxCost", 'such as "25.00"')),
    (JOB, "spec.budget", {"maxCost": "5", "currency": "usd"}, ("spec.budget.currency", "such as USD")),
    (JOB, "spec.budget.maxCost", 5, ("spec.budget.maxCost", "string")),
    (JOB, "spec.budget", {"maxCost": "5", "currency": "dollars"}, ("spec.budget.currency", "3")),
    (
        JOB,
        "spec.hyperparameters.learningRateMultiplier",
        0,
        ("spec.hyperparameters.learningRateMultiplier", "greater than 0"),
    ),
    (JOB, "spec.evaluation.metrics", ["chrF", "chrF"], ("spec.evaluation", "name each metric once")),
    (JOB, BASELINES, [], (BASELINES, "at least 1")),
    (JOB, BASELINES, [{}], (f"{BASELINES}[0]", "write one of zeroShot, fewShot, activeVersion, endpoint")),
    (JOB, BASELINES, [{"zeroShot": {}, "fewShot": {}}], (f"{BASELINES}[0]", "write one of zeroShot, fewShot")),
    (JOB, BASELINES, [{"zeroshot": {}}], (f'unknown field "{BASELINES}[0].zeroshot"',)),
    (JOB, BASELINES, [{"zeroShot": {"examples": 1}}], (f'unknown field "{BASELINES}[0].zeroShot.examples"',)),
    (JOB, BASELINES, [{"zeroShot": {}}] * 2, ("name each of zeroShot, fewShot and activeVersion once",)),
    (JOB, BASELINES, [{"fewShot": {"examples": n}} for n in (1, 2)], ("name each of zeroShot, fewShot and",)),
    (JOB, BASELINES, [{"fewShot": {"examples": 0}}], ("fewShot.examples", "greater than or equal to 1")),
    (JOB, BASELINES, [endpoint(), endpoint()], ("give each endpoint a name of its own",)),
    (JOB, BASELINES, [endpoint(name=f"e{n}") for n in range(5)], ("a job may name at most 4 endpoints",)),
    (JOB, BASELINES, [endpoint(name="Rag")], ("endpoint.name", "at most 40 of a-z, 0-9 and -")),
    (JOB, BASELINES, [endpoint(url="rag.svc/v1")], ("endpoint.url", "such as https://HOST/v1")),
    (JOB, BASELINES, [endpoint(url="http://api.example.com/v1")], ("endpoint.url", "without TLS only Services")),
    (JOB, BASELINES, [endpoint(url="https://me:key@host/v1")], ("endpoint.url", "without credentials and queries")),
    (
        JOB,
        BASELINES,
        [endpoint(url="http://rag.team-a.svc/v1/chat/completions")],
        ("endpoint.url", "the root of the API"),
    ),
    (
        JOB,
        "spec.evaluation.judge",
        {"url": "https://host/v1/completions", "model": "m"},
        ("judge.url", "the root of the"),
    ),
    (JOB, BASELINES, [endpoint(url="https://host/v1?key=x")], ("endpoint.url", "without credentials and queries")),
    (JOB, BASELINES, [endpoint(apiKeySecretRef={"name": "rag"})], ("endpoint.apiKeySecretRef.key: Required",)),
    (JOB, BASELINES, [endpoint(apiKey="sk")], (f'unknown field "{BASELINES}[0].endpoint.apiKey"',)),
    (JOB, "spec.evaluation.judge", {"url": "http://api.example.com", "model": "m"}, ("judge.url", "without TLS only")),
    (JOB, "spec.evaluation.judge", {"url": "https://api.example.com"}, ("spec.evaluation.judge.model: Required",)),
    (JOB, "spec.evaluation.output", {"uri": "s3://bucket/reports"}, ("output.uri", "write pvc://CLAIM/FOLDER")),
    (JOB, "spec.evaluation.output", {"uri": "pvc://reports/all\n"}, ("output.uri", "without white space at its ends")),
    (
        JOB,
        "spec.evaluation.judge",
        {"url": "https://host/v1", "model": "m "},
        ("judge.model", "without white space at"),
    ),
    (JOB, "spec.evaluation.output", {"uri": "pvc://reports/${RUN}"}, ("output.uri", "placeholder stands for")),
    (JOB, "spec.evaluation.output", {"uri": "pvc://reports/'all'"}, ("output.uri", "a quotation mark or a space")),
    (JOB, "spec.evaluation.output", {"uri": "pvc://reports"}, ("output.uri", "write pvc://CLAIM/FOLDER")),
    (JOB, "spec.evaluation.output", {"uri": "pvc://reports/../a"}, ("output.uri", "beginning with a dot")),
    (JOB, "spec.evaluation.maxNewTokens", 0, ("spec.evaluation.maxNewTokens", "greater than or equal to 1")),
    *(
        (JOB, field, value(f"host.example.com:{port}"), (field.rpartition(".")[2], "65535"))
        for field, value in (
            (TRAIN, "https://{}/x.csv".format),
            ("spec.evaluation.judge", lambda host: {"url": f"https://{host}/v1", "model": "m"}),
            ("spec.trackers.mlflow.trackingURI", "http://{}".format),
            ("spec.artifact.push.oci", lambda host: {"uri": f"oci://{host}/team/a:1"}),
        )
        for port in (0, 65536)
    ),
    *(
        (JOB, "spec.hubTokenSecretRef", {"name": "hub", "key": key}, ("hubTokenSecretRef.key", "letters, digits"))
        for key in (".", "..", "..x")
    ),
    (JOB, "spec.hubTokenSecretRef", {"name": "hub"}, ("spec.hubTokenSecretRef.key: Required",)),
    (JOB, "spec.activeDeadlineSeconds", 0, ("spec.activeDeadlineSeconds", "greater than or equal to 1")),
    (JOB, "spec.ttlSecondsAfterFinished", -1, ("spec.ttlSecondsAfterFinished", "greater than or equal to 0")),
    (JOB, "spec.suspend", "yes", ("spec.suspend", "boolean")),
    (JOB, "spec.epochs", 3, ('unknown field "spec.epochs"',)),
    (JOB, "spec.hyperparameters.learning_rate", 0.1, ('unknown field "spec.hyperparameters.learning_rate"',)),
]

MODELS: list[Refused] = [
    (MODEL, "metadata.name", "a.b", ("metadata.name of a FineTunedModel becomes the name of a Service", "a-z, 0-9")),
    (MODEL, "metadata.name", "1st", ("metadata.name", "beginning with a letter")),
    (MODEL, "metadata.name", "a" * 64, ("metadata.name", "at most 63")),
    (MODEL, "spec.activation", "Best", ("spec.activation", '"Automatic"', '"IfBetter"', '"Manual"')),
    (MODEL, "spec.activeVersion", 0, ("spec.activeVersion", "greater than or equal to 1")),
    (MODEL, "spec.activeVersion", "latest", ("spec.activeVersion", "integer")),
    (MODEL, "spec.historyLimit", 0, ("spec.historyLimit", "greater than or equal to 1")),
    (MODEL, "spec.deletionPolicy", "delete", ("spec.deletionPolicy", '"Delete"', '"Retain"')),
    (MODEL, "spec.deployment.mode", "Auto", ("spec.deployment.mode", '"Automatic"', '"Manual"')),
    (
        MODEL,
        "spec.deployment.template",
        {"huggingFace": {}, "bedrock": {}},
        ("spec.deployment.template", "at most one of huggingFace, azureOpenAI, bedrock and sageMaker"),
    ),
    (
        MODEL,
        "spec.deployment.template",
        {"huggingFace": {}, "idle": {"action": "Delete"}},
        ("a server on this cluster is stopped with ScaleToZero",),
    ),
    (MODEL, "spec.deployment.template.version", 2, ('unknown field "spec.deployment.template.version"',)),
]


def name(value: Any) -> str | None:
    """A readable id of a row: its field and what is written there."""
    if isinstance(value, dict) and "kind" in value:
        return str(value["kind"])
    return "-" if value is REMOVE else None if isinstance(value, tuple) else str(value)[:40]


@pytest.mark.parametrize(("manifest", "path", "value", "says"), [*JOBS, *MODELS, *DEPLOYMENTS, *CONNECTIONS], ids=name)
def test_a_bad_manifest_is_refused_with_field_and_remedy(
    server: Server, manifest: Manifest, path: str, value: Any, says: tuple[str, ...]
) -> None:
    message = server.refusal(changed(manifest, path, value))
    missing = [part for part in says if part not in message]
    assert not missing, message


def test_what_kubernetes_itself_counts_may_be_asked_for_without_a_limit(server: Server) -> None:
    resources = {"requests": {"kubernetes.io/batch-cpu": 1000}}
    assert server.accept(changed(DEPLOYMENT, "spec.huggingFace.resources", resources))


def test_several_mistakes_are_told_at_once(server: Server) -> None:
    message = server.refusal(changed(changed(JOB, "spec.method", "Lora"), "spec.lora.r", 0))
    assert "spec.method" in message
    assert "spec.lora.r" in message


@pytest.mark.parametrize(("connection", "block"), [(BEDROCK, "bedrock"), (SAGEMAKER, "sageMaker")])
def test_a_role_that_is_no_arn_is_not_called_one_of_another_partition(
    server: Server, connection: Manifest, block: str
) -> None:
    message = server.refusal(changed(connection, f"spec.{block}.roleARN", "tuning"))
    assert "write the role's ARN" in message
    assert "partition" not in message


def test_merging_without_an_adapter_is_refused(server: Server) -> None:
    message = server.refusal(changed(changed(JOB, "spec.method", "Full"), "spec.artifact", {"merge": True}))
    assert "spec.artifact.merge: " in message
    assert "artifact.merge has no meaning with method Full, which leaves a whole model: remove it" in message


def test_lora_settings_without_lora_are_refused(server: Server) -> None:
    message = server.refusal(changed(changed(JOB, "spec.method", "Full"), "spec.lora", {"r": 8}))
    assert "spec.lora: " in message
    assert "lora has no meaning with this method: remove it or set method: LoRA or QLoRA" in message


def test_keys_in_a_uri_are_not_quoted(server: Server) -> None:
    assert "hunter2" not in server.refusal(changed(JOB, TRAIN, "https://me:hunter2@host/x.csv"))


@pytest.mark.parametrize("kind", ["FineTuneJob", "FineTunedModel", "ModelDeployment", "LLMConnection"])
def test_no_kind_takes_a_field_that_it_does_not_know(server: Server, kind: str) -> None:
    good = {"FineTuneJob": JOB, "FineTunedModel": MODEL, "ModelDeployment": DEPLOYMENT, "LLMConnection": LOCAL}[kind]
    assert 'unknown field "spec.nonsense"' in server.refusal(changed(good, "spec.nonsense", 1))


@pytest.mark.parametrize("selector", [{"matchLables": {"a": "b"}}, {"team": "a"}, {"matchLabels": {}, "names": []}])
def test_a_selector_that_would_serve_everybody_without_its_misspelt_field_is_refused_whoever_writes_it(
    server: Server, selector: Manifest
) -> None:
    """kubectl has unknown fields refused; clients that do not would have them pruned, and {} is every namespace."""
    misspelt = json.dumps(changed(LOCAL, "spec.namespaceSelector", selector))
    for way in ("--validate=ignore", "--server-side"):
        with pytest.raises(ClusterError, match=r"spec\.namespaceSelector"):
            server.kubectl("apply", "--dry-run=server", way, "-f", "-", stdin=misspelt)


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("namespaceSelector", "matchLabels, matchExpressions"),
        ("fineTuning", "enabled, allowedModels, allowCode, allowedEndpoints"),
    ],
)
def test_such_a_refusal_shows_what_was_written_and_the_names_there_are_and_asks_for_none_of_them(
    server: Server, part: str, names: str
) -> None:
    message = server.refusal(changed(LOCAL, f"spec.{part}", {"alowed": ["a"]}))
    assert f"spec.{part}: Unsupported value: {{" in message
    assert '"alowed":["a"]' in message
    assert f'supported values: "no fields but {names}"' in message
    assert "Required value" not in message


POLICIES: tuple[tuple[Manifest, str], ...] = (
    ({"allowedModles": ["tiny/*"]}, "fineTuning"),
    ({"enabled": True, "allowedEndpoint": ["https://a.example/*"]}, "fineTuning"),
    ({"enabled": True, "allowedModels": ["tiny/*"], "allowCode": False, "allowCodes": True}, "fineTuning"),
    ({"enabled": "no"}, r"fineTuning\.enabled"),
    ({"allowedModels": "tiny/*"}, r"fineTuning\.allowedModels"),
    ({"allowedModels": ["a b"]}, r"fineTuning\.allowedModels\[0\]"),
    ({"allowedEndpoints": ["https://"], "allowCode": False}, r"fineTuning\.allowedEndpoints\[0\]"),
)


@pytest.mark.parametrize(("policy", "where"), POLICIES, ids=str)
def test_a_policy_that_would_allow_all_without_its_misspelt_field_is_refused_and_a_wrong_value_by_its_field(
    server: Server, policy: Manifest, where: str
) -> None:
    written = json.dumps(changed(LOCAL, "spec.fineTuning", policy))
    for way in ("--validate=ignore", "--server-side"):
        with pytest.raises(ClusterError, match=rf"spec\.{where}"):
            server.kubectl("apply", "--dry-run=server", way, "-f", "-", stdin=written)


@pytest.mark.parametrize("policy", [{}, {"enabled": False}, {"allowedModels": None, "allowCode": True}], ids=str)
def test_a_policy_of_names_that_are_known_is_taken(server: Server, policy: Manifest) -> None:
    server.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(changed(LOCAL, "spec.fineTuning", policy)))


@pytest.mark.parametrize("manifest", [JOB, MODEL, DEPLOYMENT, LOCAL], ids=name)
def test_a_kind_in_small_letters_is_all_that_is_refused_then(server: Server, manifest: Manifest) -> None:
    """kubectl finds the kind all the same; the API server fills in no defaults, which rules would miss."""
    written, kind = manifest["kind"].lower(), manifest["kind"]
    message = server.refusal(manifest | {"kind": written})
    assert message.endswith(f'is invalid: kind: Invalid value: "{written}": must be {kind}')
