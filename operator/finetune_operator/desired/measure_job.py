"""The batch/v1 Job of the pod that asks a model at a provider the test set: no torch, and no credentials of anybody."""

from posixpath import join

import orjson

from finetune_api.asking import Asker
from finetune_api.connection import CheckPod
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import FineTuneJobStatus, ProviderEvaluation, ProviderStatus
from finetune_api.names import (
    ATTEMPT_LABEL,
    COMPONENT_LABEL,
    JOB_LABEL,
    JOB_VARIABLE,
    MODEL_LABEL,
    OWNER_ANNOTATION,
    REPORT_CA_VARIABLE,
    REPORT_PATH,
    TOKEN_PATH,
    TRAINER_CONTAINER,
)
from finetune_api.reasons import Reason
from finetune_api.trainer import MeasureJob, ReportTarget
from finetune_api.uris import Uri, parse_uri
from finetune_api.verdict import DatasetVerdict
from finetune_operator.desired import names
from finetune_operator.desired.check_job import RESOURCES, hub_token
from finetune_operator.desired.pod import (
    Manifest,
    Volumes,
    labels,
    owner_reference,
    pod_metadata,
    pod_spec,
    template_resources,
)
from finetune_operator.desired.training_job import keys_of_services, token_volume

COMPONENT = "evaluation"
"""By this label a pod may ask models: no other pod of the job may."""

GRACE_SECONDS = 30
"""Answers that are on their way are paid for: they are waited for, and kept."""


def described(asker: Asker, spec: FineTuneJobSpec, status: FineTuneJobStatus, service: str) -> MeasureJob:
    """What the pod is told; `service`: DNS name of the operator's Service."""
    evaluation = (status.provider or ProviderStatus()).evaluation or ProviderEvaluation()
    active = evaluation.active_version
    unknown = DatasetVerdict(valid=True, reason=Reason.VALID, message="it was not recorded")
    output = _output(spec)
    return MeasureJob(
        namespace=asker.namespace,
        name=asker.name,
        uid=asker.uid,
        attempt=asker.attempt,
        spec=spec,
        report=ReportTarget(url=f"https://{service}{REPORT_PATH}"),
        answers_url=asker.root(service),
        dataset=status.dataset or unknown,
        active_version=active.version if active else None,
        missing="it is not at the provider of this job" if active and active.model is None else None,
        progress=status.progress,
        output=join(names.claim_path(output), f"{names.fit(asker.name, 54)}-{asker.uid[:8]}") if output else None,
    )


def build(
    owner: Manifest, job: MeasureJob, pod: CheckPod, *, number: int, default_image: str, report_ca: str
) -> Manifest:
    """The Job of the evaluation's pod with this number."""
    name = owner["metadata"]["name"]
    own_labels = labels(
        **{
            JOB_LABEL: names.fit(name),
            MODEL_LABEL: names.fit(job.spec.model_ref.name),
            ATTEMPT_LABEL: str(job.attempt),
            COMPONENT_LABEL: COMPONENT,
        }
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.measuring_job(name, job.attempt, number),
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


def _pod(job: MeasureJob, pod: CheckPod, default_image: str, report_ca: str) -> Manifest:
    volumes = Volumes()
    dataset = job.spec.dataset
    volumes.dataset(parse_uri(file.uri) for file in (dataset.train, dataset.test) if file)
    if output := _output(job.spec):
        volumes.claim(output.root, read_only=False)
    volumes.at(TOKEN_PATH.rpartition("/")[0], token_volume(), read_only=True)
    container: Manifest = {
        "name": TRAINER_CONTAINER,
        "image": pod.image or default_image,
        "args": ["measure"],
        "env": [
            {"name": JOB_VARIABLE, "value": orjson.dumps(job.wire()).decode()},
            {"name": REPORT_CA_VARIABLE, "value": report_ca},
            *hub_token(job.spec),
            *keys_of_services(job.spec.evaluation),
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


def _output(spec: FineTuneJobSpec) -> Uri | None:
    output = spec.evaluation.output
    return parse_uri(output.uri) if output else None
