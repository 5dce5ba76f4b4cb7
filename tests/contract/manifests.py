"""Valid manifests, and a helper to change single fields."""

import copy
from typing import Any

from finetune_api.manifest import Manifest

API = "finetune.dev/v1alpha1"
REMOVE = object()
"""As a value in `changed`: removes the field."""

Refused = tuple[Manifest, str, Any, tuple[str, ...]]
"""A valid manifest, a field, its new value, and what the error must contain."""

JOB: Manifest = {
    "apiVersion": API,
    "kind": "FineTuneJob",
    "metadata": {"name": "sentiment-1", "namespace": "default"},
    "spec": {
        "connectionRef": {"name": "local"},
        "baseModel": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "modelRef": {"name": "sentiment"},
        "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
    },
}
EVALUATION: Manifest = {
    "metrics": ["rougeL", "exactMatch", "tokenF1", "chrF", "jsonValid", "jsonFields"],
    "output": {"uri": "pvc://reports/team-a/tweets"},
    "baselines": [
        {"zeroShot": {}},
        {"fewShot": {"examples": 8}},
        {"activeVersion": {}},
        {
            "endpoint": {
                "name": "rag",
                "url": "http://rag.team-a.svc/v1",
                "model": "rag",
                "apiKeySecretRef": {"name": "rag", "key": "api-key"},
                "concurrency": 8,
                "timeoutSeconds": 30,
            }
        },
        {"endpoint": {"name": "big", "url": "https://api.example.com/v1", "model": "big"}},
    ],
    "judge": {
        "url": "https://api.example.com/v1",
        "model": "big",
        "apiKeySecretRef": {"name": "judge", "key": "api-key"},
        "criteria": "it is polite",
    },
    "maxNewTokens": 256,
}
MODEL: Manifest = {
    "apiVersion": API,
    "kind": "FineTunedModel",
    "metadata": {"name": "sentiment", "namespace": "default"},
    "spec": {},
}
DEPLOYMENT: Manifest = {
    "apiVersion": API,
    "kind": "ModelDeployment",
    "metadata": {"name": "sentiment", "namespace": "default"},
    "spec": {"modelRef": {"name": "sentiment"}},
}
LOCAL: Manifest = {
    "apiVersion": API,
    "kind": "LLMConnection",
    "metadata": {"name": "local"},
    "spec": {
        "namespaceSelector": {},
        "huggingFace": {"trainerImage": "example/trainer:1", "artifacts": {"uri": "pvc://models"}},
    },
}
OPENAI: Manifest = LOCAL | {"spec": {"openAI": {"apiKeySecretRef": {"name": "openai", "key": "api-key"}}}}
AZURE: Manifest = LOCAL | {
    "spec": {
        "azureOpenAI": {
            "endpoint": "https://res.openai.azure.com",
            "subscriptionID": "11111111-2222-3333-4444-555555555555",
            "resourceGroup": "ai",
            "account": "res",
            "credentials": {"secretRef": {"name": "azure"}},
        }
    }
}
BEDROCK: Manifest = LOCAL | {
    "spec": {
        "bedrock": {
            "region": "us-east-1",
            "roleARN": "arn:aws:iam::111122223333:role/bedrock-finetune",
            "s3": {"bucket": "data", "prefix": "finetune"},
            "credentials": {"podIdentity": True},
        }
    }
}


SAGEMAKER: Manifest = LOCAL | {
    "spec": {
        "sageMaker": {
            "region": "us-east-1",
            "roleARN": "arn:aws:iam::111122223333:role/sagemaker-finetune",
            "trainerImage": "111122223333.dkr.ecr.us-east-1.amazonaws.com/finetune-trainer:1",
            "s3": {"bucket": "data", "prefix": "finetune"},
            "instanceTypes": ["ml.g5.xlarge"],
            "credentials": {"podIdentity": True},
        }
    }
}


def changed(manifest: Manifest, path: str, value: Any) -> Manifest:
    """A copy with one field set, by a path such as `spec.dataset.train.uri`; missing parents are created."""
    copied = copy.deepcopy(manifest)
    *parents, last = path.split(".")
    part = copied
    for name in parents:
        part = part.setdefault(name, {})
    if value is REMOVE:
        part.pop(last)
    else:
        part[last] = value
    return copied
