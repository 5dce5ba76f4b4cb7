"""What is said to belong into the open parts of a connection is what this API server knows."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from finetune_api.pod_fields import AFFINITY, TOLERATION, VOLUME, Shape
from tests.contract.conftest import Server

pytestmark = pytest.mark.cluster

CORE = "io.k8s.api.core.v1."


def differences(schemas: Mapping[str, Any], name: str, shape: Shape, path: str) -> Iterator[str]:
    """Where a shape and the server's schema of that name are not the same."""
    schema = schemas[name]
    ours = {field.rstrip("!"): below for field, below in shape.items()}
    names = schema["properties"].keys() - ({"name"} if path == "Volume" else set())
    yield from (f"{path}.{field}" for field in ours.keys() ^ names)
    needed = {field.rstrip("!") for field in shape if field.endswith("!")}
    yield from (f"{path}.{field} is required" for field in needed ^ set(schema.get("required", ())) - {"name"})
    for field, below in ours.items():
        its = schema["properties"].get(field, {})
        inner = next(iter((its.get("items") or its).get("allOf", [{}])), {}).get("$ref", "").rpartition("/")[2]
        if isinstance(below, Mapping):
            yield from differences(schemas, inner, below, f"{path}.{field}")
        elif isinstance(below, tuple) and "enum" in its and set(its["enum"]) != set(below):
            yield f"{path}.{field}: {its['enum']}"


@pytest.mark.parametrize(
    ("kind", "shape"), [("Volume", VOLUME), ("Toleration", TOLERATION), ("Affinity", AFFINITY)], ids=str
)
def test_the_names_are_those_of_the_server(server: Server, kind: str, shape: Shape) -> None:
    schemas = json.loads(server.kubectl("get", "--raw", "/openapi/v3/api/v1"))["components"]["schemas"]
    assert list(differences(schemas, CORE + kind, shape, kind)) == []
