"""What is wrong with a field of a manifest, in words: its path, what to write, and which field was probably meant.

What to write instead of a value is `wrong_values.py`.
"""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from finetune_api.base import RULES
from finetune_api.job import FineTuneJobManifest
from finetune_trainer.job.other_names import column_of, place_of, plain, remark_on
from finetune_trainer.job.wrong_values import instead

Path = Sequence[str | int]

_NEAR = 0.65
"""How alike names are that may be one misspelt, as difflib counts: `url` and `uri` are, `namespace` and `name` not."""

_COLUMNS = "spec.dataset.columns"

_HABITS = frozenset(
    {"the manifest", "spec", "spec.hyperparameters", "spec.lora", "spec.resources", "spec.dataset", "spec.trackers"}
    | {f"spec.dataset.{split}" for split in ("train", "validation", "test")}
)
"""Parts in which a name that is not theirs may be meant for another part: elsewhere it says too little."""


class WrongFields:
    """Words for the errors of one manifest. What fields there are is told once for each part of it."""

    def __init__(self, manifest: dict[str, Any], root: type[BaseModel] = FineTuneJobManifest) -> None:
        self._manifest = manifest
        self._root = root
        self._listed: set[str] = set()

    def of(self, error: ErrorDetails) -> str:
        """One wrong field: its path, what is wrong, and what to write."""
        path = [part for part in error["loc"] if not _is_union_tag(part)]
        where = shown(path)
        if error["type"] == "extra_forbidden":
            return f"{where}: no such field{self._meant(path)}"
        described = _description(path, self._root)
        if error["type"] == "missing":
            return f"{where} is required{f': {described}' if described else ''}"
        if error["type"] in ("model_type", "dict_type"):
            return f"{where}: {_fields_below(_model_at(path, self._root), _value_at(self._manifest, path))}"
        if error["type"] == "string_pattern_mismatch" and (said := _rule_of(path, self._root)):
            return f"{where}: {said}"
        said = error["msg"].removeprefix("Value error, ")
        better = instead(error["type"], said, _value_at(self._manifest, path))
        told = f"{where}: {said[:1].lower()}{said[1:]}{better}"
        return told if not described or described in told else f"{told} ({described})"

    def _meant(self, path: Path) -> str:
        """The field that was probably meant, else those that there are."""
        model, parent = _model_at(path[:-1], self._root), shown(path[:-1])
        if model is None:
            return ""
        names = _field_names(model)
        if meant := self._likely(path, parent, names):
            return meant
        if parent in self._listed:
            return ""
        self._listed.add(parent)
        return f"; there is only {names[0]}" if len(names) == 1 else f"; there are {', '.join(names)}"

    def _likely(self, path: Path, parent: str, names: list[str]) -> str:
        """The field that was probably meant, or what to do instead; empty where nothing is likely."""
        name = str(path[-1])
        same = next((one for one in names if plain(one) == plain(name)), None)
        found = f"; did you mean {same}?" if same else ""
        if not found and parent == _COLUMNS:
            found = self._column(path, names)
        if not found and parent.endswith("Ref") and name == "namespace":
            found = "; leave it out: connections have no namespace, and all else is in the job's own"
        if not found and parent in _HABITS and self._root is FineTuneJobManifest:
            found = _elsewhere(name, parent, names)
        near = _near(name, names)
        return found or (f"; did you mean {near}?" if near else "")

    def _column(self, path: Path, names: list[str]) -> str:
        """Of a column: the mapping that is meant the other way round, or what other tools call it."""
        value, name = _value_at(self._manifest, path), path[-1]
        if value in names:
            return f"; the other way round: {value}: {name}"
        meant = column_of(str(name))
        return f"; did you mean {meant}?" if meant else ""


def shown(path: Path) -> str:
    """The path as people write it: `spec.evaluation.baselines[0].fewShot`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the manifest"


def _near(name: str, names: list[str]) -> str | None:
    """The name that may be meant: one that is alike, or that the name ends with, as `secretName` does."""
    by_lower = {one.lower(): one for one in names}
    if near := difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=_NEAR):
        return by_lower[near[0]]
    ends = [one for one in names if len(one) > 1 and plain(name).endswith(plain(one))]
    return max(ends, key=len, default=None)


def _elsewhere(name: str, parent: str, names: list[str]) -> str:
    """Where what was meant stands, if the name is another tool's, or that of one field of another part."""
    remark = remark_on(name)
    place = place_of(name) or (None if remark else _only_place(plain(name)))
    if place is not None and place.rpartition(".")[2] in names:
        return f"; did you mean {place.rpartition('.')[2]}?"
    if place is not None and place != parent:
        return f"; here it is {place}"
    return f"; {remark}" if remark else ""


def _only_place(name: str) -> str | None:
    """The one field of a job's spec that is called so; None where there are none, or several."""
    found = _places()[name]
    return found[0] if len(found) == 1 else None


@cache
def _places() -> dict[str, list[str]]:
    """Paths of all fields below spec, by their plain names."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in _paths(["spec"]):
        found[plain(str(path[-1]))].append(shown(path))
    return found


def _paths(path: list[str]) -> Iterator[list[str]]:
    model = _model_at(path, FineTuneJobManifest)
    for name in _field_names(model) if model else ():
        yield [*path, name]
        yield from _paths([*path, name])


def _is_union_tag(part: str | int) -> bool:
    """Pydantic adds the member of a union to the path, as in cpu.int; Quantity is the only union here."""
    return part in ("str", "int", "float")


def _fields_below(model: type[BaseModel] | None, value: object) -> str:
    if model is None:
        return "write {}: it has no fields"
    names = _field_names(model)
    needed = [info.alias or name for name, info in model.model_fields.items() if info.is_required()]
    only = names if len(names) == 1 else needed
    if value in names:
        return f"write {{{value}: {{}}}}"
    if len(only) == 1 and isinstance(value, str | int | float):
        return f"write {{{only[0]}: …}} instead of a value alone"
    if isinstance(value, list):
        return f"write its fields, no list: {', '.join(names)}"
    return f"write fields below it: {', '.join(names)}" if names else "write {}: it has no fields"


def _field_names(model: type[BaseModel]) -> list[str]:
    return sorted(info.alias or name for name, info in model.model_fields.items())


def _rule_of(path: Path, root: type[BaseModel]) -> str:
    """What the API server says about the shape of the field's text."""
    model = _model_at(path[:-1], root)
    schema = {} if model is None else model.model_json_schema(by_alias=True)["properties"].get(path[-1], {})
    rules = schema.get(RULES, [])
    return rules[0]["message"] if rules else ""


def _description(path: Path, root: type[BaseModel]) -> str:
    model = _model_at(path[:-1], root)
    if model is None:
        return ""
    info = next((info for name, info in model.model_fields.items() if path[-1] in (name, info.alias)), None)
    return (info.description or "").rstrip(".") if info else ""


def _value_at(value: Any, path: Path) -> Any:
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _model_at(path: Path, root: type[BaseModel]) -> type[BaseModel] | None:
    """The model whose field the path leads to; the elements of a list have its own."""
    model = root
    for part in path:
        if isinstance(part, int):
            continue
        info = next((info for name, info in model.model_fields.items() if part in (name, info.alias)), None)
        inner = None if info is None else _model_in(info.annotation)
        if inner is None:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation holds, in a list or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)
