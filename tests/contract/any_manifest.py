"""Manifests that hypothesis generates from the CRDs, with valid and invalid fields.

Each starts from a valid manifest, so that only the changed fields matter.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml
from hypothesis import strategies as st

from finetune_api.manifest import Manifest
from tests.contract.conftest import ROOT
from tests.contract.manifests import AZURE, BEDROCK, DEPLOYMENT, JOB, LOCAL, MODEL, OPENAI, REMOVE, changed

Schema = dict[str, Any]
Values = st.SearchStrategy[Any]

LONG = 300
KEPT = "x-kubernetes-preserve-unknown-fields"
ODD_TEXTS = (
    "", " ", "-", ".", "..", "../../etc/passwd", "/etc/passwd", "a/../b", "a//b", "%2e%2e/x", "$(HOME)", "{{ .x }}",
    "a\u0000b", "line\nbreak", "\u202egnp", "\U0001f600" * 8, "null", "true", "0x1", "1e999", "x" * LONG,
)  # fmt: skip
URIS = (
    "pvc://data/train.jsonl", "pvc://data/a/b/c.csv", "pvc://" + "c" * 253 + "/x", "s3://bucket/key.parquet",
    "gs://b/k", "abfs://box@account.dfs.core.windows.net/t.csv", "hf://datasets/owner/name/x.csv",
    "https://host/x.csv", "configmap://rows/train.csv", "pvc://data/%2e%2e/x", "pvc://data/" + "d/" * 120 + "x",
    "pvc://data/\u00e4\u00f6.jsonl", "pvc://../x", "pvc:///etc/passwd", "file:///etc/passwd", "configmap://a/../b",
)  # fmt: skip
QUANTITIES = (0, 1, 2, "500m", "16Gi", "1e3", "0.1", "-1", "16GB", "1.5.1", "", "9" * 32)
NAMES = ("a", "a-b", "a.b", "0", "0a", "a" * 63, "a" * 64, ("a" * 62 + ".") * 3 + "a" * 60, "x-" * 100 + "x")
"""Object names up to the API's limits, and beyond those of labels and Services."""


@cache
def schema_of(kind: str) -> Schema:
    """The schema of a kind's spec."""
    for path in (ROOT / "crds").glob("*.yaml"):
        definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["spec"]
        if definition["names"]["kind"] == kind:
            spec: Schema = definition["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            return spec
    raise AssertionError(kind)


def fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every field below a path, with its schema."""
    for name, inner in (schema.get("properties") or {}).items():
        yield f"{path}.{name}", inner
        yield from fields(inner, f"{path}.{name}")


def good(schema: Schema) -> Values:
    """Values that satisfy a schema's types and bounds; CEL rules may still refuse them."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from(QUANTITIES) | st.integers(0, 9)
    if schema.get(KEPT) and "properties" not in schema:
        return st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.text(max_size=5), max_size=2)
    match schema.get("type"):
        case "object":
            return _object(schema)
        case "array":
            return st.lists(good(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
        case "integer":
            return _bounded(schema, st.integers, 2**31)
        case "number":
            return _bounded(schema, st.floats, 1e9).map(lambda number: round(number, 6))
        case "boolean":
            return st.booleans()
    return _text(schema)


def bad(schema: Schema) -> Values:
    """Values of the wrong type, out of bounds, not in the enum, or with an unknown field."""
    wrong = {"string": 7, "integer": "seven", "number": "seven", "boolean": "yes", "array": {}, "object": []}
    kinds = [st.just(wrong.get(schema.get("type", ""), [[]]))]
    if schema.get("type") == "object" and ("properties" in schema or not schema.get(KEPT)):
        kinds.append(good(schema).map(lambda value: {**value, "noSuchField": 1}))
    if "enum" in schema:
        kinds.append(st.just("NoSuchValue"))
    if "maximum" in schema:
        kinds.append(st.just(int(schema["maximum"]) + 1))
    if "maxLength" in schema:
        kinds.append(st.just("x" * (schema["maxLength"] + 1)))
    return st.one_of(kinds)


def _object(schema: Schema) -> Values:
    known = schema.get("properties") or {}
    required = {name: good(known[name]) for name in schema.get("required", ())}
    optional = {name: good(inner) for name, inner in known.items() if name not in required}
    if "additionalProperties" in schema:
        return st.dictionaries(st.sampled_from(["a", "b/c", "d.e"]), good(schema["additionalProperties"]), max_size=3)
    return st.fixed_dictionaries(required, optional=optional)


def _bounded(schema: Schema, numbers: Any, widest: float) -> Values:
    lowest, highest = schema.get("minimum", -widest), schema.get("maximum", widest)
    inner: Values = numbers(lowest, highest)
    return inner | st.sampled_from([lowest, highest])


def _text(schema: Schema) -> Values:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", LONG)
    limits = st.sampled_from(["a" * max(shortest, 1), "b" * longest])
    plain = st.text("abcxyz0189-./:_", min_size=shortest, max_size=min(longest, 40))
    odd = st.sampled_from([text for text in (*ODD_TEXTS, *URIS) if shortest <= len(text) <= longest] or ["a"])
    return limits | plain | odd


BASES = (JOB, JOB, JOB, MODEL, DEPLOYMENT, LOCAL, OPENAI, AZURE, BEDROCK)


@st.composite
def manifests(draw: st.DrawFn, *bases: Manifest) -> Manifest:
    """A valid manifest of any kind, or one of `bases`, with up to three fields changed, removed or invalidated, and
    possibly an odd name."""
    base = draw(st.sampled_from(bases or BASES))
    choices = dict(fields(schema_of(base["kind"]), "spec"))
    breaks = draw(st.sampled_from([False, False, True]))
    manifest = base
    for path in draw(st.lists(st.sampled_from(sorted(choices)), min_size=1, max_size=3, unique=True)):
        values = bad(choices[path]) | st.just(REMOVE) if breaks else good(choices[path])
        manifest = _set(manifest, path, draw(values))
    name = draw(st.sampled_from([None, None, None, None, *NAMES]))
    return changed(manifest, "metadata.name", name) if name else manifest


def _set(manifest: Manifest, path: str, value: Any) -> Manifest:
    """`changed`, unless the path leads through something else than objects, or there is no field to remove."""
    *parents, last = path.split(".")
    part: Any = manifest
    for name in parents:
        if not isinstance(part, dict):
            return manifest
        part = part.get(name, {})
    if not isinstance(part, dict) or (value is REMOVE and last not in part):
        return manifest
    return changed(manifest, path, value)
