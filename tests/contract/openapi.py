"""Converts the API server's own OpenAPI document to JSON schemas for kubeconform."""

import copy
import json
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
LOCATION = "{{ .ResourceKind }}-{{ .ResourceAPIVersion }}.json"


def write_schemas(swagger: Schema, folder: Path) -> None:
    """Write one closed schema per kind: unknown fields are errors."""
    definitions = {name: _closed(schema) for name, schema in swagger["definitions"].items()}
    (folder / "_definitions.json").write_text(json.dumps({"definitions": definitions}))
    for name, schema in swagger["definitions"].items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            if len(schema["x-kubernetes-group-version-kind"]) == 1:
                path = folder / f"{kind['kind'].lower()}-{kind['version']}.json"
                path.write_text(json.dumps({"$ref": f"_definitions.json#/definitions/{name}"}))


def _closed(schema: Schema) -> Schema:
    closed = copy.deepcopy(schema)
    if "properties" in closed and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    if closed.get("format") == "int-or-string":
        closed["type"] = ["string", "integer"]
    closed.pop("format", None)
    return closed
