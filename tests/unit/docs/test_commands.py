"""What the pages tell people to type works as written: programs, flags, files, kinds, fields, labels."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from finetune_api import names
from finetune_api.crds import KINDS, object_schema
from finetune_operator.__main__ import parser as operator_parser
from finetune_trainer.__main__ import parser as trainer_parser
from tests.cluster import binaries
from tests.unit.docs.pages import (
    CHART,
    PAGES,
    ROOT,
    Command,
    Schema,
    commands,
    fields,
    name_of,
    scripts,
    snippets,
    spans,
)

SCHEMAS = {kind.kind: object_schema(kind) for kind in KINDS}
OWN = {name: kind.kind for kind in KINDS for name in (kind.short, kind.plural, kind.plural[:-1])} | {
    kind.kind: kind.kind for kind in KINDS
}
OTHERS = {
    *("configmap", "crd", "deploy", "deployment", "events", "job", "jobs", "lease", "limitrange", "namespace", "nodes"),
    *("pod", "pods", "prometheus", "pvc", "resourcequota", "rolebinding", "secret", "service", "svc", "workloads"),
    names.CATEGORY,
}
"""Kinds of Kubernetes, of Kueue, of the Prometheus operator, and the category of our own, as kubectl spells them."""

VERBS_ON_KINDS = {"annotate", "delete", "describe", "explain", "get", "label", "patch", "wait"}
FILES_OF_READERS = {"job.yaml", "connection.yaml", "-", "key.txt", "train.py", "ca.crt"}
FLAGS_WITH_VALUES = {
    "-n",
    "--namespace",
    "-o",
    "-l",
    "-L",
    "-p",
    "-f",
    "--type",
    "--patch-file",
    "--set",
    "--set-string",
}
DEFAULTS = yaml.safe_load((ROOT / "helm/finetune-operator/values.yaml").read_text())
CATALOGUE = json.loads((ROOT / "helm/finetune-operator/files/providers.json").read_text())["providers"]
NOT_FIELDS = re.compile(r"\.(py|ya?ml|jsonl?|html|svg|bin|txt|toml|tar|gz|com|dev|app)$")
MADE_BY_TRAINER = commands("finetune-trainer", "finetune-operator")
OF_KUBECTL = commands("kubectl")
OF_HELM = commands("helm")


def positional(command: Command) -> list[str]:
    """Words that are neither flags nor their values, after the verb."""
    found, words = [], iter(command.words[1:])
    for word in words:
        if word == "--":
            break
        if word in FLAGS_WITH_VALUES:
            next(words, None)
        elif not word.startswith("-"):
            found.append(word)
    return found


def values(command: Command, *flags: str) -> list[str]:
    """What follows these flags, as `--flag value` or `--flag=value`."""
    words = command.words
    apart = [after for word, after in pairwise(words) if word in flags]
    return apart + [word.partition("=")[2] for word in words if word.partition("=")[0] in flags and "=" in word]


PATHS = {kind: {path for path, _ in fields(schema)} for kind, schema in SCHEMAS.items()}


def steps(path: str) -> tuple[str, ...]:
    return tuple(step for step in re.sub(r"\[[^\]]*\]", "", path).split(".") if step)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_shell_can_read_every_block_of_commands(page: Path) -> None:
    first = re.compile("(kubectl|helm|make|curl|docker|cd|uri=) ?")
    told = "\n".join(script for script in scripts(page) if first.match(script) and "─▶" not in script)
    done = subprocess.run(["bash", "-n"], input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_variable_of_a_command_is_set_or_told_on_its_page(page: Path) -> None:
    typed = "\n".join(scripts(page))
    used = set(re.findall(r"(?<!\\)\$\{?([A-Za-z_]\w*)", typed))
    known = set(re.findall(r"(\w+)=", typed)) | set(re.findall(r"(?:for|read -r) (\w+)", typed)) | set(spans(page))
    assert used <= known, f"{name_of(page)}: {used - known}"


def test_what_is_copied_into_the_model_cache_is_what_the_example_reads_there() -> None:
    read = [text for path in (ROOT / "examples/model-cache").glob("*.yaml") for text in path.read_text().split()]
    copied = [found for page in PAGES for found in re.findall(r"> (/model-cache/[^\s'\"$]+)['\"]", page.read_text())]
    assert copied
    assert [path for path in copied if not any(word.endswith(f"={path}") for word in read)] == []


@pytest.mark.parametrize("command", MADE_BY_TRAINER, ids=str)
def test_our_own_commands_take_the_flags_that_are_told(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    parser: argparse.ArgumentParser = trainer_parser() if command.program == "finetune-trainer" else operator_parser()
    try:
        parser.parse_args(command.words[1:])
    except SystemExit:
        said = capsys.readouterr().err
        # A sentence names a command, or one flag of it, without the rest.
        assert "the following arguments are required" in said or "--code: expected one argument" in said, said


@pytest.mark.parametrize("command", OF_KUBECTL, ids=str)
def test_kubectl_is_told_kinds_that_exist(command: Command) -> None:
    verb, *words = positional(command)
    if verb not in VERBS_ON_KINDS or not words or words[0] == "…":
        return
    for kind in re.split(",", words[0].partition("/")[0]):
        assert kind.partition(".")[0] in {*OWN, *OTHERS}, kind


@pytest.mark.parametrize("command", OF_KUBECTL, ids=str)
def test_kubectl_is_told_files_that_exist(command: Command) -> None:
    for file in values(command, "-f", "--patch-file", "--from-file"):
        name = file.rpartition("=")[2]
        places = (ROOT / name, command.page.parent / name)
        assert name in FILES_OF_READERS or any(place.exists() for place in places), name


@pytest.mark.parametrize("command", OF_KUBECTL, ids=str)
def test_kubectl_is_told_fields_that_exist(command: Command) -> None:
    verb, *words = positional(command)
    kind = OWN.get(words[0].partition("/")[0].partition(".")[0]) if words else None
    if kind is None:
        return
    paths = [path for text in values(command, "-o") for path in re.findall(r"\{\.([^}]*)\}", text)]
    paths += [words[0].partition(".")[2]] if verb == "explain" else []
    for patch in values(command, "-p"):
        change = json.loads(patch)
        if isinstance(change, dict):
            paths += [f"spec.{name}" for name in change.get("spec", {})]
        else:
            paths += [one["path"].strip("/").replace("/", ".") for one in change]
    for path in paths:
        assert steps(path) in PATHS[kind], f"{kind} has no {path}"


@pytest.mark.parametrize("command", OF_KUBECTL, ids=str)
def test_kubectl_is_told_labels_annotations_and_conditions_that_exist(command: Command) -> None:
    known = {value for value in vars(names).values() if isinstance(value, str)} | {"finetune.dev/leader"}
    text = " ".join(command.words)
    assert set(re.findall(r"finetune\.dev/[a-z-]+", text)) <= known
    for condition in re.findall(r"--for=condition=(\w+)", text):
        assert f"`{condition}`" in (ROOT / "docs/reference/reasons.md").read_text() or condition == "Available"


def invocations() -> dict[str, list[str]]:
    """The words of all commands of a verb with flags, as one command, for kubectl and helm to read themselves."""
    found: dict[str, list[str]] = {}
    for command in (*OF_KUBECTL, *OF_HELM):
        before = command.words[: command.words.index("--")] if "--" in command.words else command.words
        if any(word.startswith("-") for word in before):
            verb, *objects = positional(command)
            name = " ".join([command.program, verb, *([] if verb in VERBS_ON_KINDS else objects)])
            found.setdefault(name, []).extend(before[1:])
    return found


@pytest.mark.parametrize(("name", "words"), invocations().items(), ids=invocations())
def test_kubectl_and_helm_themselves_know_the_flags(name: str, words: list[str]) -> None:
    asked = [binaries.program(name.partition(" ")[0]), *words, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", OF_HELM, ids=str)
def test_helm_is_told_charts_and_values_that_exist(command: Command) -> None:
    for word in positional(command):
        assert "/" not in word or (ROOT / word / "Chart.yaml").exists(), word
    for value in values(command, "--set", "--set-string"):
        assert in_chart(value.partition("=")[0]), value


def in_chart(path: str) -> bool:
    """Whether the chart has this value, or its catalogue of providers this entry."""
    schema, entry = CHART, CATALOGUE
    for step in path.split("."):
        schema = schema.get("properties", {}).get(step) if schema else None
        entry = entry.get(step) if isinstance(entry, dict) else None
    return schema is not None or entry is not None


def fragments(schema: Schema, snippet: Any) -> list[Schema]:
    """The places of a definition that a snippet may stand in, by its first keys."""
    return [part for _, part in fields(schema) if set(snippet) <= set(part.get("properties", {}))]


def closed(schema: Any, *, whole: bool) -> Any:
    """The schema as strict validation takes it: what is not named is refused. A part may leave out what is required."""
    if isinstance(schema, list):
        return [closed(part, whole=whole) for part in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: closed(part, whole=whole) for key, part in schema.items() if whole or key != "required"}
    if isinstance(told.get("properties"), dict):
        told.setdefault("additionalProperties", False)
    return told


def refusal(schema: Schema, snippet: Any, *, whole: bool) -> str | None:
    """Why it would be refused."""
    checker = jsonschema.Draft7Validator(closed(schema, whole=whole))
    error = jsonschema.exceptions.best_match(checker.iter_errors(snippet))
    return None if error is None else f"{error.json_path}: {error.message}"


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=name_of)
def test_every_part_of_a_manifest_or_of_the_charts_values_can_stand_in_one(page: Path) -> None:
    for snippet in snippets(page):
        kind = SCHEMAS.get(snippet.get("kind", ""))
        if kind is not None:
            kept = {**kind["properties"], "metadata": {"type": "object"}}
            assert refusal({**kind, "properties": kept}, snippet, whole=True) is None
            continue
        if set(snippet) <= set(CHART["properties"]):  # values: the chart's schema says itself where it is open
            jsonschema.Draft7Validator(CHART).validate(over(DEFAULTS, snippet))
            continue
        places = [part for schema in SCHEMAS.values() for part in fragments(schema, snippet)]
        reasons = [refusal(part, snippet, whole=False) for part in places]
        assert None in reasons, f"{sorted(snippet)}: {reasons or 'no kind has these fields'}"


def over(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The chart's values with those that are given, as helm lays one over the other."""
    inner = {name: over(defaults[name], value) for name, value in given.items() if isinstance(defaults.get(name), dict)}
    return {**defaults, **given, **inner}


def named_fields(page: Path) -> set[str]:
    """Paths of fields between backticks: two names or more, the first of which some kind or the chart has."""
    heads = {"spec", "status", *CHART["properties"]} | {path[-1] for paths in PATHS.values() for path in paths if path}
    told = {re.split(r"[:=(]", span)[0] for span in spans(page)}
    paths = {path for path in told if re.fullmatch(r"[a-z]\w*(\[\])?(\.([A-Za-z]\w*(\[\])?|\*))+", path)}
    return {path for path in paths if steps(path)[0] in heads and not NOT_FIELDS.search(path)}


def exists(path: str) -> bool:
    """Whether some kind has these fields below one another, or the chart this value."""
    wanted = steps(path)
    anchored = wanted[0] in ("spec", "status")
    return in_chart(path) or any(
        len(part) == len(wanted) and all(map(fnmatch, part, wanted))
        for paths in PATHS.values()
        for found in paths
        for part in [found[: len(wanted)] if anchored else found[-len(wanted) :]]
    )


@pytest.mark.parametrize("page", [page for page in PAGES if not {"decisions", "tests"} & {*page.parts}], ids=name_of)
def test_every_field_that_a_page_names_exists(page: Path) -> None:
    assert {path for path in named_fields(page) if not exists(path)} == set()
