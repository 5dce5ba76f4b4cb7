"""Translates pod paths in the API server's errors into the fields of a connection or a deployment that set them."""

import re
from collections.abc import Mapping
from typing import Any

from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.job_status import Failure
from finetune_api.near_names import nearest_name
from finetune_api.pod_fields import invalid_parts
from finetune_api.reasons import Reason

_OF_A_POD = "nodeSelector|tolerations|affinity|runtimeClassName|priorityClassName|serviceAccountName|imagePullSecrets"
_FIELD = re.compile(
    r"(?<![\w])\.?spec\.(?:replicatedJobs\[\d+\]\.template\.spec\.)?template\."
    rf"(?:(?:metadata\.)?(?P<meta>labels|annotations)|spec\.(?P<field>{_OF_A_POD})"
    r"|spec\.containers\[[^\]]*\]\.(?P<amount>resources(?:\.(?P<kind>requests|limits)(?:\[(?P<of>[^\]]*)\])?)?)"
    r"|spec\.volumes(?:\[[^\]]*\])?\.(?P<source>\w+))"
)
"""Paths in a Job, a JobSet or a Deployment, created or applied."""

_TRIED = re.compile(r'^\w+(?:\.[\w.]+)? "[^"]*" is invalid: |^\w+ in version "[^"]*" cannot be handled as a \w+: ')
"""Prefix that names an object nobody knows, with a generated name."""

_OF_NO_TYPE = re.compile(r"json: cannot unmarshal (\w+) into Go struct field \w+\.(\S+) of type (\S+)")
_TYPES = {"int64": "a whole number", "int32": "a whole number", "string": "text", "bool": "true or false"}
_FOLLOWS = re.compile(r', [\w.\[\]]*\.volumeMounts\[\d+\]\.name: Not found: "v\d+"')
"""The error about a mount whose volume was refused."""

_CORRECT = (
    "Correct the field that the message names, in spec.deployment.template of the FineTunedModel if that has made "
    "this object."
)
_ASK = "Ask an admin to correct the field that the message names in the connection: it is retried automatically."


def in_words_of(spec: LLMConnectionSpec, said: str) -> str | None:
    """The API server's message about a pod, by the connection's fields; None if it is about none of them."""
    wire = spec.wire()
    block = "huggingFace" if spec.hugging_face is not None else "checkPod"
    found = False

    def place(match: re.Match[str]) -> str:
        nonlocal found
        path = _place(wire.get(block) or {}, match)
        found = found or path is not None
        return match[0] if path is None else f"spec.{block}.{path}"

    said = _FIELD.sub(place, _FOLLOWS.sub("", said))
    if not found:
        return _of_quantity(wire, _TRIED.sub("", said))
    said = _TRIED.sub("", said).removeprefix("strict decoding error: ")
    said = _OF_NO_TYPE.sub(_of_another_type, said.removeprefix("[").removesuffix("]"))
    return f"{said}{_meant(wire, said)}"


def of_connection(failure: Failure, name: str, spec: LLMConnectionSpec | None) -> Failure:
    """The same refusal of a pod, by the connection's field if it is about one."""
    if failure.reason is not Reason.POD_REJECTED or spec is None:
        return failure
    said = in_words_of(spec, failure.message)
    if said is None:
        return failure
    message = f"LLMConnection {name}: {said}"[:4096]
    return failure.model_copy(update={"message": message, "next_step": _ASK})


def of_deployment(failure: Failure, spec: ModelDeploymentSpec | None) -> Failure:
    """The same refusal, if it is about resources that a deployment sets; they override those of its connection."""
    local = spec.hugging_face if spec is not None else None
    if failure.reason is not Reason.POD_REJECTED or local is None or local.resources is None:
        return failure
    said = _FIELD.sub(lambda at: f"spec.huggingFace.{at['amount']}" if at["amount"] else at[0], failure.message)
    if said == failure.message:
        return failure
    return failure.model_copy(update={"message": _TRIED.sub("", said), "next_step": _CORRECT})


def _place(block: Mapping[str, Any], match: re.Match[str]) -> str | None:
    """The path below the block; None if the connection does not set it, so that it comes from us or from a policy."""
    template = block.get("podTemplate") or {}
    if field := match["meta"] or match["field"]:
        return f"podTemplate.{field}" if template.get(field) else None
    if match["amount"]:
        resources = template.get("resources") or {}
        named = resources if match["of"] is None else match["of"] in (resources.get(match["kind"]) or {})
        return f"podTemplate.{match['amount']}" if named else None
    volume = (block.get("modelCache") or {}).get("volume") or {}
    return f"modelCache.volume.{match['source']}" if match["source"] in volume else None


def _of_quantity(wire: Mapping[str, Any], said: str) -> str | None:
    """For an invalid quantity, for which the server names no field."""
    fields = [one.place for one in invalid_parts(wire) if one.what == "Quantity"]
    return f"{', '.join(fields)}: {said}" if fields and "quantit" in said else None


def _of_another_type(match: re.Match[str]) -> str:
    has, path, wanted = match.groups()
    write = _TYPES.get(wanted, "a list" if wanted.startswith("[]") else "fields below it")
    return f"{path}: write {write}, not {'an' if has in ('array', 'object') else 'a'} {has}"


def _meant(wire: Mapping[str, Any], said: str) -> str:
    """Suggestions for unknown names in the message."""
    names = (one for one in invalid_parts(wire) if one.what == "Name")
    unknown = [one for one in names if re.search(rf"[.]{re.escape(str(one.path[-1]))}\b", said)]
    pairs = ((str(one.path[-1]), nearest_name(str(one.path[-1]), one.known)) for one in unknown)
    return "".join(f"; by {name}, did you mean {near}?" for name, near in pairs if near)
