"""YAML and JSON files parsed as kubectl does: documents with their lines. Knows nothing about their content."""

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_api.reasons import Reason
from finetune_trainer.data.files.utf16 import utf16_of
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.kubernetes_yaml import Loader, is_octal

_MOST_BYTES = 3 * 1024 * 1024  # limit of the API server for a request
_STDIN = Path("-")
_JSON_ENDS = re.compile(r"\}(\s*\n)(?=\{)")
"""The boundary between two JSON objects: kubectl accepts it, YAML requires a document marker."""

_TEMPLATE = re.compile(r"\{\{|\{%|\{#|\$\{|<%")
_NO_SPACE_AFTER_COLON = re.compile(r"\s*(?:- )?(\w+:)[^\s:/]")
"""A name whose value directly follows the colon, so that both form a single text."""

_CONTENT_AFTER_MARK = re.compile(r"^---[^\S\n]*[^\s#].*$", re.MULTILINE)
"""A line that YAML takes for a document marker with content, but kubectl does not."""

_ODD_SPACE = re.compile("[\xa0\u1680\u2000-\u200f\u202f\u205f\u2060\u3000\ufeff]")


@dataclass(frozen=True)
class Document:
    """One object of a file."""

    file_name: str
    value: dict[str, Any]
    node: yaml.Node

    @property
    def kind(self) -> str:
        """Its kind; "" if missing."""
        kind = self.value.get("kind")
        return kind if isinstance(kind, str) else ""

    def line(self, path: Sequence[str | int]) -> int:
        """The line of the field at the path, or of the nearest parent that exists."""
        node, line = self.node, self.node.start_mark.line
        for part in path:
            found = next((pair for pair in _pairs(node) if pair[0] == part), None)
            if found is None:
                break
            _, line, node = found
        return int(line) + 1

    def octal(self) -> str | None:
        """Describes a number that is octal because of a leading zero; None if there is none."""
        for node in self._nodes():
            number = node.value if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") else ""
            if is_octal(number) and int(number, 8) != int(number):
                return f"line {node.start_mark.line + 1}: {number} is read as octal, which is {int(number, 8)}"
        return None

    def endless(self) -> str | None:
        """Describes aliases that are recursive, or expand to too much; None if there are none."""
        try:
            _node_count(self.node, {}, set())
        except _EndlessError as error:
            return f"line {error.node.start_mark.line + 1}: {error.what}"
        return None

    def empty(self, names: Collection[str]) -> list[tuple[int, str]]:
        """Lines and names of the fields with one of these names that have no value."""
        pairs = [pair for node in self._nodes() for pair in _pairs(node)]
        return [(line + 1, str(name)) for name, line, node in pairs if name in names and node.tag.endswith(":null")]

    @property
    def has_empty_fields(self) -> bool:
        """Whether any field has no value; `value` omits those."""
        return any(node.tag.endswith(":null") for node in self._nodes())

    def empty_paths(self, schema: Mapping[str, Any]) -> list[list[str | int]]:
        """Paths of such fields, as far as a schema of the whole object knows them and has no default."""
        return list(_paths_without_value(schema, self.node, []))

    def _nodes(self) -> Iterator[yaml.Node]:
        """The object's node and all nodes in it, each once: aliases may refer to the same node a million times."""
        nodes, seen = [self.node], set[int]()
        while nodes:
            yield (node := nodes.pop())
            within = [inner for _, _, inner in _pairs(node) if id(inner) not in seen]
            seen.update(map(id, within))
            nodes += within


_MOST_NODES = 1_000_000
"""More than in any manifest without aliases; kubectl refuses such use of aliases too."""


class _EndlessError(Exception):
    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.node = node
        self.what = what


def _node_count(node: yaml.Node, known: dict[int, int], ancestors: set[int]) -> int:
    """Number of nodes with all aliases expanded. `known`: counts of nodes visited before.

    Raises:
        _EndlessError: it is infinite, or exceeds the limit.
    """
    if id(node) in ancestors:
        raise _EndlessError(node, "an anchor stands for what it is within")
    if id(node) not in known:
        known[id(node)] = 1 + sum(_node_count(inner, known, ancestors | {id(node)}) for _, _, inner in _pairs(node))
    if known[id(node)] > _MOST_NODES:
        raise _EndlessError(node, "its aliases make too much of it")
    return known[id(node)]


def _paths_without_value(
    schema: Mapping[str, Any], node: yaml.Node, path: list[str | int]
) -> Iterator[list[str | int]]:
    if node.tag.endswith(":null") and "default" not in schema:
        yield path
    fields = schema.get("properties", {})
    for part, _, below in _pairs(node):
        inner = schema.get("items") if isinstance(part, int) else fields.get(part)
        if inner is not None:
            yield from _paths_without_value(inner, below, [*path, part])


def _pairs(node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
    """Names or indices of a node's direct children, with their lines."""
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, key.start_mark.line, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((index, value.start_mark.line, value) for index, value in enumerate(node.value))


_BY_FILE = "Name the manifest with -f FILE."


def read_documents(path: Path) -> list[Document]:
    """The objects in a file, including those in a List; other values are ignored. `-` is standard input.

    Raises:
        TrainerError: SpecInvalid, the file cannot be read or is not YAML.
    """
    name = shown(path)
    text = _text(path, name)
    if text.startswith("%"):
        raise _yaml_error(name, " line 1: it begins with a directive such as %YAML, which kubectl does not read")
    if not text.lstrip().startswith("{") and (content := _CONTENT_AFTER_MARK.search(text)):
        line = text.count("\n", 0, content.start()) + 1
        raise _yaml_error(name, f" line {line}: there is text beside ---, which kubectl does not read: it goes below")
    try:
        found = _documents_with_tabs(name, _JSON_ENDS.sub(r"}\1--- ", text) if text.lstrip().startswith("{") else text)
    except RecursionError:
        raise _yaml_error(name, ": it is nested too deeply") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _yaml_error(name, f" line {line}: it has a character that YAML does not allow") from None
    except (yaml.YAMLError, ValueError) as error:
        raise _yaml_error(name, _place_and_problem(error) + _likely_cause(error, text)) from None
    return found


def _documents_with_tabs(name: str, text: str) -> list[Document]:
    """The objects in a text. kubectl treats tabs as spaces except at the start of a line; PyYAML refuses them."""
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # JSON strings cannot contain tabs
    try:
        return _documents(name, text)
    except yaml.scanner.ScannerError as error:
        if error.problem is None or not error.problem.startswith(_TAB):
            raise
        return _documents(name, "\n".join(map(_without_inner_tabs, text.split("\n"))))


_TAB = "found character '\\t'"


def _without_inner_tabs(line: str) -> str:
    inner = line.lstrip()
    return line.removesuffix(inner) + inner.replace("\t", " ")


def _documents(name: str, text: str) -> list[Document]:
    loader, found = Loader(text), list[Document]()
    loader.is_json = text.lstrip().startswith("{")
    stray: int | None = None
    while loader.check_node():
        node = loader.get_node()
        assert node is not None  # noqa: S101 - check_node says so
        value = loader.construct_document(node)
        if isinstance(value, str | int | float):
            stray = node.start_mark.line + 1
        found += _objects(name, _refuse_list(name, value), node)
    if found and stray:  # a file of nothing but text is not ours
        raise TrainerError(Reason.SPEC_INVALID, f"{name} line {stray}: there is no object, only text", _SEPARATE_STEP)
    return found


_SEPARATE_STEP = (
    "Write the objects one after the other with a line --- between them, or as items of apiVersion: v1, kind: List."
)


def _refuse_list(file_name: str, value: Any) -> Any:
    """The value of a document, if kubectl accepts it.

    Raises:
        TrainerError: SpecInvalid, it is a list of objects.
    """
    if isinstance(value, list) and any(isinstance(one, dict) and "kind" in one for one in value):
        raise TrainerError(
            Reason.SPEC_INVALID, f"{file_name}: the objects are in a list, which kubectl does not read", _SEPARATE_STEP
        )
    return value


def shown(path: Path) -> str:
    """A file's name for messages, whatever bytes it consists of."""
    if path == _STDIN:
        return "standard input"
    return os.fsencode(path.name or path.absolute()).decode("utf-8", errors="replace")


def _is_list(value: dict[str, Any]) -> bool:
    return str(value.get("kind")).endswith("List") and isinstance(value.get("items"), list)


def _objects(file_name: str, value: Any, node: yaml.Node) -> Iterator[Document]:
    if not isinstance(value, dict):
        return
    items: Any = value.get("items")
    if _is_list(value):
        if any(isinstance(item, dict) and _is_list(item) for item in items):
            line = node.start_mark.line + 1
            message = f"{file_name} line {line}: a List contains a List, which kubectl does not read"
            raise TrainerError(Reason.SPEC_INVALID, message, _SEPARATE_STEP)
        (listed,) = (inner for name, _, inner in _pairs(node) if name == "items")
        for item, (_, _, inner) in zip(items, _pairs(listed), strict=True):
            yield from _objects(file_name, item, inner)
    else:
        yield Document(file_name, value, node)


def _text(path: Path, name: str) -> str:
    try:
        if path == _STDIN:
            raw = b"" if sys.stdin is None else sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise TrainerError(
                Reason.SPEC_INVALID,
                f"{name} is larger than {_MOST_BYTES // 1024**2} MiB, so it is not a manifest",
                "Name the manifest with -f FILE; it names the data.",
            )
        return raw.decode(utf16_of(raw) or "utf-8-sig")
    except OSError as error:
        is_address = path.parts[:1] in (("http:",), ("https:",))
        step = "An address is not fetched: curl -fsSL URL | finetune-trainer check -f -" if is_address else _BY_FILE
        raise TrainerError(Reason.SPEC_INVALID, f"{name} cannot be read: {error.strerror}", step) from None
    except UnicodeDecodeError:
        raise TrainerError(Reason.SPEC_INVALID, f"{name} is not UTF-8 text", "Save it as UTF-8.") from None


def _place_and_problem(error: Exception) -> str:
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or "it is not valid YAML"
    if begun is not None and (words := next((it for at, it in _BY_START.items() if problem.startswith(at)), None)):
        return f" line {begun.line + 1}: {words}"
    problem = next((words for begins, words in _BETTER_WORDS.items() if problem.startswith(begins)), problem)
    return f": {problem}" if mark is None else f" line {mark.line + 1}: {problem}"


_BY_START = {
    "could not find expected ':'": "there is no colon after the name",
    "found unexpected end of stream": "a quotation mark opens a text that is never closed",
    "expected ',' or '}', but got ':'": "a bracket { is opened and not closed before the next field",
    "expected ',' or ']', but got ':'": "a bracket [ is opened and not closed before the next field",
}
"""The same for problems that begin on an earlier line than the one on which PyYAML reports them."""


_BETTER_WORDS = {
    "apiVersion occurs twice": "apiVersion occurs twice: before a second object goes a line ---",
    "expected <block end>": "it is indented otherwise than the lines that it belongs to",
    "mapping values are not allowed here": "there is a second colon in the line, or the line is indented too far; text "
    "with a colon needs quotes",
    "could not determine a constructor for the tag": "there is a tag such as !vault, which Kubernetes does not "
    "read: write the value itself, or put ! into quotes",
    _TAB: "there is a tab at its beginning: indent with spaces",
}
"""Starts of PyYAML's messages for common mistakes, and better words for them."""


def _likely_cause(error: Exception, text: str) -> str:
    """The likely cause of invalid YAML: an unrendered template, a missing space, a character that looks like one."""
    mark = getattr(error, "problem_mark", None)
    lines = text.splitlines()[: None if mark is None else mark.line + 1]
    if template := next((number for number, line in enumerate(lines, 1) if _TEMPLATE.search(line)), None):
        return f"; line {template} has a placeholder of a template: fill it in first, as helm template and envsubst do"
    for number, line in enumerate(lines[-2:], max(1, len(lines) - 1)):
        if found := _ODD_SPACE.search(line):
            return f"; line {number} has a character that only looks like a space (U+{ord(found[0]):04X})"
        if glued := _NO_SPACE_AFTER_COLON.match(line):
            return f"; line {number} has no space after {glued[1]}"
    return ""


def _yaml_error(name: str, what: str) -> TrainerError:
    return TrainerError(Reason.SPEC_INVALID, name + what, "Correct the YAML; indent with spaces.")
