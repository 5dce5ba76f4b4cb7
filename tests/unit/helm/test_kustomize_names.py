"""helm/kustomize: kustomize renames objects and sets images, and what names them in our kinds follows."""

import json
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.crds import KINDS, object_schema
from tests.cluster import binaries
from tests.unit.finetune_api.test_definitions import walk

REFERENCES = Path(__file__).parents[3] / "helm/kustomize/name-references.yaml"
AUTOSCALER = {"kind": "HorizontalPodAutoscaler", "path": "spec/scaleTargetRef/name"}
"""Of Kubernetes' own kinds, what names one of ours (examples/deployments/autoscaled.yaml)."""

NAMED = {"connectionRef": "LLMConnection", "modelRef": "FineTunedModel"}
OF_PODS = {
    "configMapRef": "ConfigMap",
    "caBundleRef": "ConfigMap",
    "imagePullSecrets[]": "Secret",
    "priorityClassName": "PriorityClass",
    "queueName": "LocalQueue",
    "runtimeClassName": "RuntimeClass",
    "serviceAccountName": "ServiceAccount",
}

VOLUME = "spec/huggingFace/modelCache/volume"
"""Any volume source of core/v1: its fields are no part of our definitions."""
IN_VOLUME = {
    "PersistentVolumeClaim": ["persistentVolumeClaim/claimName"],
    "Secret": ["azureFile/secretName", "csi/nodePublishSecretRef/name"],
}


def target(field: str) -> str | None:
    """The kind that a reference leads to, by the end of its field's name."""
    return NAMED.get(field) or OF_PODS.get(field) or ("Secret" if field.lower().endswith("secretref") else None)


def expected() -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Every field of a spec that names another object, by what it names, and every one that is an image."""
    found = defaultdict[str, list[dict[str, str]]](list, {"ModelDeployment": [AUTOSCALER]})
    images = list[dict[str, str]]()
    for kind in KINDS:
        for path, part in walk(object_schema(kind)["properties"]["spec"], "spec"):
            field = path.rpartition(".")[2]
            place = path.replace(".", "/").replace("[]", "")  # of each element of a list
            if field.lower().endswith("image"):
                images.append({"kind": kind.kind, "path": place})
            if (leads_to := target(field)) and (part["type"] == "string" or "name" in part.get("properties", {})):
                found[leads_to].append(
                    {"kind": kind.kind, "path": place if part["type"] == "string" else f"{place}/name"}
                )
            for source, fields in IN_VOLUME.items() if place == VOLUME else ():
                found[source] += [{"kind": kind.kind, "path": f"{VOLUME}/{one}"} for one in fields]
            if place == VOLUME:
                images.append({"kind": kind.kind, "path": f"{VOLUME}/image/reference"})
    return [{"kind": kind, "fieldSpecs": fields} for kind, fields in sorted(found.items())], images


def test_every_field_that_names_another_object_or_an_image_is_listed() -> None:
    names, images = expected()
    assert yaml.safe_load(REFERENCES.read_text()) == {"nameReference": names, "images": images}


@pytest.mark.cluster
def test_a_suffix_a_generated_config_map_and_an_image_reach_what_names_them(tmp_path: Path) -> None:
    job = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "a"},
        "spec": {"modelRef": {"name": "m"}, "code": {"configMapRef": {"name": "recipe", "key": "train.py"}}},
    }
    model = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTunedModel", "metadata": {"name": "m"}}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    (tmp_path / "model.yaml").write_text(json.dumps(model))
    image = "registry.example.com/finetune-trainer"
    connection = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "LLMConnection",
        "metadata": {"name": "c"},
        "spec": {
            "huggingFace": {
                "trainerImage": f"{image}:0.1.0",
                "podTemplate": {"queueName": "gpus", "runtimeClassName": "nvidia"},
                "modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "cache"}}},
            }
        },
    }
    others = [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "cache"}},
        {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "metadata": {"name": "gpus"}},
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}},
    ]
    (tmp_path / "others.yaml").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": others}))
    (tmp_path / "connection.yaml").write_text(json.dumps(connection))
    (tmp_path / "train.py").write_text("pass\n")
    (tmp_path / REFERENCES.name).write_text(REFERENCES.read_text())
    kustomization = {
        "resources": ["job.yaml", "model.yaml", "connection.yaml", "others.yaml"],
        "images": [{"name": image, "newTag": "0.2.0"}],
        "nameSuffix": "-v2",
        "configMapGenerator": [{"name": "recipe", "files": ["train.py"]}],
        "configurations": [REFERENCES.name],
    }
    (tmp_path / "kustomization.yaml").write_text(json.dumps(kustomization))
    command = [str(binaries.program("kubectl")), "kustomize", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    spec = found["FineTuneJob"]["spec"]
    assert spec["modelRef"]["name"] == found["FineTunedModel"]["metadata"]["name"] == "m-v2"
    assert spec["code"]["configMapRef"]["name"] == found["ConfigMap"]["metadata"]["name"]
    local = found["LLMConnection"]["spec"]["huggingFace"]
    assert local["trainerImage"] == f"{image}:0.2.0"
    assert local["podTemplate"] == {"queueName": "gpus-v2", "runtimeClassName": "nvidia-v2"}
    assert local["modelCache"]["volume"]["persistentVolumeClaim"]["claimName"] == "cache-v2"
