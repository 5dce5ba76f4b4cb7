"""Keeps a FineTunedModel's status within its size: what decides nothing any more goes, from the oldest on. Pure.

What came out for a version that is older than the active one is asked by nobody: a later one is compared with that. Its
job, and the report beside its weights, have it too.
"""

from collections.abc import Sequence

import orjson

from finetune_api.model import FineTunedModelStatus, LetGoVersion, ModelVersion
from finetune_operator.decide.job.status_size import LIMIT_BYTES

FEW = 40
"""So many versions always fit: of most models nothing need be measured."""

REMEMBERED = 20
"""So many of those that history has let go are remembered whatever there is beside them."""

_FIELD = b',"evaluation":'


def fit(status: FineTunedModelStatus) -> FineTunedModelStatus:
    """The status without the scores of old versions, and the oldest of those let go, as far as it has to be."""
    versions, let_go = status.versions or (), status.let_go or ()
    if len(versions) + len(let_go) / 4 <= FEW:
        return status
    over = len(orjson.dumps(status.wire())) - LIMIT_BYTES
    if over <= 0:
        return status
    shorter, over = _without_scores(versions, status.active_version or 0, over)
    kept = _newest(let_go, over) if over > 0 else let_go
    return status.model_copy(update={"versions": list(shorter) or None, "let_go": list(kept) or None})


def _without_scores(versions: Sequence[ModelVersion], active: int, over: int) -> tuple[list[ModelVersion], int]:
    """The versions, and by how many bytes they are still too many."""
    found = []
    for version in versions:
        if over > 0 and version.version < active and version.evaluation is not None:
            over -= len(_FIELD) + len(orjson.dumps(version.evaluation.wire()))
            version = version.model_copy(update={"evaluation": None})  # noqa: PLW2901 - the shorter one takes its place
        found.append(version)
    return found, over


def _newest(let_go: Sequence[LetGoVersion], over: int) -> Sequence[LetGoVersion]:
    first = 0
    while over > 0 and first < len(let_go) - REMEMBERED:
        over -= len(b",") + len(orjson.dumps(let_go[first].wire()))
        first += 1
    return let_go[first:]
