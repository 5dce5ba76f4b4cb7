"""The batch/v1 Job of one pod with the small image, for an attempt at a provider.

The pod reads its job from its environment. Its only credential is the token for its reports.
"""

from collections.abc import Iterable

import orjson

from finetune_api.connection import CheckPod
from finetune_api.manifest import Manifest
from finetune_api.names import JOB_VARIABLE, REPORT_CA_VARIABLE, TOKEN_PATH, TRAINER_CONTAINER
from finetune_api.trainer import MeasureJob, PrepareJob
from finetune_operator.desired import artifacts
from finetune_operator.desired.pod import Volumes, batch_job, digest, pod_spec, template_resources
from finetune_operator.desired.training_job import hub_token, labels_of_attempt, metadata_of, token_volume

RESOURCES: Manifest = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
"""Defaults if the connection names none. Data are streamed, so their size does not matter."""


def made_by(pod: CheckPod, default_image: str) -> str:
    """A digest of the settings of these pods in connection and chart."""
    return digest(pod.model_copy(update={"image": pod.image or default_image}))


def build(
    owner: Manifest,
    job: PrepareJob | MeasureJob,
    pod: CheckPod,
    volumes: Volumes,
    *,
    name: str,
    component: str,
    command: str,
    default_image: str,
    report_ca: str,
    grace_seconds: int,
    keys: Iterable[Manifest],
) -> Manifest:
    """The Job, without retries. `command`: of the trainer; `keys`: variables from Secrets."""
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
    labels = labels_of_attempt(owner, job.spec, job.attempt, component)
    metadata = metadata_of(owner, name, labels, made_by(pod, default_image), pod)
    spec = pod_spec(pod, container, volumes) | {"terminationGracePeriodSeconds": grace_seconds}
    return batch_job(metadata, pod, labels, spec, backoffLimit=0, completions=1, parallelism=1)
