"""The Argo CD health scripts on real-looking objects, in Argo CD's Lua, and in step with what users merge."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_api.crds import KINDS
from finetune_api.deployment import ModelDeploymentSpec, ModelDeploymentStatus
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import FineTuneJobStatus
from finetune_api.model import FineTunedModelSpec, FineTunedModelStatus
from tests.unit.helm.health import ARGOCD, SCRIPTS, health

KNOWN = {"Healthy", "Progressing", "Degraded", "Suspended"}
MODELS: dict[str, tuple[type[Any], type[Any]]] = {
    "LLMConnection": (LLMConnectionSpec, LLMConnectionStatus),
    "FineTuneJob": (FineTuneJobSpec, FineTuneJobStatus),
    "FineTunedModel": (FineTunedModelSpec, FineTunedModelStatus),
    "ModelDeployment": (ModelDeploymentSpec, ModelDeploymentStatus),
}

every_kind = pytest.mark.parametrize("kind", [kind.kind for kind in KINDS])


def rows() -> list[Any]:
    return [
        pytest.param(
            path.parent.name,
            yaml.safe_load((path.parent / test["inputPath"]).read_text()),
            test["healthStatus"],
            id=f"{path.parent.name}-{Path(test['inputPath']).stem}",
        )
        for path in sorted(SCRIPTS.glob("*/health_test.yaml"))
        for test in yaml.safe_load(path.read_text())["tests"]
    ]


@pytest.mark.parametrize(("kind", "obj", "expected"), rows())
def test_the_script_says_how_the_object_is(kind: str, obj: dict[str, Any], expected: dict[str, str]) -> None:
    assert health(kind, obj) == (expected["status"], expected["message"])


@pytest.mark.parametrize(("kind", "obj", "expected"), rows())
def test_the_objects_are_such_as_the_operator_writes(kind: str, obj: dict[str, Any], expected: dict[str, str]) -> None:
    assert expected["status"] in KNOWN
    spec, status = MODELS[kind]
    spec.model_validate(obj["spec"])
    status.model_validate(obj.get("status", {}))


@every_kind
def test_every_test_object_is_used(kind: str) -> None:
    tests = yaml.safe_load((SCRIPTS / kind / "health_test.yaml").read_text())["tests"]
    used = sorted(test["inputPath"] for test in tests)
    assert used == sorted(f"testdata/{path.name}" for path in (SCRIPTS / kind / "testdata").iterdir())


@every_kind
def test_every_kind_is_tried_in_good_and_bad_times(kind: str) -> None:
    tests = yaml.safe_load((SCRIPTS / kind / "health_test.yaml").read_text())["tests"]
    assert {"Healthy", "Progressing", "Degraded"} <= {test["healthStatus"]["status"] for test in tests}


@every_kind
@pytest.mark.parametrize(
    "status",
    [None, {}, {"conditions": []}, {"observedGeneration": 1}, {"observedGeneration": 1, "conditions": []}],
    ids=str,
)
def test_half_written_objects_are_on_their_way_and_break_nothing(kind: str, status: dict[str, Any] | None) -> None:
    obj: dict[str, Any] = {"metadata": {"name": "a", "generation": 1}, "spec": {}}
    if status is not None:
        obj["status"] = status
    assert health(kind, obj)[0] == "Progressing"


@every_kind
def test_a_changed_spec_is_on_its_way_until_the_operator_has_seen_it(kind: str) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": ""}
    obj = {"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "conditions": [ready]}}
    assert health(kind, obj)[0] == "Progressing"
    assert health(kind, obj | {"metadata": {"generation": 1}})[0] == "Healthy"


@every_kind
def test_what_users_merge_is_the_tested_script(kind: str) -> None:
    data = yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text())["data"]
    script = (SCRIPTS / kind / "health.lua").read_text()
    assert data[f"resource.customizations.health.finetune.dev_{kind}"] == script


def test_users_merge_nothing_else() -> None:
    assert len(yaml.safe_load((ARGOCD / "argocd-cm.yaml").read_text())["data"]) == len(KINDS)
