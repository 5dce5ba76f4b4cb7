"""The batch/v1 Job of the pod that checks, converts and passes on the data of an attempt that runs elsewhere."""

import orjson

from finetune_api.connection import CheckPod
from finetune_api.job import FineTuneJobSpec
from finetune_api.names import (
    ATTEMPT_LABEL,
    COMPONENT_LABEL,
    JOB_LABEL,
    JOB_VARIABLE,
    MODEL_LABEL,
    OWNER_ANNOTATION,
    REPORT_CA_VARIABLE,
    TOKEN_PATH,
    TRAINER_CONTAINER,
)
from finetune_api.trainer import PrepareJob
from finetune_api.uris import parse_uri
from finetune_operator.desired import names
from finetune_operator.desired.pod import (
    Manifest,
    Volumes,
    labels,
    owner_reference,
    pod_metadata,
    pod_spec,
    template_resources,
)
from finetune_operator.desired.training_job import token_volume

RESOURCES: Manifest = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
"""Where the connection names none. The data are streamed: their size does not matter."""

GRACE_SECONDS = 10
"""It has nothing to lose: what was passed on is found again by its name."""


def build(owner: Manifest, job: PrepareJob, pod: CheckPod, *, default_image: str, report_ca: str) -> Manifest:
    """The Job of an attempt's check. It has the name of the attempt's Job, as where an attempt trains here."""
    name = owner["metadata"]["name"]
    own_labels = labels(
        **{
            JOB_LABEL: names.fit(name),
            MODEL_LABEL: names.fit(job.spec.model_ref.name),
            ATTEMPT_LABEL: str(job.attempt),
            COMPONENT_LABEL: "check",
        }
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.training_job(name, job.attempt),
            "namespace": owner["metadata"]["namespace"],
            "labels": own_labels,
            "annotations": {OWNER_ANNOTATION: name},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "template": {
                "metadata": pod_metadata(pod, own_labels),
                "spec": _pod(job, pod, default_image, report_ca),
            },
        },
    }


def _pod(job: PrepareJob, pod: CheckPod, default_image: str, report_ca: str) -> Manifest:
    volumes = Volumes()
    dataset = job.spec.dataset
    volumes.dataset(parse_uri(file.uri) for file in (dataset.train, dataset.validation, dataset.test) if file)
    volumes.at(TOKEN_PATH.rpartition("/")[0], token_volume(), read_only=True)
    container: Manifest = {
        "name": TRAINER_CONTAINER,
        "image": pod.image or default_image,
        "args": ["prepare"],
        "env": [
            {"name": JOB_VARIABLE, "value": orjson.dumps(job.wire()).decode()},
            {"name": REPORT_CA_VARIABLE, "value": report_ca},
            *hub_token(job.spec),
        ],
        "resources": template_resources(pod) or RESOURCES,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if dataset.secret_ref is not None:
        container["envFrom"] = [{"secretRef": {"name": dataset.secret_ref.name}}]
    return pod_spec(pod, container, volumes) | {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
    }


def hub_token(spec: FineTuneJobSpec) -> list[Manifest]:
    """For a gated dataset on a hub."""
    token = spec.hub_token_secret_ref
    if token is None:
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": token.name, "key": token.key}}}]
