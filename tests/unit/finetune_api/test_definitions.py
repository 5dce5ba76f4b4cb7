"""The generated definitions: up to date, described, bounded, closed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.base import NOT_RECONCILED
from finetune_api.crds import KINDS, Kind, crd, files, immutable, main, object_schema
from finetune_api.job import MUTABLE_FIELDS
from tests.unit.finetune_operator.decide.given import kstatus

ROOT = Path(__file__).parents[3]
FOLDERS = [ROOT / "crds", ROOT / "helm/finetune-operator/files/crds"]
Schema = dict[str, Any]

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field below the schema with its path."""
    for name, part in schema.get("properties", {}).items():
        yield f"{path}.{name}", part
        yield from walk(part, f"{path}.{name}")
    for key, step in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield f"{path}{step}", schema[key]
            yield from walk(schema[key], f"{path}{step}")


def own_fields(kind: Kind) -> Iterator[tuple[str, Schema]]:
    properties = object_schema(kind)["properties"]
    for part in ("spec", "status"):
        yield from walk(properties[part], f".{part}")


@pytest.mark.parametrize("folder", FOLDERS, ids=["crds", "chart"])
def test_written_definitions_are_those_of_the_models(folder: Path) -> None:
    written = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    assert written == dict(files()), "run `make crds`"


def test_the_command_writes_them_into_every_folder_it_is_given(tmp_path: Path) -> None:
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert {path.name for path in (tmp_path / "b").iterdir()} == {name for name, _ in files()}
    assert main([]) == 2


def test_files_can_be_read_by_any_yaml_reader_without_anchors() -> None:
    for _, text in files():
        assert yaml.load(text, Loader=yaml.CSafeLoader)["kind"] == "CustomResourceDefinition"
        assert "&id" not in text


@every_kind
def test_every_field_says_what_it_is_in_a_sentence(kind: Kind) -> None:
    silent = [
        path
        for path, part in own_fields(kind)
        if not path.endswith(("[]", "{}")) and not part.get("description", "").strip().endswith((".", ")"))
    ]
    assert silent == []


@every_kind
def test_every_default_is_told_in_the_description(kind: Kind) -> None:
    silent = [
        path
        for path, part in own_fields(kind)
        if part.get("default") is not None
        and not isinstance(part["default"], dict)
        and "Default" not in part["description"]
    ]
    assert silent == []


def told(default: Any) -> str:
    """A default as people write it in a manifest."""
    return str(default).lower() if isinstance(default, bool) else str(default)


@every_kind
def test_the_default_that_a_description_tells_is_the_one_that_the_api_server_fills_in(kind: Kind) -> None:
    filled = [
        (path, part["default"], part["description"])
        for path, part in own_fields(kind)
        if isinstance(part.get("default"), bool | int | float | str)
    ]
    wrong = [(path, text) for path, default, text in filled if f"Default: {told(default)}." not in text]
    assert wrong == []


@every_kind
def test_every_range_of_a_specs_number_is_told_in_the_description(kind: Kind) -> None:
    silent = [
        path
        for path, part in own_fields(kind)
        if path.startswith(".spec.")
        and {"minimum", "maximum"} <= set(part)
        and f"{part['maximum']:.15g}." not in part["description"].partition("Range: ")[2]
    ]
    assert silent == []


@every_kind
def test_every_text_list_and_map_has_a_limit(kind: Kind) -> None:
    limits = {"string": ("maxLength", "enum"), "array": ("maxItems",), "object": ("properties", "maxProperties")}
    unbounded = [
        path
        for path, part in own_fields(kind)
        if part.get("type") in limits
        and not part.get("x-kubernetes-preserve-unknown-fields")
        and not any(key in part for key in limits[part["type"]])
    ]
    assert unbounded == []


@every_kind
def test_every_number_of_a_spec_has_bounds(kind: Kind) -> None:
    spec = object_schema(kind)["properties"]["spec"]
    unbounded = [
        path
        for path, part in walk(spec, ".spec")
        if part.get("type") in {"integer", "number"} and not {"minimum", "maximum"} <= set(part)
        and path != ".spec.activeVersion"  # versions have no end
    ]  # fmt: skip
    assert unbounded == []


@every_kind
def test_references_to_objects_are_called_so(kind: Kind) -> None:
    """Kubernetes' convention: an object with only a name (and key) is a ...Ref."""
    odd = [
        path
        for path, part in own_fields(kind)
        if set(part.get("properties", ())) in ({"name"}, {"name", "key"}) and not path.endswith(("Ref", "[]"))
    ]
    assert odd == []


@every_kind
def test_columns_show_fields_that_exist(kind: Kind) -> None:
    known = {path for path, _ in own_fields(kind)} | {".metadata.creationTimestamp", ".metadata.deletionTimestamp"}
    for column in kind.columns:
        path = column.path.partition("[?")[0]
        assert path in known, column.name


@every_kind
def test_age_is_the_last_column_as_kubectl_has_it(kind: Kind) -> None:
    assert kind.columns[-1].name == "Age"


@every_kind
def test_conditions_can_be_applied_by_type(kind: Kind) -> None:
    conditions = object_schema(kind)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_short_names_and_plurals_are_those_of_the_design() -> None:
    names = {kind.kind: (kind.plural, kind.short, kind.scope) for kind in KINDS}
    assert names == {
        "LLMConnection": ("llmconnections", "llmc", "Cluster"),
        "FineTuneJob": ("finetunejobs", "ftj", "Namespaced"),
        "FineTunedModel": ("finetunedmodels", "ftm", "Namespaced"),
        "ModelDeployment": ("modeldeployments", "md", "Namespaced"),
    }


def test_all_of_a_job_but_the_mutable_fields_is_fixed() -> None:
    job = next(kind for kind in KINDS if kind.kind == "FineTuneJob")
    spec = crd(job)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fields = spec["properties"]
    fixed = {
        name
        for name, field in fields.items()
        if any(rule["rule"] == "self == oldSelf" for rule in field.get("x-kubernetes-validations", ()))
    }
    assert fixed == set(fields) - set(MUTABLE_FIELDS)
    neither_come_nor_go = {
        rule["fieldPath"][1:] for rule in spec["x-kubernetes-validations"] if "has(oldSelf." in rule["rule"]
    }
    always_there = {name for name, field in fields.items() if "default" in field} | set(spec["required"])
    assert neither_come_nor_go == fixed - always_there
    assert MUTABLE_FIELDS == ("suspend", "ttlSecondsAfterFinished", "retryNonce")


def test_what_cannot_be_changed_is_judged_when_it_comes_and_not_at_each_write_of_a_status() -> None:
    job = next(kind for kind in KINDS if kind.kind == "FineTuneJob")
    spec = object_schema(job)["properties"]["spec"]
    uri = spec["properties"]["dataset"]["properties"]["train"]["properties"]["uri"]
    rules = [rule for part in (spec, uri) for rule in part["x-kubernetes-validations"]]
    judging = [rule for rule in rules if "has(oldSelf." not in rule["rule"]]
    assert all(one["rule"].startswith("oldSelf.hasValue() || (") and one["optionalOldSelf"] for one in judging)
    assert len(judging) > len(uri["x-kubernetes-validations"]) > 0
    said = " ".join(one["rule"] for one in judging).replace("!has(self.suspend) || ", "")  # it has a default
    assert not [name for name in MUTABLE_FIELDS if f"self.{name}" in said]


def test_a_mutable_field_that_does_not_exist_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="pause: no such field"):
        immutable({"properties": {"suspend": {}}}, ["suspend", "pause"])


SEVERAL_TO_BLAME = {
    "spec needs exactly one provider block: huggingFace, openAI, azureOpenAI, bedrock or sageMaker",
    "a connection keeps its provider, with which jobs and versions were made: apply another LLMConnection for another "
    "provider",
    "name at most one of huggingFace, azureOpenAI, bedrock and sageMaker (kubectl scale and autoscalers write "
    "huggingFace: they are for servers on this cluster)",
}
"""What is told of the whole spec, as no one field of it is the wrong one."""


@every_kind
def test_a_rule_of_the_whole_spec_blames_a_field_of_it(kind: Kind) -> None:
    spec = object_schema(kind)["properties"]["spec"]
    for rule in spec.get("x-kubernetes-validations", ()):
        if rule["message"] not in SEVERAL_TO_BLAME:
            assert "fieldPath" in rule, rule["message"]
            part = spec
            for name in rule["fieldPath"].split(".")[1:]:
                assert name in part["properties"], rule["fieldPath"]
                part = part["properties"][name]


@every_kind
def test_no_rule_without_a_message(kind: Kind) -> None:
    schema = object_schema(kind)
    parts = [schema, schema["properties"]["spec"], *(part for _, part in own_fields(kind))]
    found = [rule for part in parts for rule in part.get("x-kubernetes-validations", ())]
    assert all(rule["message"] for rule in found)


@every_kind
def test_an_object_that_nobody_has_looked_at_is_not_taken_for_done(kind: Kind) -> None:
    default = object_schema(kind)["properties"]["status"]["default"]
    status = kind.status.model_validate(default)
    assert status.wire() == default, "a status that the operator could have written"
    assert {kstatus(status), kstatus(status, generation=NOT_RECONCILED)} == {"InProgress"}
    assert {"phase"} & set(kind.status.model_fields) == {"phase"} & set(default)
