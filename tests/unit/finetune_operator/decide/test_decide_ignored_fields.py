"""What does nothing, and is told: annotations that nobody reads, fields beside which another one decides."""

from typing import Any

import pytest

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.model import FineTunedModelSpec
from finetune_operator.decide import ignored_fields
from tests.unit.finetune_operator.decide.given import (
    azure_connection,
    bedrock_connection,
    connection,
    job_spec,
    openai_connection,
    sagemaker_connection,
)

ABANDON, WAKE = "finetune.dev/abandon", "finetune.dev/wake"
GIVEN = "kubectl.kubernetes.io/last-applied-configuration"
ADOPT = {"adopt": {"jobID": "ftjob-1"}}
JOBS: dict[str, tuple[Any, dict[str, Any], dict[str, str], list[str]]] = {
    "nothing": (openai_connection(), {}, {}, []),
    "annotations of others": (connection(), {}, {"example.com/abandon": "yes"}, []),
    "let go": (openai_connection(), {}, {ABANDON: "true"}, []),
    "let go with another word": (openai_connection(), {}, {ABANDON: "yes"}, [f'{ABANDON} is "yes", and only "true"']),
    "let go in capitals": (bedrock_connection(), {}, {ABANDON: "True"}, [f'{ABANDON} is "True", and only "true"']),
    "let go on this cluster": (connection(), {}, {ABANDON: "true"}, ["has nothing at a provider"]),
    "of another kind": (openai_connection(), {}, {WAKE: "1"}, [f"{WAKE} means nothing to a FineTuneJob"]),
    "a slip of the pen": (sagemaker_connection(), {}, {"finetune.dev/abandn": "true"}, ["finetune.dev/abandn means"]),
    "stop what was adopted": (openai_connection(), {**ADOPT, "suspend": True}, {}, ["spec.suspend: "]),
    "evaluate nothing": (connection(), {"evaluation": {"metrics": ["rougeL"]}}, {}, ["spec.evaluation: "]),
    "a word without a value": (
        connection(),
        {},
        {GIVEN: '{"spec":{"hyperparameters":{"epochs:5":null,"seed":null},"suspend":null},"metadata":{"a:1":null}}\n'},
        ["spec.hyperparameters: epochs:5 is a name without a value, which kubectl apply has left out"],
    ),
    "a name that is not a field": (
        connection(),
        {},
        {GIVEN: '{"spec":{"epochs":3,"lora":{"use_rslora":true},"evaluation":{"baselines":[{"zeroShot":{"n":1}}]}}}'},
        [
            "spec.lora.use_rslora: there is no such field, and the API server has left it out",
            "spec.evaluation.baselines[0].zeroShot.n: there is no such field",
            "spec.epochs: there is no such field",
        ],
    ),
    "more than are told": (
        connection(),
        {},
        {GIVEN: '{"spec":{"a":1,"b":1,"c":1,"d":1}}'},
        [*(f"spec.{name}: there is no such field" for name in "abc"), "spec: 1 more name left out"],
    ),
    "no JSON": (connection(), {}, {GIVEN: '{"spec":{"a:1":null'}, []),
    "a connection that is not there": (None, {}, {ABANDON: "true"}, []),
}


DATA_KEYS, HUB_KEY = {"secretRef": {"name": "keys"}}, {"hubTokenSecretRef": {"name": "hub", "key": "token"}}
CODE = {"code": {"configMapRef": {"name": "recipe", "key": "train.py"}}}
AIR_GAPPED = connection({"airGapped": True, "modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "c"}}}})
WANDB, OWN_WANDB = (
    {"trackers": {"wandb": {"secretRef": {"name": "wandb"}, **server}}}
    for server in ({}, {"baseURL": "https://wandb.site.example"})
)
STORED = connection(
    {
        "airGapped": True,
        "modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "c"}}},
        "artifacts": {"uri": "s3://bucket/tuned"},
    }
)
PUSH = {"artifact": {"push": {"oci": {"uri": "oci://registry.site.example/team/a:1"}}}}
ENDPOINT = {
    "evaluation": {"baselines": [{"endpoint": {"name": "rag", "url": "https://rag.example.com/v1", "model": "a"}}]}
}
NO_WANDB = "spec.trackers.wandb: the connection is airGapped"
NO_KEYS, NO_HUB = "spec.dataset.secretRef: all data are in volumes or ConfigMaps", "spec.hubTokenSecretRef: the connect"


def data(*uris: str) -> dict[str, Any]:
    return {
        "dataset": dict(zip(("train", "validation", "test"), ({"uri": uri} for uri in uris), strict=False)) | DATA_KEYS
    }


SECRETS: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "a volume": (AIR_GAPPED, data("pvc://d/t.jsonl"), [NO_KEYS]),
    "a volume, and a hub that a proxy of the Secret leads to": (connection(), data("pvc://d/t.jsonl"), []),
    "a volume, and artifacts in a store": (STORED, data("pvc://d/t.jsonl"), []),
    "a volume, and a tracker": (AIR_GAPPED, data("pvc://d/t.jsonl") | OWN_WANDB, []),
    "a volume, and a registry": (AIR_GAPPED, data("pvc://d/t.jsonl") | PUSH, []),
    "a volume, and an endpoint": (
        openai_connection(),
        data("pvc://d/t.jsonl", "pvc://d/v", "pvc://d/e") | ENDPOINT,
        [],
    ),
    "a volume, and nobody knows what else": (None, data("pvc://d/t.jsonl"), []),
    "a ConfigMap, at a provider": (openai_connection(), data("configmap://c/t.jsonl"), [NO_KEYS]),
    "a volume and a store": (connection(), data("pvc://d/t.jsonl", "s3://b/v.jsonl"), []),
    "a test set in a store": (connection(), data("pvc://d/t.jsonl", "pvc://d/v.jsonl", "hf://datasets/a/b/c"), []),
    "a web server, by a proxy of the Secret": (connection(), data("https://example.com/t.jsonl"), []),
    "code of one's own": (connection(), data("pvc://d/t.jsonl") | CODE, []),
    "a hub": (connection(), HUB_KEY, []),
    "no hub": (AIR_GAPPED, HUB_KEY, [NO_HUB]),
    "no hub, code of one's own": (AIR_GAPPED, HUB_KEY | CODE, []),
    "neither": (AIR_GAPPED, HUB_KEY | data("pvc://d/t.jsonl"), [NO_KEYS, NO_HUB]),
    "the public tracker, beyond the site": (AIR_GAPPED, HUB_KEY | WANDB, [NO_HUB, NO_WANDB]),
    "a tracker inside the site": (AIR_GAPPED, OWN_WANDB, []),
    "the public tracker": (connection(), WANDB, []),
    "nobody knows which": (None, HUB_KEY | WANDB, []),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_opens_nothing_and_a_service_that_is_not_asked_are_named(name: str) -> None:
    its_connection, fields, said = SECRETS[name]
    found = ignored_fields.of_job(job_spec(**fields), {}, its_connection)
    assert len(found) == len(said), found
    assert all(sentence.startswith(words) for words, sentence in zip(said, found, strict=True)), found


OF_ADOPTED: dict[str, Any] = {
    "hyperparameters": {"epochs": 2},
    "evaluation": {"metrics": ["rougeL"]},
    "preference": {},
    "lora": {"r": 8},
    "code": {"configMapRef": {"name": "recipe", "key": "train.py"}},
    "artifact": {"merge": True},
    "resources": {"instanceType": "ml.g5.2xlarge"},
    "budget": {"maxCost": "1"},
    "suspend": True,
    "activeDeadlineSeconds": 60,
    "hubTokenSecretRef": {"name": "hub", "key": "token"},
    "dataset.secretRef": {"train": {"uri": "s3://bucket/train.jsonl"}, "secretRef": {"name": "keys"}},
}


@pytest.mark.parametrize("field", OF_ADOPTED)
def test_what_was_made_elsewhere_is_made_in_no_other_way_and_that_is_told(field: str) -> None:
    asked = job_spec(**ADOPT, **{field.partition(".")[0]: OF_ADOPTED[field]})
    said = [f"spec.{field}: the job of adopt.jobID was made elsewhere, and is only observed"]
    assert ignored_fields.of_job(asked, {}, sagemaker_connection()) == said
    assert ignored_fields.of_job(job_spec(**ADOPT), {}, sagemaker_connection()) == []


@pytest.mark.parametrize("name", JOBS)
def test_what_does_nothing_on_a_job_is_named(name: str) -> None:
    its_connection, fields, annotations, said = JOBS[name]
    found = ignored_fields.of_job(job_spec(**fields), annotations, its_connection)
    assert len(found) == len(said), found
    assert all(words in sentence for words, sentence in zip(said, found, strict=True)), found


def test_a_label_that_puts_a_job_into_no_queue_is_named() -> None:
    labels = {"kueue.x-k8s.io/queue-name": "team", "a": "b"}
    (said,) = ignored_fields.of_job(job_spec(), {}, connection(), labels=labels)
    assert said.startswith("metadata.labels: kueue.x-k8s.io/queue-name: ")


MODELS: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "served by itself": ({"deployment": {"template": {"azureOpenAI": {}}}}, {ABANDON: "true"}, []),
    "a template for nobody": (
        {"deployment": {"mode": "Manual", "template": {"azureOpenAI": {}}}},
        {},
        ["spec.deployment.template: with mode Manual"],
    ),
    "by hand": ({"deployment": {"mode": "Manual"}}, {ABANDON: "1"}, [f'{ABANDON} is "1"']),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_does_nothing_on_a_model_is_named(name: str) -> None:
    fields, annotations, said = MODELS[name]
    found = ignored_fields.of_model(FineTunedModelSpec.model_validate(fields), annotations)
    assert len(found) == len(said), found
    assert all(words in sentence for words, sentence in zip(said, found, strict=True)), found


DEPLOYMENTS: dict[str, tuple[Any, dict[str, Any], dict[str, str], list[str]]] = {
    "both annotations": (azure_connection(), {"retryNonce": "1"}, {ABANDON: "true", WAKE: "2"}, []),
    "made by the operator": (azure_connection(), {}, {"finetune.dev/applied": "0123"}, []),
    "again, on this cluster": (connection(), {"retryNonce": "1"}, {}, ["spec.retryNonce: "]),
    "again, without a deployment": (openai_connection(), {"retryNonce": "1"}, {}, ["spec.retryNonce: "]),
    "idle, without a deployment": (openai_connection(), {"idle": {"afterSeconds": 600}}, {}, ["spec.idle: "]),
    "woken, without a deployment": (openai_connection(), {}, {WAKE: "1"}, [f"{WAKE}: the provider serves without"]),
    "woken, on this cluster": (connection(), {}, {WAKE: "1"}, []),
    "idle, on this cluster": (connection(), {"idle": {"afterSeconds": 600}}, {}, []),
    "let go on this cluster": (connection(), {}, {ABANDON: "true"}, ["has nothing at a provider"]),
    "nobody knows where": (None, {"retryNonce": "1"}, {ABANDON: "no"}, [f'{ABANDON} is "no"']),
}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_does_nothing_on_a_deployment_is_named(name: str) -> None:
    its_connection, fields, annotations, said = DEPLOYMENTS[name]
    spec = ModelDeploymentSpec.model_validate({"modelRef": {"name": "sentiment"}, **fields})
    found = ignored_fields.of_deployment(spec, annotations, its_connection)
    assert len(found) == len(said), found
    assert all(words in sentence for words, sentence in zip(said, found, strict=True)), found


def changed(of: LLMConnectionSpec, **fields: Any) -> LLMConnectionSpec:
    return LLMConnectionSpec.model_validate(of.wire() | fields)


CONNECTIONS: dict[str, tuple[LLMConnectionSpec, dict[str, str], list[str]]] = {
    "code here": (changed(connection(), fineTuning={"allowCode": True}), {}, []),
    "code at SageMaker": (changed(sagemaker_connection(), fineTuning={"allowCode": True}), {}, []),
    "code at OpenAI": (changed(openai_connection(), fineTuning={"allowCode": True}), {}, ["spec.fineTuning.allowCode"]),
    "waiting for what is not asked for": (
        changed(
            sagemaker_connection(),
            sageMaker=sagemaker_connection().wire()["sageMaker"] | {"spot": {"maxWaitSeconds": 90000}},
        ),
        {},
        ["spec.sageMaker.spot.maxWaitSeconds"],
    ),
    "an annotation": (azure_connection(), {ABANDON: "true"}, ["means nothing to a LLMConnection"]),
    "restrictions without a value": (
        connection(),
        {GIVEN: '{"spec":{"namespaceSelector":{"matchLabels":null},"fineTuning":{"allowedModels":null}}}'},
        [
            f"spec.{field}: there is nothing after"
            for field in ("namespaceSelector.matchLabels", "fineTuning.allowedModels")
        ],
    ),
    "labels of the operator": (
        connection(
            {"podTemplate": {"labels": {"finetune.dev/job": "x", "team": "a", "app.kubernetes.io/component": "y"}}}
        ),
        {},
        [
            f"spec.huggingFace.podTemplate.labels: {name} is"
            for name in ("finetune.dev/job", "app.kubernetes.io/component")
        ],
    ),
    "labels of the operator, on pods of checks": (
        changed(openai_connection(), checkPod={"podTemplate": {"labels": {"finetune.dev/model": "x"}}}),
        {},
        ["spec.checkPod.podTemplate.labels: finetune.dev/model is the operator's own label"],
    ),
}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_what_does_nothing_on_a_connection_is_named(name: str) -> None:
    its_spec, annotations, said = CONNECTIONS[name]
    found = ignored_fields.of_connection(its_spec, annotations)
    assert len(found) == len(said), found
    assert all(words in sentence for words, sentence in zip(said, found, strict=True)), found
