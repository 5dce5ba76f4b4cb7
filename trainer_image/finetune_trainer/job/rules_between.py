"""Rules between fields of connections, models and deployments: the CRDs' CEL rules, reimplemented in Python.

The message of a broken rule is the CRD's own, and its start identifies the rule. Patterns of single fields are in the
models, and rules on updates are checked by the API server only.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from finetune_api.aws import partition_of
from finetune_api.base import COUNTED_HELP, RULES, SERVICE_NAME, SIZES
from finetune_api.connection import PROVIDERS
from finetune_api.deployment import ENGINES
from finetune_api.quantities import LEAST_SIZE, MOST_CORES, amount, is_counted, nearest
from finetune_api.schema import Schema
from finetune_api.trainer import LARGEST_NUMBER

Path = tuple[str | int, ...]


def _engines(spec: Any) -> int:
    return sum(name in spec for name in ENGINES)


def _action(spec: Any) -> str:
    """The action for an idle deployment."""
    return str(spec["idle"]["action"]) if "idle" in spec else "None"


def _are_sizes(resources: Any) -> bool:
    sizes = [amount(resources[name]) for name in SIZES if name in resources]
    return all(size is None or size >= LEAST_SIZE for size in sizes)


def _are_cores(quantity: Any) -> bool:
    return (cores := amount(quantity)) is None or cores <= MOST_CORES


def _devices_are_counted(resources: Any) -> bool:
    devices = [value for name, value in resources.items() if "/" in name and amount(value) is not None]
    return all(is_counted(value) for value in devices)


def _amounts(resources: Any) -> Iterator[dict[str, float | None]]:
    """The amounts of limits and of requests."""
    for part in ("limits", "requests"):
        yield {name: amount(value) for name, value in resources.get(part, {}).items()}


def _has_devices_in_limits(resources: Any) -> bool:
    limits, requests = _amounts(resources)
    devices = (name for name in requests if "/" in name or name.startswith("hugepages-"))
    # Names of Kubernetes and its schedulers are not devices: they may be in requests alone.
    pairs = [(requests[name], limits.get(name, -1)) for name in devices if "kubernetes.io/" not in name]
    return all(asked == limit or None in (asked, limit) for asked, limit in pairs)


def _are_within_limits(resources: Any) -> bool:
    limits, requests = _amounts(resources)
    return all(
        asked is None or (limit := limits.get(name)) is None or asked <= limit for name, asked in requests.items()
    )


def _is_ecr_image(image: str, region: str) -> bool:
    registry = rf"[0-9]{{12}}[.]dkr[.-]ecr(-fips)?[.]{re.escape(region)}[.][a-z0-9.:-]+"
    name = "/[a-z0-9][-a-z0-9._/]*(:[A-Za-z0-9_.-]+)?(@sha256:[0-9a-f]+)?"
    return re.fullmatch(registry + name, image) is not None


HOLDS: dict[str, Callable[[Any], bool]] = {
    "spec needs exactly one provider block": lambda it: sum(name in it for name in PROVIDERS) == 1,
    "huggingFace.airGapped needs": lambda it: (
        "modelCache" in (local := it.get("huggingFace", {})) or not local.get("airGapped")
    ),
    "checkPod is for": lambda it: not {"huggingFace", "checkPod"} <= it.keys(),
    "In and NotIn need values": lambda it: (it["operator"] in ("In", "NotIn")) == bool(it.get("values")),
    "nothing is below matchLabels": lambda it: all(it.get(part, True) for part in ("matchLabels", "matchExpressions")),
    "artifacts.endpointURL and": lambda it: (
        not it["uri"].startswith("pvc://") or it.keys().isdisjoint(("endpointURL", "secretRef"))
    ),
    "azureOpenAI needs endpoint": lambda it: "workspace" in it or {"endpoint", "account"} <= it.keys(),
    "credentials are either secretRef or workload": lambda it: ("secretRef" in it) != it.get("workloadIdentity", False),
    "credentials are either secretRef or pod": lambda it: ("secretRef" in it) != it.get("podIdentity", False),
    "roleARN is of another partition": lambda it: (
        not it["roleARN"].startswith("arn:") or it["roleARN"].startswith(f"arn:{partition_of(it['region'])}:")
    ),
    "SageMaker runs images of ECR": lambda it: _is_ecr_image(it["trainerImage"], it["region"]),
    "sageMaker.kmsKeyID is a key": lambda it: (
        not (key := it.get("kmsKeyID", "")).startswith("arn:") or f":kms:{it['region']}:" in key
    ),
    "sageMaker.spot.maxWaitSeconds counts": lambda it: (
        not it["spot"]["enabled"] or it["spot"]["maxWaitSeconds"] >= it["maxRuntimeSeconds"]
    ),
    "sageMaker.networkIsolation needs": lambda it: not it["networkIsolation"] or "modelCache" in it,
    "name at most one of": lambda it: _engines(it) <= 1,
    "idle.action Delete ends": lambda it: "huggingFace" not in it or _action(it) != "Delete",
    "idle.action ScaleToZero stops": lambda it: "huggingFace" in it or not _engines(it) or _action(it) != "ScaleToZero",
    "modelRef.name becomes": lambda it: re.fullmatch(SERVICE_NAME, it["modelRef"]["name"]) is not None,
    "version is Active or": lambda it: it["version"] == "Active" or (type(it["version"]) is int and it["version"] > 0),
    "attach names a cloud": lambda it: "attach" not in it or not _engines(it),
    "an attached deployment is never": lambda it: "attach" not in it or _action(it) == "None",
    "type ProvisionedThroughput is billed": lambda it: (
        it["type"] == "OnDemand" or {"modelUnits", "commitment"} <= it.keys()
    ),
    "type OnDemand is billed": lambda it: (
        it["type"] != "OnDemand" or it.keys().isdisjoint(("modelUnits", "commitment"))
    ),
    "write a quantity": lambda it: amount(it) is not None,
    "memory and ephemeral-storage:": _are_sizes,
    "cpu: no node has": lambda it: _are_cores(it.get("cpu", 0)),
    "what a device plugin hands out": _devices_are_counted,
    "resources are cpu, memory": lambda it: all(
        "/" in name or name in ("cpu", *SIZES) or name.startswith("hugepages-") for name in it
    ),
    "requests may not be": _are_within_limits,
    "devices and huge pages": _has_devices_in_limits,
}
"""By start of the message: whether the part with the rule satisfies it. All parts have their defaults filled in."""


_LONGEST_QUANTITY = 32


def of_quantity(value: Any) -> str | None:
    """What is wrong with a number in place of a quantity: the API server accepts only 64-bit integers."""
    if isinstance(value, str) and len(value) > _LONGEST_QUANTITY:
        return f"a quantity has at most {_LONGEST_QUANTITY} characters"
    if isinstance(value, int | float) and value >= LARGEST_NUMBER:
        return "so large a number needs a unit, such as 16Gi"
    return 'a fraction needs quotes or the unit m: write "0.5" or 500m' if isinstance(value, float) else None


def broken_rules(schema: Schema, value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The rules that a value violates: the field that each blames, and its message."""
    if schema.get("x-kubernetes-int-or-string") and (wrong := of_quantity(value)):
        is_device = isinstance(value, float) and "/" in str(path[-1])
        yield path, COUNTED_HELP if is_device else wrong
        return
    for rule in schema.get(RULES, ()):
        message = rule["message"]
        holds = next((holds for begins, holds in HOLDS.items() if message.startswith(begins)), None)
        if holds and not holds(value):
            below = rule.get("fieldPath", "").strip(".")
            near = nearest(value) if isinstance(value, str) else None
            yield (*path, *(below.split(".") if below else ())), message + (f"; did you mean {near}?" if near else "")
    for name, part in _parts(schema, value):
        yield from broken_rules(part, value[name], (*path, name))


def _parts(schema: Schema, value: Any) -> Iterator[tuple[str | int, Schema]]:
    """The names or indices in a value, with the schema of each."""
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        yield from ((name, part) for name in value if (part := known.get(name, other)))
    elif isinstance(value, list) and "items" in schema:
        yield from ((index, schema["items"]) for index in range(len(value)))
