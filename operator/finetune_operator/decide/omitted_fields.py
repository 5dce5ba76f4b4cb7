"""Finds what was silently dropped from a manifest. Pure.

`{epochs:5}` is a name without a value, which kubectl drops. An unknown field is dropped by the API server if the client
does not have it refused (`--validate=false`). Defaults take their place. kubectl records its input in an annotation.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from finetune_api.words import counted

GIVEN_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_FEW, _SHOWN = 3, 64
"""How many names are listed per object before the rest are counted, and how many characters of each."""
_RESTRICTING = ("spec.namespaceSelector", "spec.fineTuning")
"""Parts of a connection where a missing field allows more. Elsewhere an empty `epochs:` is how tools unset a field."""


def left_out(annotations: Mapping[str, str], model: type[BaseModel]) -> list[str]:
    """A sentence for each name that was dropped from the spec, beginning with its parent field.

    Args:
        annotations: of the object.
        model: of its spec.
    """
    given = _given(annotations)
    found = [*_empty(given, "spec"), *_unknown(given, model)] if given else []
    more = [f"spec: {counted(len(found) - _FEW, 'more name')} left out"] if len(found) > _FEW else []
    return [*found[:_FEW], *more]


def lacks_some(annotations: Mapping[str, str], spec: Any) -> bool:
    """Whether a stored spec lacks something that kubectl was given, for any reason. Fast enough for every object."""
    given = _given(annotations)
    return bool(given) and _lacks(spec, given)


def _given(annotations: Mapping[str, str]) -> Any:
    try:
        manifest = orjson.loads(annotations.get(GIVEN_ANNOTATION, "{}"))
    except orjson.JSONDecodeError:
        return None
    return manifest.get("spec") if isinstance(manifest, dict) else None


def _lacks(stored: Any, given: Any) -> bool:
    if isinstance(given, dict):
        here = stored if isinstance(stored, dict) else {}
        return any(name not in here or _lacks(here[name], below) for name, below in given.items())
    if isinstance(given, list) and isinstance(stored, list):
        return any(_lacks(here, below) for here, below in zip(stored, given, strict=False))
    return False


def _empty(part: Any, place: str) -> Iterator[str]:
    """For each name without a value where that is a slip, or lifts a restriction."""
    if isinstance(part, dict):
        for name, below in part.items():
            if below is None and (":" in name or place in _RESTRICTING):
                yield _sentence(place, name)
            yield from _empty(below, f"{place}.{name}")
    elif isinstance(part, list):
        for index, below in enumerate(part):
            yield from _empty(below, f"{place}[{index}]")


def _sentence(place: str, name: str) -> str:
    if ":" in name:
        glued = f"{name[:_SHOWN]} is a name without a value, which kubectl apply has left out"
        return f"{place}: {glued}; put a space after its colon"
    return f"{place}.{name[:_SHOWN]}: there is nothing after its colon, so that it restricts nothing"


def _unknown(given: Any, model: type[BaseModel]) -> Iterator[str]:
    """For each unknown field, except those with a colon, which `_empty` reports."""
    try:
        model.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as found:
        for error in found.errors(include_url=False, include_input=False):
            *place, name = error["loc"]
            if error["type"] == "extra_forbidden" and ":" not in str(name):
                path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
                yield f"spec{path}.{str(name)[:_SHOWN]}: there is no such field, and the API server has left it out"
