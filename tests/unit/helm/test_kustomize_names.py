"""helm/kustomize: kustomize renames objects, and what names them in our kinds follows."""

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
NAMED = {"connectionRef": "LLMConnection", "modelRef": "FineTunedModel"}


def target(field: str) -> str | None:
    """The kind that a reference leads to, by the end of its field's name."""
    of_pods = "ConfigMap" if field in {"configMapRef", "caBundleRef"} else None
    return NAMED.get(field) or of_pods or ("Secret" if field.lower().endswith("secretref") else None)


def expected() -> list[dict[str, Any]]:
    """Every field of a spec that names another object, by what it names."""
    found = defaultdict[str, list[dict[str, str]]](list)
    for kind in KINDS:
        for path, part in walk(object_schema(kind)["properties"]["spec"], "spec"):
            leads_to = target(path.rpartition(".")[2])
            if leads_to and "name" in part.get("properties", {}):
                place = path.replace(".", "/").replace("[]", "")  # of each element of a list
                found[leads_to].append({"kind": kind.kind, "path": f"{place}/name"})
    return [{"kind": kind, "fieldSpecs": fields} for kind, fields in sorted(found.items())]


def test_every_field_that_names_another_object_is_listed() -> None:
    assert yaml.safe_load(REFERENCES.read_text()) == {"nameReference": expected()}


@pytest.mark.cluster
def test_a_suffix_and_a_generated_config_map_reach_the_jobs_that_name_them(tmp_path: Path) -> None:
    job = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "a"},
        "spec": {"modelRef": {"name": "m"}, "code": {"configMapRef": {"name": "recipe", "key": "train.py"}}},
    }
    model = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTunedModel", "metadata": {"name": "m"}}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    (tmp_path / "model.yaml").write_text(json.dumps(model))
    (tmp_path / "train.py").write_text("pass\n")
    (tmp_path / REFERENCES.name).write_text(REFERENCES.read_text())
    kustomization = {
        "resources": ["job.yaml", "model.yaml"],
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
