"""The documentation says what is there: links, files, make targets, reasons, exit codes, kinds of every example."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from finetune_api.crds import KINDS, Kind, object_schema
from finetune_api.exit_codes import REASON_OF_EXIT_CODE, ExitCode
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide import leftovers
from finetune_operator.decide.deployment import idle
from finetune_operator.desired import serving, training_job
from finetune_trainer.__main__ import COMMANDS
from finetune_trainer.job.other_names import COUNTED_OTHERWISE, PLACES, REMARKS
from tests.unit.docs.pages import EXAMPLES, PAGES, ROOT, name_of

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"(?:^|`)make ([a-z][a-z0-9-]*)", re.MULTILINE)
REASONS_PAGE = ROOT / "docs" / "reference" / "reasons.md"
ROOMS = sorted((ROOT / "trainer_image" / "finetune_trainer").glob("*/**/__init__.py"))
NAMES = slice(4, 46)
"""Columns of a line of a package's map that name modules; what they are for stands behind."""


def heading_anchors(text: str) -> set[str]:
    """The anchors that a Markdown viewer makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    found = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name_of(page)}: {link}"
        if anchor:
            assert anchor in heading_anchors(path.read_text(encoding="utf-8")), f"{name_of(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_that_a_page_names_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = set(MAKE.findall(text))
    assert named <= targets, f"{name_of(page)}: {named - targets}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    roots = "operator|trainer_image|examples|docs|helm|tests|crds|locks|scripts|demo"
    named = set(re.findall(rf"(?<![\w/.-])((?:{roots})/[\w./-]*\w)", text))
    missing = {path for path in named if not (ROOT / path).exists() and "…" not in path}
    assert not missing, f"{name_of(page)}: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_trainer_command_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"finetune-trainer ([a-z]+) ", page.read_text(encoding="utf-8")))
    assert named <= set(COMMANDS), f"{name_of(page)}: {named - set(COMMANDS)}"


def reason_rows() -> dict[str, list[str]]:
    """The cells of each row of the reasons' page, by the reason in its first cell."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", REASONS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {reason: cells.split(" | ") for reason, cells in rows}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_its_row_with_its_next_step(reason: Reason) -> None:
    cells = reason_rows()[reason.value]
    assert cells[0].strip()
    assert cells[1:] == ([NEXT_STEP[reason]] if reason in NEXT_STEP else [])


def test_no_reason_is_documented_that_does_not_exist() -> None:
    assert set(reason_rows()) == {reason.value for reason in Reason}


def test_the_conditions_that_are_written_are_those_of_the_table() -> None:
    code = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "operator/finetune_operator/decide").rglob("*.py")
    )
    written = set(re.findall(r'\bFact\(\s*"(\w+)"', code)) | {idle.CONDITION, leftovers.CONDITION}
    assert set().union(*conditions_on_the_page().values()) == written


def conditions_on_the_page() -> dict[str, set[str]]:
    """By kind."""
    table = REASONS_PAGE.read_text(encoding="utf-8").partition("## Conditions")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| ((?:`\w+` ?)+)\|", table, re.MULTILINE)
    return {kind: set(re.findall(r"\w+", names)) for kind, names in rows}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_kubectl_explain_lists_the_conditions_that_the_page_has_for_the_kind(kind: Kind) -> None:
    conditions = object_schema(kind)["properties"]["status"]["properties"]["conditions"]
    told = set(re.findall(r"[A-Z]\w+", re.sub(r"\b(True|False)\b", "", conditions["description"])))
    assert told == conditions_on_the_page()[kind.kind]


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_has_its_row_with_its_reason(code: ExitCode) -> None:
    match = re.search(rf"^\| {int(code)} \| `{code.name}` \| (.*)\|$", REASONS_PAGE.read_text(), re.MULTILINE)
    assert match is not None
    if code in REASON_OF_EXIT_CODE:
        assert match.group(1).strip() == f"`{REASON_OF_EXIT_CODE[code].value}`"


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_every_example_is_named_by_kind_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    for manifest in yaml.safe_load_all(text):
        assert manifest["apiVersion"]
        assert manifest["kind"]
        assert manifest["metadata"]["name"]


def test_names_of_other_tools_are_told_to_people_as_the_check_knows_them() -> None:
    page = (ROOT / "docs/guides/other-tools.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (.+) \| (.+) \|$", page, re.MULTILINE))
    known = {f"`{place}`": names for place, names in PLACES.items()}
    assert {cell: tuple(re.findall(r"`(.+?)`", rows[cell])) for cell in known} == known
    for table in (REMARKS, COUNTED_OTHERWISE):
        remarks = {remark: cell for cell, remark in rows.items() if remark in table}
        assert {remark: tuple(re.findall(r"`(.+?)`", cell)) for remark, cell in remarks.items()} == table


def listed_targets() -> set[str]:
    """What bare `make` shows."""
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in listed.splitlines() if line.startswith("  make ")}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.parent.name)
def test_a_package_of_the_trainer_begins_with_a_map_of_its_modules(room: Path) -> None:
    lines = (ast.get_docstring(ast.parse(room.read_text(encoding="utf-8")), clean=False) or "").splitlines()
    plan = [line[NAMES] for line in lines if line.startswith("    ") and not re.search(r"[(=]", line[NAMES])]
    named = re.findall(r"\w+", " ".join(plan))
    beside = [*room.parent.glob("*.py"), *(inner.parent for inner in room.parent.glob("*/__init__.py"))]
    assert sorted(named) == sorted(path.stem for path in beside if path != room)


def test_bare_make_lists_every_target_that_is_meant_for_people() -> None:
    phony = set(re.findall(r"^\.PHONY: ([a-z0-9-]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert listed_targets() == phony - {"help", "tools", "root", "python"}


def test_every_listed_make_target_is_told_of_on_a_page() -> None:
    told = {target for page in PAGES for target in MAKE.findall(page.read_text(encoding="utf-8"))}
    assert listed_targets() <= told, listed_targets() - told


def test_a_benchmark_gets_no_number_that_is_meant_for_another() -> None:
    asked = subprocess.run(["make", "-n", "bench-quality"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert asked.splitlines()[-1].split()[1:] == ["-m", "bench.quality"]


def test_ci_calls_what_people_call() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_a_deleted_namespace_waits_as_long_as_the_page_says() -> None:
    """Kubernetes' namespace controller looks again after half of the longest grace of its pods, and a second."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    trainers, servers = (grace // 2 + 1 for grace in (training_job.GRACE_SECONDS, serving.GRACE_SECONDS))
    assert f"{trainers} s for trainers and {servers} s for servers" in page
