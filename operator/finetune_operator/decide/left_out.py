"""What `kubectl apply` has left out of a manifest without a word: `{epochs:5}` is one name without a value. Pure.

The API server never sees it, and defaults take its place. kubectl notes in an annotation what it was given.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

GIVEN_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
_NOTHING = '":null'
_FEW = 3
"""Names that are told of one object."""


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
    return [
        f"{place}: {word[:64]} is a name without a value, which kubectl apply has left out; a space belongs behind its "
        "colon"
        for place, word in list(_glued(spec, "spec"))[:_FEW]
    ]


def _glued(part: Any, place: str) -> Iterator[tuple[str, str]]:
    """Names with a colon in them and nothing behind them, with the field that they stand in."""
    if isinstance(part, dict):
        for name, below in part.items():
            if below is None and ":" in name:
                yield place, name
            yield from _glued(below, f"{place}.{name}")
    elif isinstance(part, list):
        for index, below in enumerate(part):
            yield from _glued(below, f"{place}[{index}]")
