"""Describes an invalid field of a manifest: its path, and what to write.

The field meant by an unknown name is found in `meant.py`, the replacement for a value in `wrong_values.py`.
"""

from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from finetune_api.base import RULES
from finetune_api.job import FineTuneJobManifest
from finetune_api.near_names import plain
from finetune_api.schema import structural_schema
from finetune_trainer.job.fields import Path, field_names, model_at, required, shown, value_at
from finetune_trainer.job.meant import meant, of_other_providers
from finetune_trainer.job.other_names import PREFERENCE
from finetune_trainer.job.wrong_values import expected_type, in_field_unit, instead, text_problem

_NUMBERS = ("int_type", "float_type")
_SELECTOR_FIELDS = ["matchExpressions", "matchLabels"]


class WrongFields:
    """Describes the errors of one manifest. The fields of a part are listed only once."""

    def __init__(self, manifest: dict[str, Any], root: type[BaseModel] = FineTuneJobManifest) -> None:
        self._manifest = manifest
        self._root = root
        self._listed: set[str] = set()

    def of(self, error: ErrorDetails) -> str:
        """One invalid field: its path, what is wrong, and what to write."""
        path = [part for part in error["loc"] if not _is_union_tag(part)]
        where, value = shown(path), value_at(self._manifest, path)
        if error["type"] == "extra_forbidden":
            return f"{where}: no such field{self._hint(path)}"
        described = _description(path, self._root)
        if error["type"] == "missing":
            return f"{where} is required{f': {described}' if described else ''}"
        message = self._structure_problem(error, path, value) or _value_problem(error, value, described)
        return f"{where}: {message}{in_field_unit(str(path[-1]), value) if error['type'] in _NUMBERS else ''}"

    def _structure_problem(self, error: ErrorDetails, path: Path, value: Any) -> str:
        """What the field should look like, if its value has the wrong structure or violates a text pattern."""
        if error["type"] == "dict_type":
            return "write names with their values below it, such as " + (_example(path, self._root) or "NAME: VALUE")
        if error["type"] == "model_type":
            return _fields_below(model_at(path, self._root), value)
        if error["type"] == "string_pattern_mismatch":
            return f"{_rule_of(path, self._root)}{text_problem(value)}"
        is_of_union = len(path) < len(error["loc"])
        return expected_type(value) if is_of_union and isinstance(value, list | dict | bool | float) else ""

    def _hint(self, path: Path) -> str:
        """The field that was probably meant, or else the existing ones."""
        model, parent = model_at(path[:-1], self._root), shown(path[:-1])
        if model is None:
            return ""
        if likely := meant(path, self._manifest, self._root):
            return likely
        others = of_other_providers(path, self._manifest, self._root)
        if parent in self._listed:
            return others
        self._listed.add(parent)
        names = field_names(model)
        existing = f"is only {names[0]}" if len(names) == 1 else f"are {', '.join(names)}"
        return f"{others}; there {existing}"


def _value_problem(error: ErrorDetails, value: Any, described: str) -> str:
    """What is wrong with a value, what to write instead, and what the field is for."""
    message = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    problem = f"{message[:1].lower()}{message[1:]}{instead(error['type'], message, value)}"
    is_block = isinstance(value, dict)  # the description does not help with a rule between its fields
    return problem if not described or described in problem or is_block else f"{problem} ({described})"


def _is_union_tag(part: str | int) -> bool:
    """Whether pydantic added this part to the path for the member of a union, as in cpu.int."""
    return part in ("str", "int", "float")


def _fields_below(model: type[BaseModel] | None, value: object) -> str:
    if model is None:
        return "write {}: it has no fields"
    names, needed = field_names(model), required(model)
    if message := _instead_of_text(model, value):
        return message
    if isinstance(value, list):
        return f"write its fields, no list: {', '.join(names)}"
    if isinstance(value, bool) and (one_of := _one_of(model)):
        return f"write fields below it: {one_of}"
    if isinstance(value, bool) and names and not needed:
        return f"{_to_switch(names, on=value)}, or fields below it: {', '.join(names)}"
    return f"write fields below it: {', '.join(names)}" if names else "write {}: it has no fields"


def _one_of(model: type[BaseModel]) -> str:
    """The rule about which fields a part needs, if none is required on its own and it must not be empty."""
    rules = (
        structural_schema(model).get(RULES, []) if not any(info.default for info in model.model_fields.values()) else []
    )
    return next((rule["message"] for rule in rules if rule["rule"].startswith("has(self.")), "")


def _instead_of_text(model: type[BaseModel], value: object) -> str:
    """What to write instead of a scalar, if its meaning is clear."""
    names = field_names(model)
    if not isinstance(value, str | int | float):
        return ""
    if names == _SELECTOR_FIELDS:
        return "write {} for every namespace, or matchLabels: {kubernetes.io/metadata.name: NAME} for one"
    if isinstance(value, str) and value in names and model_at([value], model) is not None:
        return f"write {{{value}: {{}}}}"
    if isinstance(value, str) and plain(value) in PREFERENCE and not required(model):
        return f"{_to_switch(names, on=True)}, or fields below it: {', '.join(names)}"
    return f"write {only_field} instead of a value alone" if (only_field := _only_field(model)) else ""


def _only_field(model: type[BaseModel]) -> str:
    """The only field of a part, or its only required one, down to a value: `{train: {uri: …}}`."""
    names, needed = field_names(model), required(model)
    only = names if len(names) == 1 else needed
    if len(only) != 1:
        return ""
    inner = model_at(only, model)
    return f"{{{only[0]}: {(inner and _only_field(inner)) or '…'}}}"


def _to_switch(names: list[str], *, on: bool) -> str:
    """What to write to switch a part with these optional fields on or off."""
    if "enabled" in names:
        return f"write {{enabled: {'true' if on else 'false'}}}"
    if "mode" in names and not on:
        return "write {mode: Manual}"
    return "write {} for its defaults" if on else "leave it out"


def _example(path: Path, root: type[BaseModel]) -> str:
    """The example in a field's description."""
    return _description(path, root).partition("for example ")[2].partition(". ")[0]


def _rule_of(path: Path, root: type[BaseModel]) -> str:
    """The message of the API server's rule for the field's text, or for the texts in its list."""
    *above, name = (part for part in path if isinstance(part, str))
    model = model_at(above, root)
    schema = {} if model is None else structural_schema(model)["properties"].get(name, {})
    rules = schema.get("items", schema).get(RULES, [])
    return rules[0]["message"] if rules else ""


def _description(path: Path, root: type[BaseModel]) -> str:
    model = model_at(path[:-1], root)
    if model is None:
        return ""
    info = next((info for name, info in model.model_fields.items() if path[-1] in (name, info.alias)), None)
    return (info.description or "").rstrip(".") if info else ""
