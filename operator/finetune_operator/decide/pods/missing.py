"""Finds the field that names what a pod lacks: kubelet, scheduler and API server give only the object's name."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_api.base import ApiModel
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason

_LACKED = re.compile(
    r'\b(?P<kind>secret|configmap|persistentvolumeclaim|serviceaccount|runtimeclass) "(?P<name>[^"]+)"'
    r"|key \S+ in (?P<of>secret|configmap) \S*/(?P<key>\S+)|no (?P<class>priorityclass) with name (?P<rank>\S+)",
    re.IGNORECASE,
)
_KEY_OF_VOLUME = re.compile(r"references non-existent (?P<kind>secret|config) key: (?P<key>\S+)")
_OBJECTS = {"secret": "Secret", "config": "ConfigMap"}
_MOUNTING = re.compile(r'^MountVolume[.]SetUp failed for volume "[^"]*" : ')
"""Redundant: the volume's name is our own."""

_REFERENCES = {"secretref": "secret", "configmapref": "configmap", "cabundleref": "configmap"}
_NAMES = {
    "claimName": "persistentvolumeclaim",
    "serviceAccountName": "serviceaccount",
    "priorityClassName": "priorityclass",
    "runtimeClassName": "runtimeclass",
}
_RESOURCES = {
    "secret": "secret",
    "configmap": "configmap",
    "persistentvolumeclaim": "pvc",
    "serviceaccount": "serviceaccount",
}
"""By kubectl's names, objects of the pod's namespace: those who may write a job there may look for these."""

_PULL_SECRETS = ".imagePullSecrets["
_LONGEST_STEP = 1024
_SCHEMES = {"pvc": "persistentvolumeclaim", "configmap": "configmap"}


def with_field(
    failure: Failure,
    spec: ApiModel | None,
    connection: str = "",
    of_connection: LLMConnectionSpec | None = None,
    namespace: str = "",
) -> Failure:
    """The same failure, prefixed with the field that names the missing Secret, ConfigMap or claim, if there is one.

    Args:
        failure: What keeps a pod from starting.
        spec: Of the pod's job or deployment; None if it cannot be read.
        connection: Name of its connection.
        of_connection: The connection's spec, if it exists.
        namespace: Of the pod; empty to leave out the command that checks for everything the pod needs.
    """
    if spec is None:
        return failure
    failure = _with_all(failure, spec, namespace, of_connection)
    failure = failure.model_copy(update={"message": _MOUNTING.sub("", failure.message)})
    if key := _KEY_OF_VOLUME.search(failure.message):
        return _without_key(failure, spec, key["kind"], key["key"])
    found = _LACKED.search(failure.message)
    if found is None:
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


def _with_all(failure: Failure, spec: ApiModel, namespace: str, connection: LLMConnectionSpec | None) -> Failure:
    """Adds a command that checks whether everything that the pod needs exists.

    Kubernetes reports one missing object at a time, and the operator has no right to look for Secrets.
    """
    pulled = failure.reason is Reason.IMAGE_PULL_FAILED
    lacks = pulled or _LACKED.search(failure.message) or _KEY_OF_VOLUME.search(failure.message)
    if not lacks or not namespace:
        return failure
    pods = connection and (connection.hugging_face or connection.check_pod)
    named = [one for part in (spec, *([pods] if pods else ())) for one in _named(part.wire(), "spec")]
    needed = dict.fromkeys(one for field, one in named if not pulled or _PULL_SECRETS in field)
    objects = [f"{_RESOURCES[kind]}/{name}" for kind, name in needed if kind in _RESOURCES]
    words, least = ("Whether its pull secrets are in the namespace:", 1) if pulled else ("What else is missing:", 2)
    step = f"{failure.next_step or ''} {words} kubectl -n {namespace} get {' '.join(objects)}".strip()
    told = len(objects) >= least and len(step) <= _LONGEST_STEP
    return failure.model_copy(update={"next_step": step}) if told else failure


def _without_key(failure: Failure, spec: ApiModel, kind: str, key: str) -> Failure:
    """The kubelet names only the key of a mounted Secret or ConfigMap: adds the object, if exactly one field fits."""
    lacking = [(path, name) for path, of, name, wanted in _keys(spec.wire(), "spec") if (of, wanted) == (kind, key)]
    if len(lacking) != 1:
        return failure
    path, name = lacking[0]
    return failure.model_copy(update={"message": f"{path}: {_OBJECTS[kind]} {name} has no key {key}"})


def _keys(part: Any, path: str) -> Iterator[tuple[str, str, str, str]]:
    """Every reference to a key of an object: its path, `secret` or `config`, the object's name and the key."""
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from _keys(value, f"{path}.{name}")
        kind = "config" if path.lower().endswith(("configmapref", "cabundleref")) else "secret"
        if path.endswith("Ref") and {"name", "key"} <= part.keys():
            yield path, kind, str(part["name"]), str(part["key"])


def _named(part: Any, path: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Every field that names an object of the pod's namespace, with the object's kind and name."""
    if isinstance(part, list):
        for place, one in enumerate(part):
            yield from _named(one, f"{path}[{place}]")
    elif isinstance(part, Mapping):
        for name, value in part.items():
            yield from _named(value, f"{path}.{name}")
        kind = next((kind for ending, kind in _REFERENCES.items() if path.lower().endswith(ending)), None)
        kind = "secret" if _PULL_SECRETS in path else kind
        if kind and "name" in part:
            yield path, (kind, str(part["name"]))
    elif isinstance(part, str):
        scheme, _, rest = part.partition("://")
        if scheme in _SCHEMES:
            yield path, (_SCHEMES[scheme], rest.partition("/")[0])
        elif kind := _NAMES.get(path.rpartition(".")[2]):
            yield path, (kind, part)
