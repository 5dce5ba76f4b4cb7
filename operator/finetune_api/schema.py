"""Converts a pydantic model to a structural OpenAPI v3 schema, as CustomResourceDefinitions require it.

Knows Kubernetes' rules for schemas but none of our kinds; `crds` has names, columns and scope of the kinds.
"""

from itertools import combinations
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, NoDefault
from pydantic_core import core_schema

from finetune_api.base import CLOSED, ApiModel

Schema = dict[str, Any]

INT_OR_STRING = "x-kubernetes-int-or-string"
_KEPT = (
    "type", "description", "default", "enum", "format", "pattern", "required",
    "minimum", "maximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "minProperties",
    "maxProperties", "uniqueItems",
)  # fmt: skip
_DROPPED = ("title", "$defs", "$ref", "const", "anyOf", "items", "properties", "additionalProperties")
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


class SchemaError(TypeError):
    """The model has no structural schema; the message names what Kubernetes cannot express."""


class _WithFactories(GenerateJsonSchema):
    """Pydantic's own generator, which also shows defaults from factories."""

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        if "default_factory" in schema and not schema.get("default_factory_takes_data"):
            return _as_wire(schema["default_factory"]())  # type: ignore[call-arg]
        default = super().get_default_value(schema)
        return NoDefault if default is None else _as_wire(default)


def _as_wire(default: Any) -> Any:
    """A default in manifest form."""
    if isinstance(default, list):
        return [_as_wire(one) for one in default]
    return default.wire() if isinstance(default, ApiModel) else default


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The model as a structural schema, with all references resolved.

    Args:
        model: What the schema describes.
        defaults: Whether the API server fills in defaults. Not for status, which has only what was written.

    Raises:
        SchemaError: the model uses a construct that structural schemas do not have.
    """
    raw = model.model_json_schema(by_alias=True, schema_generator=_WithFactories)
    return _structural(raw, raw.get("$defs", {}), defaults=defaults)


def _structural(node: Schema, defs: dict[str, Schema], *, defaults: bool) -> Schema:
    node = _resolved(node, defs)
    unknown = [key for key in node if key not in {*_KEPT, *_DROPPED, *_EXCLUSIVE} and not key.startswith("x-")]
    if unknown:
        raise SchemaError(f"{', '.join(unknown)}: not part of a structural schema")
    out = {key: node[key] for key in node if key in _KEPT or key.startswith("x-kubernetes-")}
    out |= _exclusive_bounds(node)
    if "const" in node:
        out["enum"] = [node["const"]]
    out |= _children(node, defs, defaults=defaults)
    if node.get(CLOSED):
        out |= _closed(out["properties"])
    if not defaults:
        out.pop("default", None)
    return _described(out)


def _resolved(node: Schema, defs: dict[str, Schema]) -> Schema:
    """The node without `$ref` and without `X or null`. Keys beside a reference override those of its target."""
    while True:
        beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf", "title")}
        if "$ref" in node:
            target = defs[node["$ref"].removeprefix("#/$defs/")]
        elif "anyOf" in node:
            target = _one_of(node)
        else:
            return node
        node = {key: value for key, value in target.items() if key != "title"} | beside


def _one_of(node: Schema) -> Schema:
    choices = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
    if node.get(INT_OR_STRING):
        return {}
    if len(choices) != 1:
        raise SchemaError(f"a choice between {len(choices)} types: Kubernetes has only int-or-string")
    return dict(choices[0])


def _exclusive_bounds(node: Schema) -> Schema:
    """OpenAPI 3.0 spells `exclusiveMinimum: 0` as `minimum: 0` with `exclusiveMinimum: true`."""
    bounds: Schema = {}
    for exclusive, plain in _EXCLUSIVE.items():
        if exclusive in node:
            bounds |= {plain: node[exclusive], exclusive: True}
    return bounds


def _children(node: Schema, defs: dict[str, Schema], *, defaults: bool) -> Schema:
    if "items" in node:
        return {"items": _structural(node["items"], defs, defaults=defaults)}
    if node.get("properties"):
        parts = {name: _structural(part, defs, defaults=defaults) for name, part in node["properties"].items()}
        return {"properties": parts}
    values = node.get("additionalProperties")
    if isinstance(values, dict):
        return {"additionalProperties": _structural(values, defs, defaults=defaults)}
    return {}


def _closed(parts: Schema) -> Schema:
    """No other names, whoever writes the object: unknown fields are rejected only if the client asks for that.

    Structural schemas cannot express it except by counting. The first choice appears in error messages: as no object is
    a string, it never matches, and only lists the names beside the object as written.
    """
    names = tuple(parts)
    choices = [one for size in (*range(1, len(names) + 1), 0) for one in combinations(names, size)]
    counted = [{"maxProperties": len(one)} | ({"required": list(one)} if one else {}) for one in choices]
    return {
        "x-kubernetes-preserve-unknown-fields": True,
        "anyOf": [{"enum": [f"no fields but {', '.join(names)}"]}, *counted],
    }


def _described(out: Schema) -> Schema:
    """The schema with default and range in its description: `kubectl explain` shows neither."""
    if "description" not in out:
        return out
    return out | {"description": out["description"] + _default_text(out) + _range_text(out)}


def _default_text(out: Schema) -> str:
    default = out.get("default")
    if isinstance(default, dict) or default is None or "Default" in out["description"]:
        return ""
    told = {True: "true", False: "false"}.get(default, default) if isinstance(default, bool) else default
    told = ", ".join(map(str, told)) if isinstance(told, list) else told
    return f" Default: {told}."


def _range_text(out: Schema) -> str:
    if not {"minimum", "maximum"} <= set(out):
        return ""
    low = ("above " if out.get("exclusiveMinimum") else "") + f"{out['minimum']:.15g}"
    high = ("below " if out.get("exclusiveMaximum") else "") + f"{out['maximum']:.15g}"
    return f" Range: {low} to {high}."
