"""Builders of FineTunedModels for the tests of decisions: versions, deployments and views."""

from dataclasses import replace
from typing import Any

from finetune_api.deployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.model import DeletedVersion, FineTunedModelSpec, FineTunedModelStatus, ModelVersion
from finetune_operator.decide.model import DeploymentView, ModelView
from tests.unit.finetune_operator.decide.given import NOW


def version(number: int, exact: float | None = None, verdict: str = "Better") -> ModelVersion:
    evaluation = None
    if exact is not None:
        evaluation = {"rows": 10, "tuned": {"exactMatch": exact}, "baselines": {}, "verdict": verdict}
    return ModelVersion.model_validate(
        {
            "version": number,
            "job": f"job-{number}",
            "jobUID": f"uid-{number}",
            "connection": "local",
            "baseModel": "tiny/llama",
            "method": "LoRA",
            "artifact": {"uri": f"pvc://models/team-a/sentiment/job-{number}/model"},
            "evaluation": evaluation,
            "createdAt": "2026-11-21T12:00:00Z",
        }
    )


def spec(**fields: Any) -> FineTunedModelSpec:
    return FineTunedModelSpec.model_validate(fields)


def view(*versions: ModelVersion, active: int | None = None, **fields: Any) -> ModelView:
    status = FineTunedModelStatus(active_version=active, versions=list(versions) or None)
    base = ModelView(
        name="sentiment",
        generation=1,
        deleting=False,
        spec=spec(),
        spec_error="",
        status=status,
        deployments=(),
        pruned=frozenset(),
        pruning=frozenset(),
        now=NOW,
    )
    return replace(base, **fields)


def deployed(
    served: int | None = None,
    name: str = "sentiment",
    owned: bool = True,
    wants: Any = "Active",
    of: str = "sentiment",
    **status: Any,
) -> DeploymentView:
    its_spec = ModelDeploymentSpec.model_validate({"modelRef": {"name": of}, "version": wants})
    conditions = [
        {"type": kind, "status": value, "reason": reason, "message": "m", "lastTransitionTime": "2026-11-21T12:00:00Z"}
        for kind, value, reason in status.pop("conditions", ())
    ]
    body = {"servedVersion": served, "conditions": conditions, **status}
    return DeploymentView(name, owned, its_spec, ModelDeploymentStatus.model_validate(body))


SCORES = {
    "rows": 200,
    "tuned": {"exactMatch": 0.8123456789, "loss": 0.4123456789},
    "baselines": {name: {"exactMatch": 0.7123456789, "verdict": "Better"} for name in ("zeroShot", "fewShot")},
    "verdict": "Better",
    "testSHA256": "e" * 64,
}


def evaluated(number: int) -> ModelVersion:
    """A version of maximum size."""
    folder = f"pvc://models/team-a/sentiment/sentiment-2026-11-{number:03d}/model"
    return ModelVersion.model_validate(
        {
            "version": number,
            "job": f"sentiment-2026-11-{number:03d}",
            "jobUID": f"00000000-0000-0000-0000-{number:012d}",
            "connection": "local-gpu",
            "baseModel": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "method": "LoRA",
            "loraRank": 16,
            "artifact": {"uri": folder, "sha256": "f" * 64, "kind": "Adapter"},
            "datasetSHA256": "d" * 64,
            "trainLoss": 0.1234567,
            "evalLoss": 0.1234567,
            "evaluation": SCORES,
            "createdAt": "2026-11-21T12:00:00Z",
        }
    )


def large(active: int | None, count: int = 100, let_go: int = 0) -> FineTunedModelStatus:
    """Status of a model with `count` versions, after `let_go` that history has dropped."""
    gone = [DeletedVersion(version=n, job=f"sentiment-2025-{n:03d}", job_uid="0" * 36) for n in range(1, let_go + 1)]
    versions = [evaluated(n) for n in range(let_go + 1, let_go + count + 1)]
    return FineTunedModelStatus(active_version=active, versions=versions, let_go=gone or None)
