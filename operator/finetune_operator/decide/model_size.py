"""Keeps a FineTunedModel's status within its size limit by dropping what no decision needs, oldest first. Pure.

Evaluations of versions older than the active one are no longer needed: later versions are compared with that one. The
jobs, and the reports beside the weights, keep them. No version is dropped: one without room waits.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from finetune_api.model import DeletedVersion, FineTunedModelStatus, ModelVersion
from finetune_operator.decide.job.status_size import LIMIT_BYTES

ALWAYS_FITTING = 10
"""This many versions always fit, so most models need not be measured."""

REMEMBERED = 20
"""This many versions deleted by history are remembered, whatever else is in status."""

_SCORES = {"evaluation": None}
_FIGURES = {"train_loss": None, "eval_loss": None, "dataset_sha256": None}
"""For people only."""


def room(status: FineTunedModelStatus, new: Sequence[ModelVersion]) -> int:
    """How many of these new versions, counted from the first, the status has room for."""
    present = status.versions or []

    def is_too_large(count: int) -> bool:
        versions = sorted([*present, *new[:count]], key=lambda one: one.version)
        longer = fit(status.model_copy(update={"versions": versions}))
        return len(orjson.dumps(longer.wire())) > LIMIT_BYTES

    if len(present) + len(new) <= ALWAYS_FITTING or not is_too_large(len(new)):
        return len(new)
    return bisect_left(range(1, len(new) + 1), True, key=is_too_large)


def fit(status: FineTunedModelStatus) -> FineTunedModelStatus:
    """The status without what no decision needs, then without the oldest deleted versions, then without more scores."""
    versions, let_go = status.versions or (), status.let_go or ()
    if len(versions) + len(let_go) / 4 <= ALWAYS_FITTING:
        return status
    over = len(orjson.dumps(status.wire())) - LIMIT_BYTES
    if over <= 0:
        return status
    active, newest = status.active_version or 0, versions[-1].version if versions else 0
    shorter, over = _without(_SCORES, versions, over, lambda number: number < active)
    shorter, over = _without(_FIGURES, shorter, over, lambda number: number != active)
    kept, over = _newest(let_go, over)
    shorter, over = _without(_SCORES, shorter, over, lambda number: number not in {active, newest})
    return status.model_copy(update={"versions": list(shorter) or None, "let_go": list(kept) or None})


def _without(
    fields: Mapping[str, Any], versions: Sequence[ModelVersion], over: int, may: Callable[[int], bool]
) -> tuple[list[ModelVersion], int]:
    """The versions without the fields, as many of the oldest as necessary, and the excess in bytes that is left.

    Args:
        fields: to drop.
        versions: oldest first.
        over: the excess in bytes.
        may: whether a version, by its number, may lose them.
    """
    found = []
    for version in versions:
        if over > 0 and may(version.version):
            shorter = version.model_copy(update=fields)
            over -= len(orjson.dumps(version.wire())) - len(orjson.dumps(shorter.wire()))
            version = shorter  # noqa: PLW2901 - the shorter one takes its place
        found.append(version)
    return found, over


def _newest(let_go: Sequence[DeletedVersion], over: int) -> tuple[Sequence[DeletedVersion], int]:
    first = 0
    while over > 0 and first < len(let_go) - REMEMBERED:
        over -= len(b",") + len(orjson.dumps(let_go[first].wire()))
        first += 1
    return let_go[first:], over
