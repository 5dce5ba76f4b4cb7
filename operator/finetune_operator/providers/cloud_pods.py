"""The pods of a job that trains elsewhere: one checks its data and brings them there, others ask the model it made."""

from collections.abc import Callable

from finetune_api.asking import Asker
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
from finetune_operator.providers.job_record import key_of
from finetune_operator.runtime.kube import JOBS, Kube
from finetune_operator.runtime.store import Store


class CloudPods:
    """Makes these pods, looks at them and ends them.

    Args:
        kube: the API.
        store: watched Jobs.
        pods: finds and ends Jobs and pods, which are watched as those of training are.
        service: DNS name of the report server.
        report_ca: the CA certificate of the report server now, PEM.
        image: of the pods, where a connection names none.
        catalogue: prices as they are known now.
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
        """Whether a check's pod may still pass data on."""
        return self._pods.has_live_pods(_check_of(job))

    def made_by(self, connection: LLMConnectionSpec) -> str:
        """A digest of what connection and chart say of these pods."""
        return small_pod.made_by(connection.check_pod or CheckPod(), self._image)

    async def latest_attempt(self, job: Manifest, status: FineTuneJobStatus) -> int:
        """The highest attempt after the first of which the check's Job is there."""
        return await self._pods.latest_attempt(_check_of(job), status)

    async def checked(self, job: Manifest, status: FineTuneJobStatus) -> Run:
        """The state of the check."""
        return of_small_pod(await self._pods.observe(_check_of(job), status))

    async def measured(self, job: Manifest, key: JobKey, evaluation: ProviderEvaluation) -> Run:
        """The state of the pod that asks the model."""
        name = names.measuring_job(key.name, key.attempt, evaluation.tries)
        recorded = evaluation.job_id == name
        return of_small_pod(await self._pods.observe_beside(job, name, key.attempt, recorded=recorded))

    async def check(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Make the Job of the check. Its name is fixed by the attempt: a second call changes nothing."""
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
        """Make the Job of the pod that asks the model. Its name is fixed: a second call changes nothing.

        Raises:
            CannotMake: a Job of somebody else has the name.
        """
        provider = status.provider or ProviderStatus()
        evaluation = provider.evaluation or ProviderEvaluation()
        key = key_of(job, provider)
        asker = Asker(namespace=key.namespace, name=key.name, uid=job["metadata"]["uid"], attempt=key.attempt)
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
        """End the pod that asks the model; none is no error."""
        evaluation = provider.evaluation
        if evaluation is not None:
            name = names.measuring_job(job["metadata"]["name"], max(provider.attempt, 1), evaluation.tries)
            await self._pods.end_beside(job, name)

    async def end_check(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """End the check's pod; none is no error."""
        await self._pods.stop(_check_of(job), status)

    async def end_earlier(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """Delete the checks of earlier attempts; of one whose model is there, its own, and pods that have asked it."""
        await self._pods.end_earlier(_check_of(job), status)
        evaluation = status.provider.evaluation if status.provider else None
        if status.provider is None or evaluation is None:
            return
        name, attempt = job["metadata"]["name"], max(status.provider.attempt, 1)
        asked = (names.measuring_job(name, attempt, before) for before in range(1, evaluation.tries))
        for ended in (names.batch_job(name, attempt, 1), *asked):
            await self._pods.end_beside(job, ended)


def _check_of(job: Manifest) -> Manifest:
    """The job as its check's pod is of it: that is one, however many nodes train elsewhere."""
    return job | {"spec": {name: value for name, value in job["spec"].items() if name != "resources"}}
