"""The fields of a kind by their paths, according to its pydantic models."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

Path = Sequence[str | int]


def shown(path: Path) -> str:
    """The path in the usual notation: `spec.evaluation.baselines[0].fewShot`. Invisible characters are escaped."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    seen = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return "".join(seen) or "the manifest"


def field_names(model: type[BaseModel]) -> list[str]:
    """Names of the fields, as spelled in manifests."""
    return sorted(info.alias or name for name, info in model.model_fields.items())


def required(model: type[BaseModel]) -> list[str]:
    """Names of the required fields."""
    return [info.alias or name for name, info in model.model_fields.items() if info.is_required()]


def value_at(value: Any, path: Path) -> Any:
    """The value at a path in a manifest; None if there is none."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def model_at(path: Path, root: type[BaseModel]) -> type[BaseModel] | None:
    """The model of the value at the path, ignoring indices of lists."""
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
    """The model in an annotation, which may be a list or optional."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


@cache
def places(root: type[BaseModel]) -> Mapping[str, list[str]]:
    """Paths of all fields except those in metadata, by name."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in _paths([], root):
        if path[0] != "metadata":
            found[path[-1]].append(shown(path))
    return found


def _paths(path: list[str], root: type[BaseModel]) -> Iterator[list[str]]:
    model = model_at(path, root)
    for name in field_names(model) if model else ():
        yield [*path, name]
        yield from _paths([*path, name], root)
