"""Extracts from the pages what readers use: commands, manifest snippets, field names."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
SKIPPED = {".venv", "out", "node_modules"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not SKIPPED & set(path.relative_to(ROOT).parts) and ".cache" not in path.parts
)
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


PROGRAMS = ("kubectl", "helm", "finetune-trainer", "finetune-operator", "aws", "docker")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
TEXTS = [*PAGES, *sorted((ROOT / "examples").rglob("*.yaml")), ROOT / "helm/finetune-operator/templates/NOTES.txt"]
"""Includes examples' comments and the chart's notes, which contain commands, too."""


@dataclass(frozen=True)
class Command:
    """One call of a program, as a shell would start it."""

    page: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{name_of(self.page)}: {shlex.join(self.words)}"

    @property
    def program(self) -> str:
        return self.words[0]


def commands(*programs: str) -> list[Command]:
    """Every call of these programs in any page, each once."""
    found = [command for page in TEXTS for line in _lines(page) for command in _calls(page, line)]
    return [command for command in dict.fromkeys(found) if command.program in programs]


def scripts(page: Path) -> list[str]:
    """Each block of commands, without their output."""
    return ["\n".join(_typed(body)) for _, language, body in FENCE.findall(_text(page)) if language in ("", "sh")]


def snippets(page: Path) -> list[Any]:
    """Each block of YAML."""
    return [yaml.safe_load(body) for _, language, body in FENCE.findall(_text(page)) if language == "yaml"]


def inline_parts(page: Path) -> list[dict[str, Any]]:
    """Parts of manifests in backticks, such as `idle: {afterSeconds: 7200}`; a path before one is its parent."""
    found = []
    for span in spans(page):
        part = re.fullmatch(r"(?:spec\.)?((?:\w+\.)*)(\w+: \{.*\})", span)
        if part is None or "…" in span:
            continue
        value = yaml.safe_load(part[2])
        for name in reversed(part[1].split(".")[:-1]):
            value = {name: value}
        found.append(value)
    return found


def spans(page: Path) -> list[str]:
    """Text in backticks, outside of blocks."""
    return SPAN.findall(FENCE.sub("", _text(page)))


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _lines(page: Path) -> Iterator[str]:
    if page.suffix != ".md":
        lines = (line.lstrip("# ") for line in re.sub(r"\{\{.*?\}\}", "X", _text(page)).splitlines())
        yield from (line for line in lines if line.startswith(("kubectl ", "helm ")))
        return
    for script in scripts(page):
        yield from script.splitlines()
    yield from spans(page)


def _typed(body: str) -> list[str]:
    """The typed part of a block: text after a prompt, or all of it if there is none; continued lines are joined."""
    lines = re.sub(r"\\\n\s*", "", body).splitlines()
    prompted = [line.strip().removeprefix("$ ") for line in lines if line.strip().startswith("$ ")]
    return prompted or lines


def _calls(page: Path, line: str) -> Iterator[Command]:
    """The programs that a line starts, in pipes and one after the other."""
    if not any(re.search(rf"(^|[\s|;&=(]){program}\s", line) for program in PROGRAMS):
        return
    plain = re.sub(r"\$\([^)]*\)|\$\{[^}]*\}|\$\w+", "X", line)
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    call: list[str] = []
    try:
        words = [*lexer, ";"]
    except ValueError:  # an apostrophe of prose
        return
    for word in words:
        if set(word) <= set("|&;<>"):
            if call and call[0] in PROGRAMS and len(call) > 1:
                yield Command(page, tuple(call))
            call = ["redirected to"] if set(word) <= set("<>") else []
        else:
            call.append(word)


Schema = dict[str, Any]
CHART = json.loads((ROOT / "helm/finetune-operator/values.schema.json").read_text())


def fields(schema: Schema, *, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every field with its path, including those inside lists and maps."""
    yield at, schema
    for name, part in schema.get("properties", {}).items():
        yield from fields(part, at=(*at, name))
    for part in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(part, Mapping):
            yield from fields(dict(part), at=at)
