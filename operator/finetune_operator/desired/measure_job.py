"""The batch/v1 Job of the pod that evaluates a provider's model on the test set: no torch, no provider credentials."""

from posixpath import join

from finetune_api.asking import RequestingAttempt
from finetune_api.connection import CheckPod
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import FineTuneJobStatus, ProviderEvaluation, ProviderStatus
from finetune_api.manifest import Manifest
from finetune_api.names import REPORT_PATH
from finetune_api.reasons import Reason
from finetune_api.trainer import MeasureJob, ReportTarget
from finetune_api.uris import Uri, parse_uri
from finetune_api.verdict import DatasetVerdict
from finetune_operator.desired import names, small_pod
from finetune_operator.desired.pod import Volumes
from finetune_operator.desired.training_job import keys_of_services

COMPONENT = "evaluation"
"""Label value of the job's pods that may query models."""

GRACE_SECONDS = 30
"""Time to receive and keep answers that are already requested, and so paid for."""


def described(asker: RequestingAttempt, spec: FineTuneJobSpec, status: FineTuneJobStatus, service: str) -> MeasureJob:
    """The pod's job; `service`: DNS name of the operator's Service."""
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
    """The Job of the evaluation pod with this number."""
    volumes, dataset = Volumes(), job.spec.dataset
    volumes.dataset(parse_uri(file.uri) for file in (dataset.train, dataset.test) if file)
    if output := _output(job.spec):
        volumes.claim(output.root, read_only=False)
    return small_pod.build(
        owner,
        job,
        pod,
        volumes,
        name=names.measuring_job(owner["metadata"]["name"], job.attempt, number),
        component=COMPONENT,
        command="measure",
        default_image=default_image,
        report_ca=report_ca,
        grace_seconds=GRACE_SECONDS,
        keys=keys_of_services(job.spec.evaluation),
    )


def _output(spec: FineTuneJobSpec) -> Uri | None:
    output = spec.evaluation.output
    return parse_uri(output.uri) if output else None
