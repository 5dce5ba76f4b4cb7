"""The examples go together: each job may use the connection that it names, in the namespace that it is in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from finetune_api import policy
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from tests.unit.docs.pages import EXAMPLES, name_of

MANIFESTS: list[tuple[str, dict[str, Any]]] = [
    (name_of(path), manifest) for path in EXAMPLES for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {manifest["metadata"]["name"]: manifest for _, manifest in MANIFESTS if manifest["kind"] == kind}


JOBS = [
    pytest.param(manifest, id=f"{file}:{manifest['metadata']['name']}")
    for file, manifest in MANIFESTS
    if manifest["kind"] == "FineTuneJob"
]
CONNECTIONS, NAMESPACES = named("LLMConnection"), named("Namespace")


@pytest.mark.parametrize("job", JOBS)
def test_a_job_may_use_the_connection_that_it_names(job: dict[str, Any]) -> None:
    spec = FineTuneJobSpec.model_validate(job["spec"])
    namespace = NAMESPACES[job["metadata"]["namespace"]]["metadata"]
    connection = LLMConnectionSpec.model_validate(CONNECTIONS[spec.connection_ref.name]["spec"])
    request = policy.Request(spec, namespace["name"], namespace["labels"], connection)
    assert policy.refusal(request) is None


@pytest.mark.parametrize("job", JOBS)
def test_a_job_names_claims_that_its_namespace_has(job: dict[str, Any]) -> None:
    claims = {
        manifest["metadata"]["name"]
        for _, manifest in MANIFESTS
        if manifest["kind"] == "PersistentVolumeClaim"
        and manifest["metadata"]["namespace"] == job["metadata"]["namespace"]
    }
    places = [*job["spec"]["dataset"].values(), job["spec"].get("evaluation", {}).get("output", {})]
    uris = [place["uri"] for place in places if "uri" in place]
    assert {uri.split("/")[2] for uri in uris if uri.startswith("pvc://")} <= claims
