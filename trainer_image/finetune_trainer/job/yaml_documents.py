"""YAML and JSON files as kubectl reads them: documents with their lines. What is in a document is not its concern."""

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

_MOST_BYTES = 3 * 1024 * 1024  # what the API server takes as one request
_STDIN = Path("-")
_JSON_ENDS = re.compile(r"\}(\s*\n)(?=\{)")
"""Where an object of JSON ends and the next begins: kubectl reads both, YAML wants a mark between them."""

_TEMPLATE = re.compile(r"\{\{|\{%|\{#|\$\{|<%")
_GLUED = re.compile(r"\s*(?:- )?(\w+:)[^\s:/]")
"""A name whose value follows its colon at once, which makes one text of both."""

_BESIDE_THE_MARK = re.compile(r"^---[^\S\n]*[^\s#].*$", re.MULTILINE)
"""A line that kubectl takes for no mark between documents, though YAML lets one begin there."""

_UNSEEN = re.compile("[\xa0\u1680\u2000-\u200f\u202f\u205f\u2060\u3000\ufeff]")


@dataclass(frozen=True)
class Document:
    """One object of a file."""

    file_name: str
    value: dict[str, Any]
    node: yaml.Node

    @property
    def kind(self) -> str:
        """What it says it is."""
        kind = self.value.get("kind")
        return kind if isinstance(kind, str) else ""

    def line(self, path: Sequence[str | int]) -> int:
        """The line of the field that the path leads to, else of the nearest one above it that is there."""
        node, line = self.node, self.node.start_mark.line
        for part in path:
            found = next((pair for pair in _pairs(node) if pair[0] == part), None)
            if found is None:
                break
            _, line, node = found
        return int(line) + 1

    def octal(self) -> str | None:
        """Where a number stands that a zero before it makes another one; nothing where none does."""
        for node in self._nodes():
            number = node.value if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") else ""
            if is_octal(number) and int(number, 8) != int(number):
                return f"line {node.start_mark.line + 1}: {number} is read as octal, which is {int(number, 8)}"
        return None

    def endless(self) -> str | None:
        """Where aliases stand for what they are within, or for so much that nobody reads it; nothing where none do."""
        try:
            _length(self.node, {}, set())
        except _EndlessError as error:
            return f"line {error.node.start_mark.line + 1}: {error.what}"
        return None

    def empty(self, names: Collection[str]) -> list[tuple[int, str]]:
        """Lines and names of fields, of those that are called so, behind whose colon nothing stands."""
        pairs = [pair for node in self._nodes() for pair in _pairs(node)]
        return [(line + 1, str(name)) for name, line, node in pairs if name in names and node.tag.endswith(":null")]

    @property
    def has_nothing(self) -> bool:
        """Whether there is a field with nothing behind its colon at all; `value` is without such."""
        return any(node.tag.endswith(":null") for node in self._nodes())

    def nothing_at(self, schema: Mapping[str, Any]) -> list[list[str | int]]:
        """Where such fields are, of those that a schema of the whole object has and has no default for."""
        return list(_nothing_at(schema, self.node, []))

    def _nodes(self) -> Iterator[yaml.Node]:
        """The object's and all within it, each once: an alias may stand for one a million times."""
        nodes, seen = [self.node], set[int]()
        while nodes:
            yield (node := nodes.pop())
            within = [inner for _, _, inner in _pairs(node) if id(inner) not in seen]
            seen.update(map(id, within))
            nodes += within


_MOST_NODES = 1_000_000
"""Beyond what a manifest has that spells everything out: kubectl does not take such a use of aliases either."""


class _EndlessError(Exception):
    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.node = node
        self.what = what


def _length(node: yaml.Node, known: dict[int, int], around: set[int]) -> int:
    """How many nodes there are when each alias is written out. `known`: of those that are counted.

    Raises:
        _EndlessError: there is no end to it, or too late a one.
    """
    if id(node) in around:
        raise _EndlessError(node, "an anchor stands for what it is within")
    if id(node) not in known:
        known[id(node)] = 1 + sum(_length(inner, known, around | {id(node)}) for _, _, inner in _pairs(node))
    if known[id(node)] > _MOST_NODES:
        raise _EndlessError(node, "its aliases make too much of it")
    return known[id(node)]


def _nothing_at(schema: Mapping[str, Any], node: yaml.Node, path: list[str | int]) -> Iterator[list[str | int]]:
    if node.tag.endswith(":null") and "default" not in schema:
        yield path
    fields = schema.get("properties", {})
    for part, _, below in _pairs(node):
        inner = schema.get("items") if isinstance(part, int) else fields.get(part)
        if inner is not None:
            yield from _nothing_at(inner, below, [*path, part])


def _pairs(node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
    """Names or indices of what is directly in a node, with the line of each."""
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, key.start_mark.line, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((index, value.start_mark.line, value) for index, value in enumerate(node.value))


_BY_FILE = "Name the manifest with -f FILE."


def read_documents(path: Path) -> list[Document]:
    """The objects in a file, those in a List too; what is no object is left out. `-` is standard input.

    Raises:
        TrainerError: SpecInvalid, the file cannot be read or is no YAML.
    """
    name = shown(path)
    text = _text(path, name)
    if text.startswith("%"):
        raise _wrong(name, " line 1: it begins with a directive such as %YAML, which kubectl does not read")
    if not text.lstrip().startswith("{") and (beside := _BESIDE_THE_MARK.search(text)):
        line = text.count("\n", 0, beside.start()) + 1
        raise _wrong(name, f" line {line}: there is text beside ---, which kubectl does not read: it goes below")
    try:
        found = _with_tabs(name, _JSON_ENDS.sub(r"}\1--- ", text) if text.lstrip().startswith("{") else text)
    except RecursionError:
        raise _wrong(name, ": it is nested too deeply") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _wrong(name, f" line {line}: it has a character that YAML does not allow") from None
    except (yaml.YAMLError, ValueError) as error:
        raise _wrong(name, _place(error) + _why(error, text)) from None
    return found


def _with_tabs(name: str, text: str) -> list[Document]:
    """The objects in a text. Tabs are spaces to kubectl, but at the beginning of a line; PyYAML takes none as such."""
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # in JSON no text has one
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
        found += _objects(name, _no_list(name, value), node)
    if found and stray:  # a file of nothing but text is somebody else's
        raise TrainerError(Reason.SPEC_INVALID, f"{name} line {stray}: there is no object, only text", _APART)
    return found


_APART = (
    "Write the objects one after the other with a line --- between them, or as items of apiVersion: v1, kind: List."
)


def _no_list(file_name: str, value: Any) -> Any:
    """What stands in a document, if kubectl takes it.

    Raises:
        TrainerError: SpecInvalid, it is a list with objects in it.
    """
    if isinstance(value, list) and any(isinstance(one, dict) and "kind" in one for one in value):
        raise TrainerError(
            Reason.SPEC_INVALID, f"{file_name}: the objects are in a list, which kubectl does not read", _APART
        )
    return value


def shown(path: Path) -> str:
    """A file's name for messages, whatever bytes it is made of."""
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
            said = f"{file_name} line {node.start_mark.line + 1}: a List contains a List, which kubectl does not read"
            raise TrainerError(Reason.SPEC_INVALID, said, _APART)
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


def _place(error: Exception) -> str:
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or "it is not valid YAML"
    if begun is not None and (words := next((it for at, it in _BEGUN.items() if problem.startswith(at)), None)):
        return f" line {begun.line + 1}: {words}"
    problem = next((words for begins, words in _IN_WORDS.items() if problem.startswith(begins)), problem)
    return f": {problem}" if mark is None else f" line {mark.line + 1}: {problem}"


_BEGUN = {
    "could not find expected ':'": "there is no colon after the name",
    "found unexpected end of stream": "a quotation mark opens a text that is never closed",
    "expected ',' or '}', but got ':'": "a bracket { is opened and not closed before the next field",
    "expected ',' or ']', but got ':'": "a bracket [ is opened and not closed before the next field",
}
"""The same of what begins on another line than that on which PyYAML notices it."""


_IN_WORDS = {
    "apiVersion occurs twice": "apiVersion occurs twice: before a second object goes a line ---",
    "expected <block end>": "it is indented otherwise than the lines that it belongs to",
    "mapping values are not allowed here": "there is a second colon in the line, or the line is indented too far; text "
    "with a colon needs quotes",
    "could not determine a constructor for the tag": "there is a tag such as !vault, which Kubernetes does not "
    "read: write the value itself, or put ! into quotes",
    _TAB: "there is a tab at its beginning: indent with spaces",
}
"""How PyYAML begins to say what many get wrong, and what that is."""


def _why(error: Exception, text: str) -> str:
    """What is known of lines that are no YAML: a template that nobody has filled in, a space that is none."""
    mark = getattr(error, "problem_mark", None)
    lines = text.splitlines()[: None if mark is None else mark.line + 1]
    if template := next((number for number, line in enumerate(lines, 1) if _TEMPLATE.search(line)), None):
        return f"; line {template} has a placeholder of a template: fill it in first, as helm template and envsubst do"
    for number, line in enumerate(lines[-2:], max(1, len(lines) - 1)):
        if found := _UNSEEN.search(line):
            return f"; line {number} has a character that only looks like a space (U+{ord(found[0]):04X})"
        if glued := _GLUED.match(line):
            return f"; line {number} has no space after {glued[1]}"
    return ""


def _wrong(name: str, what: str) -> TrainerError:
    return TrainerError(Reason.SPEC_INVALID, name + what, "Correct the YAML; indent with spaces.")
