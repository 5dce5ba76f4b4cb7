"""Which field names what a pod lacks: the kubelet, the scheduler and the API server say the object's name alone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_api.base import ApiModel
from finetune_api.job_status import Failure

_LACKED = re.compile(
    r'\b(?P<kind>secret|configmap|persistentvolumeclaim|serviceaccount|runtimeclass) "(?P<name>[^"]+)"'
    r"|key \S+ in (?P<of>secret|configmap) \S*/(?P<key>\S+)|no (?P<class>priorityclass) with name (?P<rank>\S+)",
    re.IGNORECASE,
)
_REFERENCES = {"secretref": "secret", "configmapref": "configmap", "cabundleref": "configmap"}
_NAMES = {
    "claimName": "persistentvolumeclaim",
    "serviceAccountName": "serviceaccount",
    "priorityClassName": "priorityclass",
    "runtimeClassName": "runtimeclass",
}
_SCHEMES = {"pvc": "persistentvolumeclaim", "configmap": "configmap"}


def with_field(
    failure: Failure, spec: ApiModel | None, connection: str = "", of_connection: ApiModel | None = None
) -> Failure:
    """The same failure, beginning with the field that names the missing Secret, ConfigMap or claim, where one does."""
    found = _LACKED.search(failure.message)
    if found is None or spec is None:
        return failure
    lacked = (
        str(found["kind"] or found["of"] or found["class"]).lower(),
        str(found["name"] or found["key"] or found["rank"]),
    )
    fields = [field for field, named in _named(spec.wire(), "spec") if named == lacked]
    where = ", ".join(fields)
    if not fields and of_connection is not None:
        fields = [field for field, named in _named(of_connection.wire(), "spec") if named == lacked]
        where = f"{', '.join(fields)} of LLMConnection {connection}"
    return failure.model_copy(update={"message": f"{where}: {failure.message}"[:4096]}) if fields else failure


def _named(part: Any, path: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Every field below that names an object of the pod's namespace, with the object's kind and name."""
    if isinstance(part, list):
        for place, one in enumerate(part):
            yield from _named(one, f"{path}[{place}]")
    elif isinstance(part, Mapping):
        for name, value in part.items():
            yield from _named(value, f"{path}.{name}")
        kind = next((kind for ending, kind in _REFERENCES.items() if path.lower().endswith(ending)), None)
        if kind and "name" in part:
            yield path, (kind, str(part["name"]))
    elif isinstance(part, str):
        scheme, _, rest = part.partition("://")
        if scheme in _SCHEMES:
            yield path, (_SCHEMES[scheme], rest.partition("/")[0])
        elif kind := _NAMES.get(path.rpartition(".")[2]):
            yield path, (kind, part)
