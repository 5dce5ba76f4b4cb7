"""The pods of a job that trains at a provider: one checks and uploads its data, others evaluate the tuned model."""

from collections.abc import Callable

from finetune_api.asking import RequestingAttempt
from finetune_api.catalogue import Catalogue
from finetune_api.connection import CheckPod, LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import FineTuneJobStatus, ProviderEvaluation, ProviderStatus
from finetune_api.manifest import Manifest
from finetune_api.names import REPORT_PATH, UPLOAD_PATH
from finetune_api.openai import data_rules
from finetune_api.trainer import PrepareJob, ReportTarget
from finetune_operator.decide.cloud_job.small_pods import of_small_pod
from finetune_operator.decide.job.remote import JobKey
from finetune_operator.decide.job.run import Run
from finetune_operator.desired import check_job, measure_job, names, small_pod
from finetune_operator.providers.catalogue import catalogue_name
from finetune_operator.providers.hugging_face.names_taken import create_job
from finetune_operator.providers.hugging_face.training import HuggingFaceTraining
from finetune_operator.providers.remote.job_record import key_of
from finetune_operator.runtime.kube import JOBS, Kube
from finetune_operator.runtime.store import Store


class CloudPods:
    """Creates, observes and deletes these pods.

    Args:
        kube: the API.
        store: watched Jobs.
        pods: finds and deletes Jobs and pods, which are watched like those of training.
        service: DNS name of the report server.
        report_ca: the report server's current CA certificate, PEM.
        image: of the pods, if a connection names none.
        catalogue: the current prices.
    """

    def __init__(
        self,
        kube: Kube,
        store: Store,
        pods: HuggingFaceTraining,
        *,
        service: str,
        report_ca: Callable[[], str],
        image: str,
        catalogue: Callable[[], Catalogue],
    ) -> None:
        self._kube = kube
        self._store = store
        self._pods = pods
        self._service = service
        self._report_ca = report_ca
        self._image = image
        self._catalogue = catalogue

    def may_pass_on(self, job: Manifest) -> bool:
        """Whether a check pod may still upload data."""
        return self._pods.has_live_pods(_check_of(job))

    def made_by(self, connection: LLMConnectionSpec) -> str:
        """A digest of the settings of these pods in connection and chart."""
        return small_pod.made_by(connection.check_pod or CheckPod(), self._image)

    async def latest_attempt(self, job: Manifest, status: FineTuneJobStatus) -> int:
        """The highest attempt after the first whose check Job exists."""
        return await self._pods.latest_attempt(_check_of(job), status)

    async def checked(self, job: Manifest, status: FineTuneJobStatus) -> Run:
        """The state of the check."""
        return of_small_pod(await self._pods.observe(_check_of(job), status))

    async def measured(self, job: Manifest, key: JobKey, evaluation: ProviderEvaluation) -> Run:
        """The state of the evaluation pod."""
        name = names.measuring_job(key.name, key.attempt, evaluation.tries)
        recorded = evaluation.job_id == name
        return of_small_pod(await self._pods.observe_named(job, name, key.attempt, recorded=recorded))

    async def check(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Create the check's Job. Its name follows from the attempt, so a second call changes nothing."""
        metadata = job["metadata"]
        prepare = PrepareJob(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            attempt=status.provider.attempt if status.provider else 1,
            spec=spec,
            rules=data_rules(connection),
            upload_url=f"https://{self._service}{UPLOAD_PATH}",
            price=self._catalogue().of(catalogue_name(connection)).model(spec.base_model).training,
            report=ReportTarget(url=f"https://{self._service}{REPORT_PATH}"),
        )
        pod = connection.check_pod or CheckPod()
        manifest = check_job.build(job, prepare, pod, default_image=self._image, report_ca=self._report_ca())
        self._store.put(JOBS, await create_job(self._kube, manifest))
        return str(manifest["metadata"]["name"])

    async def measure(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Create the Job of the evaluation pod. Its name is deterministic, so a second call changes nothing.

        Raises:
            CannotMake: another owner's Job has the name.
        """
        provider = status.provider or ProviderStatus()
        evaluation = provider.evaluation or ProviderEvaluation()
        key = key_of(job, provider)
        asker = RequestingAttempt(
            namespace=key.namespace, name=key.name, uid=job["metadata"]["uid"], attempt=key.attempt
        )
        measured = measure_job.described(asker, spec, status, self._service)
        manifest = measure_job.build(
            job,
            measured,
            connection.check_pod or CheckPod(),
            number=evaluation.tries,
            default_image=self._image,
            report_ca=self._report_ca(),
        )
        self._store.put(JOBS, await create_job(self._kube, manifest))
        return str(manifest["metadata"]["name"])

    async def end_measuring(self, job: Manifest, provider: ProviderStatus) -> None:
        """Delete the evaluation pod; no error if there is none."""
        evaluation = provider.evaluation
        if evaluation is not None:
            name = names.measuring_job(job["metadata"]["name"], max(provider.attempt, 1), evaluation.tries)
            await self._pods.end_named(job, name)

    async def end_check(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """Stop the check pod; no error if there is none."""
        await self._pods.stop(_check_of(job), status)

    async def end_earlier(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """Delete check pods of earlier attempts; once the model exists, also this one's and earlier evaluation pods."""
        await self._pods.end_earlier(_check_of(job), status)
        evaluation = status.provider.evaluation if status.provider else None
        if status.provider is None or evaluation is None:
            return
        name, attempt = job["metadata"]["name"], max(status.provider.attempt, 1)
        asked = (names.measuring_job(name, attempt, before) for before in range(1, evaluation.tries))
        for ended in (names.batch_job(name, attempt, 1), *asked):
            await self._pods.end_named(job, ended)


def _check_of(job: Manifest) -> Manifest:
    """The job without resources: its check runs in a single pod, however many nodes the provider trains on."""
    return job | {"spec": {name: value for name, value in job["spec"].items() if name != "resources"}}
