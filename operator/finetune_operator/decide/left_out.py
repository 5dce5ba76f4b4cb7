"""What `kubectl apply` has left out of a manifest without a word: `{epochs:5}` is one name without a value. Pure.

The API server never sees it, and defaults take its place. kubectl notes in an annotation what it was given.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import orjson

GIVEN_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_NOTHING = '":null'
_FEW, _SHOWN = 3, 64
"""Names that are told of one object, and letters of each."""
_RESTRICTING = ("spec.namespaceSelector", "spec.fineTuning")
"""Parts of a connection that allow more without a field of theirs: elsewhere `epochs:` alone is how tools unset one."""


def left_out(annotations: Mapping[str, str]) -> list[str]:
    """A sentence for each such name in the spec, beginning with the field that it stands in."""
    given = annotations.get(GIVEN_ANNOTATION, "")
    if _NOTHING not in given:
        return []
    try:
        manifest = orjson.loads(given)
    except orjson.JSONDecodeError:
        return []
    spec = manifest.get("spec") if isinstance(manifest, dict) else None
    return list(islice(_empty(spec, "spec"), _FEW))


def _empty(part: Any, place: str) -> Iterator[str]:
    """Of each name with nothing behind it where that is a slip, or opens what was to be closed."""
    if isinstance(part, dict):
        for name, below in part.items():
            if below is None and (":" in name or place in _RESTRICTING):
                yield _told(place, name)
            yield from _empty(below, f"{place}.{name}")
    elif isinstance(part, list):
        for index, below in enumerate(part):
            yield from _empty(below, f"{place}[{index}]")


def _told(place: str, name: str) -> str:
    if ":" in name:
        glued = f"{name[:_SHOWN]} is a name without a value, which kubectl apply has left out"
        return f"{place}: {glued}; a space belongs behind its colon"
    return f"{place}.{name[:_SHOWN]}: nothing stands behind its colon, so that it restricts nothing"
