"""The batch/v1 Job of the pod that checks, converts and uploads the data of an attempt at a provider."""

from finetune_api.connection import CheckPod
from finetune_api.manifest import Manifest
from finetune_api.trainer import PrepareJob
from finetune_api.uris import parse_uri
from finetune_operator.desired import names, small_pod
from finetune_operator.desired.pod import Volumes
from finetune_operator.desired.training_job import keys_of_services

GRACE_SECONDS = 10
"""Short, as nothing is lost: uploaded files are found again by name."""


def build(owner: Manifest, job: PrepareJob, pod: CheckPod, *, default_image: str, report_ca: str) -> Manifest:
    """The Job of an attempt's check. It has the same name as the Job of an attempt that trains on this cluster.

    It also gets what the evaluation pod will need, so that something missing is noticed before the tuning is paid for.
    """
    volumes, dataset, evaluation = Volumes(), job.spec.dataset, job.spec.evaluation
    volumes.dataset(parse_uri(file.uri) for file in (dataset.train, dataset.validation, dataset.test) if file)
    if job.spec.code is not None:
        volumes.config_map(job.spec.code.config_map_ref.name)
    if dataset.test and evaluation.output:
        volumes.claim(parse_uri(evaluation.output.uri).root, read_only=False)
    return small_pod.build(
        owner,
        job,
        pod,
        volumes,
        name=names.training_job(owner["metadata"]["name"], job.attempt),
        component="check",
        command="prepare",
        default_image=default_image,
        report_ca=report_ca,
        grace_seconds=GRACE_SECONDS,
        keys=keys_of_services(evaluation) if dataset.test else (),
    )
