"""Inputs for building child objects, and accessors for tests."""

from typing import Any

from finetune_api.deployment import ModelDeploymentSpec
from finetune_operator.desired import serving, training_job
from tests.unit.finetune_operator.decide.given import job_spec
from tests.unit.finetune_operator.decide.given_models import version
from tests.unit.finetune_operator.desired.given_pods import hugging_face

OUTPUT = "pvc://models/team-a/sentiment/sentiment-1-11111111"


def owner(kind: str = "FineTuneJob", name: str = "sentiment-1") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team-a", "uid": "owner-uid"}
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": metadata}


def attempt(number: int = 2) -> training_job.Attempt:
    url = "https://reports.finetune.svc/v1/reports"
    return training_job.Attempt(number=number, output_uri=OUTPUT, report_url=url, report_ca="PEM")


def job(name: str = "sentiment-1", local: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return training_job.build(owner(name=name), job_spec(**fields), hugging_face(**(local or {})), attempt())


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod_of(manifest)["containers"]
    found: dict[str, Any] = only
    return found


def variables(manifest: dict[str, Any]) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in container_of(manifest).get("env", ())}


def mounts(manifest: dict[str, Any]) -> dict[str, bool]:
    return {m["mountPath"]: m.get("readOnly", False) for m in container_of(manifest)["volumeMounts"]}


def is_owned(manifest: dict[str, Any], by: str) -> None:
    (reference,) = manifest["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"], reference["controller"]) == (by, "owner-uid", True)


def served(engine: Any = "Transformers", local: dict[str, Any] | None = None, **fields: Any) -> serving.Served:
    artifact = version(3).artifact.model_copy(update={"kind": fields.pop("kind", "Adapter")})
    made = version(3).model_copy(update={"artifact": artifact, **fields})
    return serving.Served(made, engine, hugging_face(**{"vllmImage": "vllm:1", **(local or {})}))


def deployment(what: serving.Served | None = None, **fields: Any) -> dict[str, Any]:
    spec = ModelDeploymentSpec.model_validate({"modelRef": {"name": "sentiment"}} | fields)
    return serving.deployment(owner("ModelDeployment", "sentiment"), spec, what or served())
