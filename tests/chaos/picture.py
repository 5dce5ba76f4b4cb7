"""A namespace's final content, normalized so that two runs of one life can be compared."""

import difflib
import json
import re
from collections.abc import Sequence

from finetune_api.manifest import Manifest
from finetune_api.names import COMPONENT_LABEL
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOB_SETS,
    JOBS,
    MODEL_DEPLOYMENTS,
    PODS,
    SERVICES,
    Kube,
)

OF_A_TEAM = (FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS)
KEPT = (JOB_SETS, JOBS, DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS, *OF_A_TEAM, PODS)
OWN = (CONNECTIONS, *OF_A_TEAM)

Differs = Sequence[tuple[re.Pattern[str], str]]
_DIFFERS: Differs = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(\\\\n|\\n)*", re.DOTALL), "CERTIFICATE"),
    (re.compile(r'"jobset.sigs.k8s.io/job-key": "\w+"'), '"jobset.sigs.k8s.io/job-key": "DIGEST"'),
    (re.compile(r'"finetune.dev/applied": "\w+"'), '"finetune.dev/applied": "DIGEST"'),
)
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OF_THE_SERVER = {"uid", "resourceVersion", "creationTimestamp", "managedFields", "generateName", "generation"}


async def picture(kube: Kube, namespace: str, differs: Differs = ()) -> dict[str, list[Manifest]]:
    """Every object that the operator creates or writes, by kind and name, without what differs from run to run.

    A connection with the namespace's name counts as part of the namespace.

    Args:
        kube: the administrator's.
        namespace: to read.
        differs: further values that differ from run to run, and their replacements.
    """
    objects = [(resource, obj) for resource in KEPT for obj in await kube.list(resource, namespace)]
    connection = await kube.get(CONNECTIONS, namespace)
    objects += [(CONNECTIONS, connection)] if connection else []
    named = {obj["metadata"]["uid"]: f"{obj['kind']}-{_name(obj)}" for _, obj in objects}
    # A version names its job by UID even when that is gone.
    mentioned = sorted(set(_UID.findall(json.dumps([obj for _, obj in objects]))) | set(named))
    uids = {uid: named.get(uid, "what is gone") for uid in mentioned}
    last = "|".join(uid[-6:] for uid in uids)
    found: dict[str, list[Manifest]] = {}
    for resource, obj in objects:
        text = json.dumps(_own(obj) if resource in OWN else _child(obj), sort_keys=True)
        # A deployment at a provider has those of two UIDs in its name, one behind the other.
        text = re.sub(rf"(?<=-)({last})({last})(?=-)", r"\1-\2", text)
        for uid, meaning in uids.items():
            text = text.replace(uid, f"UID of {meaning}")
            for part, which in ((uid[:8], "first 8"), (uid[-6:], "last 6")):
                # Not within a digest, where the same characters may occur by chance.
                text = re.sub(rf"(?<![0-9a-f]){part}(?![0-9a-f])", f"{which} of the UID of {meaning}", text)
        for pattern, instead in (*_DIFFERS, *differs):
            text = pattern.sub(instead, text)
        key = f"{obj['kind']}/{_name(obj)}".replace(namespace, "NAMESPACE")
        found.setdefault(key, []).append(json.loads(text.replace(namespace, "NAMESPACE")))
    return found


def assert_same(
    wanted: dict[str, list[Manifest]], found: dict[str, list[Manifest]], warnings: Sequence[str] = ()
) -> None:
    """Assert that two pictures are equal; the message has all differing lines, which pytest would truncate.

    `warnings`: of the operator, which may explain a difference.
    """
    changed = difference(wanted, found)
    assert not changed, "\n".join((changed, *warnings))


def difference(wanted: dict[str, list[Manifest]], found: dict[str, list[Manifest]]) -> str:
    """The lines in which two pictures differ; empty if none."""
    lines = [json.dumps(side, indent=1, sort_keys=True).splitlines() for side in (wanted, found)]
    return "\n".join(difflib.unified_diff(*lines, "undisturbed", "disturbed", lineterm="", n=6))


def _name(obj: Manifest) -> str:
    """The object's name; for a pod, whose own name is random, its owner's."""
    metadata = obj["metadata"]
    if obj["kind"] == "Pod":
        return str(metadata["labels"].get("job-name") or metadata["labels"][COMPONENT_LABEL])
    return str(metadata["name"])


def _metadata(obj: Manifest) -> Manifest:
    kept = {key: value for key, value in obj["metadata"].items() if key not in _OF_THE_SERVER}
    return {**kept, "name": _name(obj)} | ({"labels": _labels(kept)} if "labels" in kept else {})


def _labels(metadata: Manifest) -> Manifest:
    return {key: value for key, value in metadata["labels"].items() if key != "pod-template-hash"}


def _own(obj: Manifest) -> Manifest:
    return {"metadata": _metadata(obj), "spec": obj["spec"], "status": obj.get("status")}


def _child(obj: Manifest) -> Manifest:
    spec = {key: value for key, value in obj["spec"].items() if not key.startswith("clusterIP")}
    if obj["kind"] == "Pod":
        return {"labels": _metadata(obj).get("labels"), "phase": obj["status"]["phase"]}
    conditions = [(c["type"], c["status"]) for c in obj.get("status", {}).get("conditions") or ()]
    if obj["kind"] == DISRUPTION_BUDGETS.kind:
        conditions = []  # Kubernetes' own controller takes its time to count pods
    return {"metadata": _metadata(obj), "spec": spec, "conditions": sorted(conditions)}
