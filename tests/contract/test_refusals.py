"""What the API server itself refuses, and that it says which field is wrong and what to write instead."""

from typing import Any

import pytest

from tests.contract.conftest import Server
from tests.contract.manifests import (
    AZURE,
    BEDROCK,
    DEPLOYMENT,
    JOB,
    LOCAL,
    MODEL,
    OPENAI,
    REMOVE,
    SAGEMAKER,
    Manifest,
    changed,
)

pytestmark = pytest.mark.cluster

TRAIN = "spec.dataset.train.uri"
LIMITS = "spec.huggingFace.resources.limits"
SELECTOR = "spec.namespaceSelector.matchExpressions"
BASELINES = "spec.evaluation.baselines"
Refused = tuple[Manifest, str, Any, tuple[str, ...]]


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
    (JOB, "spec.connectionRef.name", "Local-CPU", ("spec.connectionRef.name", "in small letters", "such as local-cpu")),
    (JOB, "spec.dataset.secretRef", {"name": "Data_Keys"}, ("spec.dataset.secretRef.name", "write a-z, 0-9, - and .")),
    (JOB, "spec.hubTokenSecretRef", {"name": "hub", "key": "my token"}, ("hubTokenSecretRef.key", "letters, digits")),
    (JOB, "spec.connectionRef.name", "", ("spec.connectionRef.name", "at least 1")),
    (JOB, "spec.baseModel", "../secrets", ("spec.baseModel", "such as HuggingFaceTB/SmolLM2-135M-Instruct")),
    (JOB, "spec.baseModel", "/models/llama", ("spec.baseModel", "and no path")),
    (JOB, "spec.baseModel", "meta-llama/../x", ("spec.baseModel", "and no path")),
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
        for path in ("x.csv ", "x.csv\u00a0", "x\u200b.csv", "\ufeffx.csv")
    ),
    *(
        (JOB, TRAIN, text, (f"{TRAIN}: ", "write what the placeholder stands for"))
        for text in ("s3://<bucket>/x.csv", "pvc://data/${FILE}", "https://host/{{ name }}.csv")
    ),
    (JOB, "spec.lora.targetModules", "All-Linear", ("spec.lora.targetModules", "write all-linear in small letters")),
    (JOB, "spec.lora.targetModules", "all_linear", ("spec.lora.targetModules", "write all-linear in small letters")),
    (JOB, TRAIN, "https://me:secret@host/x.csv", (f"{TRAIN}: ", "dataset.secretRef")),
    (JOB, TRAIN, "configmap://rows/a/b", (f"{TRAIN}: ", "write configmap://NAME/KEY")),
    (
        JOB,
        TRAIN,
        "hf://owner/name/x.csv",
        (f"{TRAIN}: ", "hf://datasets/OWNER/NAME/PATH", "one file of the repository"),
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
    (JOB, "spec.trackers", {"mlflow": {"trackingURI": "mlflow.svc"}}, ("mlflow.trackingURI", "whole address")),
    (JOB, "spec.artifact.push", {}, ("push needs oci or huggingFace, or both",)),
    (
        JOB,
        "spec.artifact.push",
        {"oci": {"uri": "ghcr.io/team/a:1"}},
        ("artifact.push.oci.uri", "write oci://REGISTRY/"),
    ),
    (JOB, "spec.artifact.push", {"oci": {"uri": "oci://ghcr.io/team/a"}}, ("oci.uri", "oci://REGISTRY/REPOSITORY:TAG")),
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
    (JOB, "spec.resources.memory", "16GB", ("spec.resources.memory", "write a quantity such as 2, 500m or 16Gi")),
    (JOB, "spec.resources.memory", 16, ("spec.resources.memory", "write the unit, such as 16Gi")),
    (JOB, "spec.resources.memory", "16m", ("spec.resources.memory", "write the unit, such as 16Gi")),
    (JOB, "spec.resources.ephemeralStorage", "20", ("spec.resources.ephemeralStorage", "write the unit")),
    (JOB, "spec.resources.cpu", "-1", ("spec.resources.cpu", "write a quantity")),
    (JOB, "spec.resources.cpu", 0.5, ("spec.resources.cpu", "integer,string")),
    (JOB, "spec.resources.instanceType", "g5.xlarge", ("spec.resources.instanceType", "such as ml.g5.xlarge")),
    (JOB, "spec.evaluation.metrics", ["bleu"], ("spec.evaluation.metrics[0]", '"exactMatch"')),
    (JOB, "spec.evaluation.metrics", [], ("spec.evaluation.metrics", "at least 1")),
    (JOB, "spec.adopt", {}, ("spec.adopt.jobID: Required",)),
    (JOB, "spec.adopt.jobID", "", ("spec.adopt.jobID", "at least 1")),
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
    (JOB, "spec.evaluation.output", {"uri": "pvc://reports"}, ("output.uri", "write pvc://CLAIM/FOLDER")),
    (JOB, "spec.evaluation.output", {"uri": "pvc://reports/../a"}, ("output.uri", "beginning with a dot")),
    (JOB, "spec.evaluation.maxNewTokens", 0, ("spec.evaluation.maxNewTokens", "greater than or equal to 1")),
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

DEPLOYMENTS: list[Refused] = [
    (DEPLOYMENT, "metadata.name", "a.b", ("metadata.name of a ModelDeployment becomes the name of a Service",)),
    (DEPLOYMENT, "spec.modelRef", REMOVE, ("spec.modelRef: Required",)),
    (DEPLOYMENT, "spec.modelRef.name", "A", ("modelRef.name", "at most 63 of a-z, 0-9 and -")),
    (DEPLOYMENT, "spec.version", "active", ("version is Active or a positive number",)),
    (DEPLOYMENT, "spec.version", "2", ("version is Active or a positive number", "a number without quotes")),
    (DEPLOYMENT, "spec.version", "3", ("version is Active or a positive number",)),
    (DEPLOYMENT, "spec.version", 0, ("version is Active or a positive number",)),
    (DEPLOYMENT, "spec.version", -1, ("version is Active or a positive number",)),
    (DEPLOYMENT, "spec.version", 1.5, ("spec.version", "integer,string")),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "huggingFace": {}, "bedrock": {}},
        ("at most one of huggingFace",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "huggingFace": {}, "attach": {"id": "x"}},
        ("attach names a cloud deployment that exists; remove huggingFace",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "attach": {"id": "x"}, "azureOpenAI": {}},
        ("attach names a cloud deployment that exists",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "attach": {"id": "x"}, "idle": {"action": "Delete"}},
        ("an attached deployment is never stopped by the operator",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "attach": {"id": "x"}, "deletionPolicy": "delete"},
        ("spec.deletionPolicy", '"Delete"', '"Retain"'),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "attach": {"id": "x"}, "deletionpolicy": "Retain"},
        ('unknown field "spec.deletionpolicy"',),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "huggingFace": {}, "idle": {"action": "Delete"}},
        ("a server on this cluster is stopped with ScaleToZero",),
    ),
    (
        DEPLOYMENT,
        "spec",
        {"modelRef": {"name": "m"}, "azureOpenAI": {}, "idle": {"action": "ScaleToZero"}},
        ("a deployment at a provider is ended with Delete",),
    ),
    (DEPLOYMENT, "spec.attach.id", "", ("spec.attach.id", "at least 1")),
    (DEPLOYMENT, "spec.deletionPolicy", "Keep", ("spec.deletionPolicy", '"Delete"', '"Retain"')),
    (DEPLOYMENT, "spec.idle.afterSeconds", 5, ("spec.idle.afterSeconds", "greater than or equal to 60")),
    (DEPLOYMENT, "spec.idle.action", "Stop", ("spec.idle.action", '"ScaleToZero"')),
    (DEPLOYMENT, "spec.huggingFace.engine", "vllm", ("spec.huggingFace.engine", '"vLLM"', '"Transformers"')),
    (DEPLOYMENT, "spec.huggingFace.replicas", -1, ("spec.huggingFace.replicas", "greater than or equal to 0")),
    (DEPLOYMENT, LIMITS, {"memory": "lots"}, ("limits[memory]", "write a quantity")),
    (DEPLOYMENT, LIMITS, {"memory": 4, "cpu": 2}, ("limits", "memory and ephemeral-storage", "write the unit")),
    (DEPLOYMENT, LIMITS, {f"r{i}": 1 for i in range(17)}, ("limits", "at most 16")),
    (DEPLOYMENT, "spec.azureOpenAI.sku", "Basic", ("spec.azureOpenAI.sku", '"GlobalStandard"')),
    (DEPLOYMENT, "spec.bedrock.type", "ProvisionedThroughput", ("spell out modelUnits and commitment",)),
    (DEPLOYMENT, "spec.bedrock.modelUnits", 2, ("spec.bedrock", "write type: ProvisionedThroughput")),
    (DEPLOYMENT, "spec.bedrock.commitment", "OneMonth", ("spec.bedrock", "write type: ProvisionedThroughput")),
    (DEPLOYMENT, "spec.bedrock.commitment", "TwoMonths", ("spec.bedrock.commitment", '"OneMonth"')),
    (DEPLOYMENT, "spec.sageMaker", {}, ("spec.sageMaker.instanceType: Required",)),
    (DEPLOYMENT, "spec.sageMaker", {"instanceType": "g5.xlarge"}, ("sageMaker.instanceType", "such as ml.g5.xlarge")),
    (DEPLOYMENT, "spec.sageMaker", {"instanceType": "ml.g5.xlarge", "instances": 0}, ("instances", "equal to 1")),
    (DEPLOYMENT, "spec.replicas", 2, ('unknown field "spec.replicas"',)),
]

CONNECTIONS: list[Refused] = [
    (LOCAL, "spec", REMOVE, ("spec: Required",)),
    (LOCAL, "spec", {}, ("exactly one provider block: huggingFace, openAI, azureOpenAI, bedrock or sageMaker",)),
    (LOCAL, "spec.openAI", OPENAI["spec"]["openAI"], ("exactly one provider block",)),
    (LOCAL, "spec.bedrock", BEDROCK["spec"]["bedrock"], ("exactly one provider block",)),
    (
        LOCAL,
        "spec.huggingFace.podTemplate",
        {"resources": {"requests": {"ephemeral-storage": "20"}}},
        ("podTemplate.resources.requests", "write the unit, such as 16Gi"),
    ),
    (LOCAL, "spec.huggingface", {}, ('unknown field "spec.huggingface"',)),
    (LOCAL, "spec.huggingFace.trainerImage", REMOVE, ("spec.huggingFace.trainerImage: Required",)),
    (LOCAL, "spec.huggingFace.artifacts", REMOVE, ("spec.huggingFace.artifacts: Required",)),
    (
        LOCAL,
        "spec.huggingFace.trainerImage",
        "registry.example.com/no such:1",
        ("trainerImage", "write an image alone"),
    ),
    *(
        (LOCAL, "spec.huggingFace.trainerImage", image, ("trainerImage", "its name in small letters"))
        for image in (
            "IMAGE_OF_THE_TRAINER",
            "REGISTRY/finetune-trainer:0.1.0",
            "ghcr.io/Team/trainer",
            "a/b:1:2",
            ":1",
        )
    ),
    (LOCAL, "spec.huggingFace.trainerImage", "ghcr.io/<org>/trainer:1", ("trainerImage", "placeholder stands for")),
    (LOCAL, "spec.huggingFace.artifacts.uri", "s3://bucket/<team>", ("artifacts.uri", "placeholder stands for")),
    (OPENAI, "spec.openAI.baseURL", "https://${HOST}/v1", ("openAI.baseURL", "placeholder stands for")),
    (AZURE, "spec.azureOpenAI.endpoint", "https://<res>.openai.azure.com", ("endpoint", "placeholder stands for")),
    (AZURE, "spec.azureOpenAI.subscriptionID", "<subscription>", ("subscriptionID", "placeholder stands for")),
    (LOCAL, "spec.huggingFace.trainerImage", "https://ghcr.io/a/b:1", ("trainerImage", "without https://")),
    (LOCAL, "spec.huggingFace.artifacts.uri", "hf://bucket/x", ("artifacts.uri: write pvc://CLAIM", "gs://BUCKET")),
    (LOCAL, "spec.huggingFace.artifacts.uri", "s3://key:x@bucket", ("artifacts.uri: write pvc://", "s3://BUCKET")),
    (LOCAL, "spec.huggingFace.artifacts.uri", "abfs://bucket/x", ("abfs://CONTAINER@ACCOUNT.dfs.core.windows.net",)),
    (LOCAL, "spec.huggingFace.artifacts.uri", "s3://bucket/../x", ("artifacts.uri", "without it")),
    (LOCAL, "spec.huggingFace.artifacts.secretRef", {"name": "k"}, ("artifacts.secretRef are for object stores",)),
    (LOCAL, "spec.huggingFace.artifacts.endpointURL", "https://s3", ("artifacts.endpointURL and artifacts",)),
    (LOCAL, "spec.huggingFace.artifacts.uri", "pvc://m/../x", ("artifacts.uri", "may not have a '..' segment")),
    (LOCAL, "spec.huggingFace.airGapped", True, ("airGapped needs huggingFace.modelCache",)),
    (LOCAL, "spec.huggingFace.modelCache", {}, ("spec.huggingFace.modelCache.volume: Required",)),
    (LOCAL, "spec.huggingFace.imagePullPolicy", "Sometimes", ("imagePullPolicy", '"IfNotPresent"')),
    (LOCAL, "spec.huggingFace.maxRetries", 11, ("spec.huggingFace.maxRetries", "less than or equal to 10")),
    (LOCAL, "spec.huggingFace.podTemplate.queueName", "Team_Queue", ("podTemplate.queueName", "in small letters")),
    (LOCAL, "spec.huggingFace.podTemplate.queue", "x", ('unknown field "spec.huggingFace.podTemplate.queue"',)),
    (LOCAL, "spec.fineTuning.allowedModels", "meta-llama/*", ("spec.fineTuning.allowedModels", "array")),
    *(
        (LOCAL, "spec.fineTuning.allowedModels", [text], ("allowedModels[0]", "write a glob, such as meta-llama/*"))
        for text in ("^meta-llama/.*$", "meta-llama/* ", r"meta-llama/Llama-3\.1")
    ),
    (LOCAL, "spec.fineTuning.allowedModels", [""], ("spec.fineTuning.allowedModels[0]", "at least 1")),
    (LOCAL, "spec.fineTuning.allowedEndpoints", ["https://api*/*"], ("allowedEndpoints[0]", "such as https://HOST/*")),
    (LOCAL, SELECTOR, [{"key": "a", "operator": "in"}], ("operator", '"NotIn"', '"Exists"')),
    (LOCAL, SELECTOR, [{"key": "a", "operator": "In"}], ("matchExpressions[0]", "In and NotIn need values")),
    (LOCAL, SELECTOR, [{"key": "a", "operator": "Exists", "values": ["b"]}], ("Exists and DoesNotExist have none",)),
    (LOCAL, "spec.checkPod", {"image": "a:1"}, ("checkPod is for providers outside of the cluster",)),
    (OPENAI, "spec.checkPod.imagePullPolicy", "Sometimes", ("spec.checkPod.imagePullPolicy", '"IfNotPresent"')),
    (OPENAI, "spec.openAI.apiKeySecretRef", REMOVE, ("spec.openAI.apiKeySecretRef: Required",)),
    (OPENAI, "spec.openAI.apiKey", "sk-123", ('unknown field "spec.openAI.apiKey"',)),
    (LOCAL, "spec.huggingFace.modelCache", {"volume": {}}, ("modelCache.volume", "at least 1")),
    (LOCAL, "spec.huggingFace.modelCache", {"volume": {"emptyDir": {}, "nfs": {}}}, ("modelCache.volume", "at most 1")),
    (OPENAI, "spec.openAI.baseURL", "https://me:secret@api.openai.com", ("baseURL", "without credentials")),
    (OPENAI, "spec.openAI.baseURL", "https://api.openai.com/v1 ", ("baseURL", "white space")),
    *(
        (
            OPENAI,
            "spec.openAI.baseURL",
            f"https://api.openai.com/v1{rest}",
            ("baseURL: ", "without credentials, queries"),
        )
        for rest in ("?api-version=1", "?key=secret", "#top")
    ),
    *(
        (OPENAI, "spec.openAI.baseURL", f"https://api.openai.com/v1/{call}", ("baseURL: ", "the root of the API"))
        for call in ("chat/completions", "chat/completions/", "completions", "responses", "fine_tuning/jobs")
    ),
    *(
        (
            AZURE,
            "spec.azureOpenAI.endpoint",
            f"https://res.openai.azure.com/openai{rest}",
            ("endpoint alone", "without /openai"),
        )
        for rest in ("", "/", "/v1/", "/deployments/x", "/deployments/x/chat/completions")
    ),
    *(
        (LOCAL, "spec.huggingFace.gpuResource", name, ("gpuResource: ", "such as nvidia.com/gpu"))
        for name in ("gpu", "nvidia", "nvidia.com/", "NVIDIA.com/gpu", "nvidia.com/gpu: 1", "")
    ),
    (OPENAI, "spec.openAI.baseURL", "api.openai.com", ("spec.openAI.baseURL", "such as https://HOST")),
    (AZURE, "spec.azureOpenAI.endpoint", "res.openai.azure.com", ("spec.azureOpenAI.endpoint", "such as https://HOST")),
    (AZURE, "spec.azureOpenAI.endpoint", REMOVE, ("endpoint and account, or a workspace",)),
    (AZURE, "spec.azureOpenAI.account", REMOVE, ("endpoint and account, or a workspace",)),
    (
        AZURE,
        "spec.azureOpenAI.evaluation",
        {"sku": "ProvisionedManaged"},
        ("spec.azureOpenAI.evaluation.sku", '"DeveloperTier"'),
    ),
    (AZURE, "spec.azureOpenAI.credentials", {}, ("either secretRef or workloadIdentity: true",)),
    (AZURE, "spec.azureOpenAI.credentials.workloadIdentity", True, ("either secretRef or workloadIdentity: true",)),
    (BEDROCK, "spec.bedrock.roleARN", "bedrock-finetune", ("roleARN", "arn:aws:iam::ACCOUNT:role/NAME")),
    (BEDROCK, "spec.bedrock.roleARN", "arn:aws:iam::1:user/x", ("roleARN", "arn:aws:iam::ACCOUNT:role/NAME")),
    (BEDROCK, "spec.bedrock.region", "cn-north-1", ("spec.bedrock.roleARN", "arn:aws-cn: in China's regions")),
    (BEDROCK, "spec.bedrock.region", "us-gov-west-1", ("spec.bedrock.roleARN", "arn:aws-us-gov: in those of GovCloud")),
    (BEDROCK, "spec.bedrock.roleARN", "arn:aws-cn:iam::123456789012:role/r", ("roleARN", "arn:aws: elsewhere")),
    (BEDROCK, "spec.bedrock.region", "US", ("spec.bedrock.region", "such as us-east-1")),
    (BEDROCK, "spec.bedrock.endpoints", {"runtime": "vpce.example.com"}, ("endpoints.runtime", "such as https://HOST")),
    (BEDROCK, "spec.bedrock.results", "Forget", ("spec.bedrock.results", '"Keep"')),
    (BEDROCK, "spec.bedrock.s3", REMOVE, ("spec.bedrock.s3: Required",)),
    (BEDROCK, "spec.bedrock.s3.bucket", "b", ("spec.bedrock.s3.bucket", "at least 3")),
    (BEDROCK, "spec.bedrock.s3.bucket", "s3://data", ("spec.bedrock.s3.bucket", "without s3://")),
    (BEDROCK, "spec.bedrock.s3.prefix", "/tuning/", ("spec.bedrock.s3.prefix", "without a slash")),
    (BEDROCK, "spec.bedrock.s3.prefix", "team/../others", ("spec.bedrock.s3.prefix", "without ..")),
    (BEDROCK, "spec.bedrock.credentials", {"podIdentity": False}, ("either secretRef or podIdentity: true",)),
    (LOCAL, "spec.sageMaker", SAGEMAKER["spec"]["sageMaker"], ("exactly one provider block",)),
    (SAGEMAKER, "spec.sageMaker.region", "us-iso-east-1", ("spec.sageMaker.roleARN", "another partition of AWS")),
    (SAGEMAKER, "spec.sageMaker.region", "US", ("spec.sageMaker.region", "such as us-east-1")),
    (SAGEMAKER, "spec.sageMaker.roleARN", "sagemaker", ("roleARN", "arn:aws:iam::ACCOUNT:role/NAME")),
    (SAGEMAKER, "spec.sageMaker.trainerImage", REMOVE, ("spec.sageMaker.trainerImage: Required",)),
    (SAGEMAKER, "spec.sageMaker.instanceTypes", [], ("spec.sageMaker.instanceTypes", "at least 1")),
    (SAGEMAKER, "spec.sageMaker.instanceTypes", ["g5.xlarge"], ("instanceTypes[0]", "such as ml.g5.xlarge")),
    (SAGEMAKER, "spec.sageMaker.s3.bucket", "s3://data", ("spec.sageMaker.s3.bucket", "without s3://")),
    (SAGEMAKER, "spec.sageMaker.vpc", {"subnets": []}, ("spec.sageMaker.vpc.securityGroupIDs: Required",)),
    (SAGEMAKER, "spec.sageMaker.networkIsolation", True, ("networkIsolation needs sageMaker.modelCache",)),
    (SAGEMAKER, "spec.sageMaker.spot", {"enabled": True, "maxWaitSeconds": 60}, ("write at least maxRuntimeSeconds",)),
    (SAGEMAKER, "spec.sageMaker.maxRuntimeSeconds", 5, ("maxRuntimeSeconds", "greater than or equal to 60")),
    (SAGEMAKER, "spec.sageMaker.endpoints", {"control": "vpce"}, ("endpoints.control", "such as https://HOST")),
    (SAGEMAKER, "spec.sageMaker.credentials", {}, ("either secretRef or podIdentity: true",)),
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


def test_several_mistakes_are_told_at_once(server: Server) -> None:
    message = server.refusal(changed(changed(JOB, "spec.method", "Lora"), "spec.lora.r", 0))
    assert "spec.method" in message
    assert "spec.lora.r" in message


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


@pytest.mark.parametrize("manifest", [JOB, MODEL, DEPLOYMENT, LOCAL], ids=name)
def test_a_kind_in_small_letters_is_all_that_is_refused_then(server: Server, manifest: Manifest) -> None:
    """kubectl finds the kind all the same; the API server fills in no defaults, which rules would miss."""
    written, kind = manifest["kind"].lower(), manifest["kind"]
    message = server.refusal(manifest | {"kind": written})
    assert message.endswith(f'is invalid: kind: Invalid value: "{written}": must be {kind}')
