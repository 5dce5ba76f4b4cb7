"""Describes problems in those parts of a connection whose schema is left to Kubernetes.

The operator asks the API server about them once the connection exists; for a file they are checked here.
"""

from collections.abc import Iterator
from typing import Any

from finetune_api.near_names import nearest_name
from finetune_api.pod_fields import InvalidPart, invalid_parts
from finetune_trainer.job.fields import Path

_MAX_NAMES = 12
"""Maximum number of names to list if none is similar."""


def wrong_in_open_parts(spec: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """All such fields of a connection's spec: the path, and what to write there."""
    for one in invalid_parts(spec):
        yield one.path, f"{one.place}{_problem(one, str(one.path[-1]))}"


def _problem(one: InvalidPart, name: str) -> str:
    names = list(one.known)
    if one.what == "Missing":
        return " is required"
    if one.what == "NoFields":
        return f": write fields below it, such as {{{names[0]}: …}}"
    if one.what == "Quantity":
        return ": write a quantity such as 500Mi or 16Gi"
    if one.what == "Word":
        return f": write one of {', '.join(names)}"
    near = nearest_name(name, names)
    if near is not None:
        return f": no such field; did you mean {near}?"
    some = names if len(names) <= _MAX_NAMES else [*names[:_MAX_NAMES], "and others"]
    return f": no such field; there are {', '.join(some)}"
