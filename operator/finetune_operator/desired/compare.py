"""Whether an object is as it should be, defaults of the API server aside."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import orjson

from finetune_api.names import FIELD_MANAGER, GROUP, MANAGED_BY_LABEL

DIGEST_ANNOTATION = f"{GROUP}/applied"

Manifest = dict[str, Any]


def stamped(wanted: Manifest) -> Manifest:
    """The object with its own digest in an annotation: a field that is not wanted any more shows as a difference."""
    metadata = wanted["metadata"]
    digest = sha256(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    annotations = {**metadata.get("annotations", {}), DIGEST_ANNOTATION: digest}
    return {**wanted, "metadata": {**metadata, "annotations": annotations}}


def is_ours(present: Manifest) -> bool:
    """Whether the operator has made an object: by its label or, where somebody has taken that off, by who wrote it."""
    metadata = present["metadata"]
    if (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) == FIELD_MANAGER:
        return True
    writers = metadata.get("managedFields") or ()
    return any((one.get("manager"), one.get("operation")) == (FIELD_MANAGER, "Apply") for one in writers)


def covers(present: Any, wanted: Any) -> bool:
    """Whether all that is wanted is present; what the server has added does not matter.

    Quantities that the server spells anew (1000m as 1) count as a difference: applying them again changes nothing.
    """
    if isinstance(wanted, Mapping):
        if not wanted:
            return present is None or isinstance(present, Mapping)
        return isinstance(present, Mapping) and all(covers(present.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not wanted:
            return not present
        return (
            isinstance(present, list)
            and len(present) == len(wanted)
            and all(covers(one, other) for one, other in zip(present, wanted, strict=True))
        )
    return bool(present == wanted)
