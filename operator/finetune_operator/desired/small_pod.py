"""The batch/v1 Job of one pod of the small image, which works for an attempt that runs at a provider.

What it is told is in its environment; it reports with a token of its own, and has no other rights.
"""

from collections.abc import Iterable

import orjson

from finetune_api.connection import CheckPod
from finetune_api.manifest import Manifest
from finetune_api.names import (
    ATTEMPT_LABEL,
    COMPONENT_LABEL,
    JOB_LABEL,
    JOB_UID_LABEL,
    JOB_VARIABLE,
    MADE_BY_LABEL,
    MODEL_LABEL,
    OWNER_ANNOTATION,
    REPORT_CA_VARIABLE,
    TOKEN_PATH,
    TRAINER_CONTAINER,
)
from finetune_api.trainer import MeasureJob, PrepareJob
from finetune_operator.desired import artifacts, names
from finetune_operator.desired.pod import (
    Volumes,
    digest,
    labels_of_work,
    owner_reference,
    pod_metadata,
    pod_spec,
    queue_label,
    template_resources,
)
from finetune_operator.desired.training_job import hub_token, token_volume

RESOURCES: Manifest = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
"""Where the connection names none. The data are streamed: their size does not matter."""


def made_by(pod: CheckPod, default_image: str) -> str:
    """A digest of what a connection, and the chart, say of these pods."""
    return digest(pod.model_copy(update={"image": pod.image or default_image}))


def job_of(
    owner: Manifest, job: PrepareJob | MeasureJob, pod: CheckPod, *, name: str, component: str, spec: Manifest
) -> Manifest:
    """The Job of that name around the pod's `spec`, tried once: the operator knows whether another one helps."""
    (container,) = spec["containers"]
    owner_name = owner["metadata"]["name"]
    own_labels = labels_of_work(
        **{
            JOB_LABEL: names.fit(owner_name),
            MODEL_LABEL: names.fit(job.spec.model_ref.name),
            ATTEMPT_LABEL: str(job.attempt),
            COMPONENT_LABEL: component,
        }
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {
                **own_labels,
                JOB_UID_LABEL: owner["metadata"]["uid"],
                MADE_BY_LABEL: made_by(pod, container["image"]),
                **queue_label(pod),
            },
            "annotations": {OWNER_ANNOTATION: owner_name},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "template": {"metadata": pod_metadata(pod, own_labels), "spec": spec},
        },
    }


def spec_of(
    job: PrepareJob | MeasureJob,
    pod: CheckPod,
    volumes: Volumes,
    *,
    command: str,
    default_image: str,
    report_ca: str,
    grace_seconds: int,
    keys: Iterable[Manifest] = (),
) -> Manifest:
    """The pod's spec: `command` of the trainer with its job, `keys` being variables from Secrets of the namespace."""
    volumes.at(TOKEN_PATH.rpartition("/")[0], token_volume(), read_only=True)
    container: Manifest = {
        "name": TRAINER_CONTAINER,
        "image": pod.image or default_image,
        "args": [command],
        "env": [
            {"name": JOB_VARIABLE, "value": orjson.dumps(job.wire()).decode()},
            {"name": REPORT_CA_VARIABLE, "value": report_ca},
            *hub_token(job.spec),
            *keys,
        ],
        "resources": template_resources(pod) or RESOURCES,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    container |= artifacts.environment(None, job.spec.dataset.secret_ref)
    return pod_spec(pod, container, volumes) | {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace_seconds,
    }
