"""Training on this cluster: one batch/v1 Job per attempt, observed by its Job, its pods and its reports.

On several nodes this module creates a JobSet, and its controller creates the Job. JobSets are not watched, so that the
operator also runs on clusters without JobSet, and needs no restart when it is installed. A JobSet's state is read from
its Job, or from the API while it has none.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.connection import HuggingFace, LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus
from finetune_api.manifest import Manifest, conditions_of, labels_of, owners_of, wants_deletion
from finetune_api.names import (
    ATTEMPT_LABEL,
    JOB_UID_LABEL,
    MADE_BY_LABEL,
    MANAGED_BY_LABEL,
    QUEUE_LABEL,
    REPORT_PATH,
    TRAINER_CONTAINER,
)
from finetune_api.reasons import Reason
from finetune_api.trainer import Report
from finetune_api.uris import parse_artifact_uri
from finetune_operator.decide.conditions import is_true, moment
from finetune_operator.decide.job.attempt_end import most_telling
from finetune_operator.decide.job.attempt_pods import is_live, kept_log_tail
from finetune_operator.decide.job.attempts import WAITING_FOR_POD
from finetune_operator.decide.job.read_run import has_ended, read_run
from finetune_operator.decide.job.run import Run, with_log
from finetune_operator.decide.job.versions import version_to_compare
from finetune_operator.decide.pods.refused import refusal_of_pod
from finetune_operator.desired import jobset, names, training_job
from finetune_operator.desired.compare import is_managed
from finetune_operator.providers.calls.errors import CannotMake
from finetune_operator.providers.hugging_face.names_taken import create_job, taken, will_be_deleted
from finetune_operator.providers.hugging_face.pod_refusals import News, ObjectEvents, StartFailures, ignore_news
from finetune_operator.runtime.errors import REFUSALS, KubeError, NotFound
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, JOB_SETS, JOBS, PODS, Kube, owner_uids
from finetune_operator.runtime.logs import redact
from finetune_operator.runtime.refused_writes import RefusedWrites
from finetune_operator.runtime.store import Store

logger = logging.getLogger(__name__)


POD_IS_LATE = timedelta(seconds=10)
"""If a Job has no pod after this, its creation was probably refused: the Job's Events say why."""

NO_POD_FOR_LONG = timedelta(minutes=10)
"""Twice what a Job waits for its pod among ten thousand Jobs."""

_NO_POD_CREATED = (
    f"{WAITING_FOR_POD}: its Job has had no pod for more than ten minutes, and no Event says why; ask an admin whether "
    "the Job controller (kube-controller-manager) runs, or has many others to make, and, where `kubectl get pods` "
    f"shows one, which policy has changed its labels, first of all {MANAGED_BY_LABEL}"
)

BATCH_JOB_LABEL = "batch.kubernetes.io/job-name"
"""Set by the Job controller on a Job's pods."""

LOG_LINES = 40
LOG_BYTES = 4096


def pods_of_job(namespace: str, job: str) -> str:
    """Index key of the pods of a batch Job."""
    return f"job/{namespace}/{job}"


def pods_of_owner(namespace: str, label: str) -> str:
    """Index key of the pods of a FineTuneJob, by the value of their job label."""
    return f"owner/{namespace}/{label}"


def later_attempts(namespace: str, label: str) -> str:
    """Index key of the batch Jobs of a FineTuneJob's attempts after the first, by the value of their job label."""
    return f"attempts/{namespace}/{label}"


class HuggingFaceTraining:
    """A TrainingProvider on this cluster.

    Args:
        kube: the API.
        store: watched Jobs and pods.
        last_report: the newest report of a job's attempt, by the job's UID.
        service: DNS name of the report server.
        report_ca: the report server's current CA certificate, PEM.
        clock: now, with a time zone.
        seconds: a monotonic clock.
        news: called with an Event's `regarding` when Events first say why a Job or pod does not start.
    """

    def __init__(
        self,
        kube: Kube,
        store: Store,
        *,
        last_report: Callable[[str, int], Report | None],
        service: str,
        report_ca: Callable[[], str],
        clock: Callable[[], datetime],
        seconds: Callable[[], float],
        news: News = ignore_news,
    ) -> None:
        self._kube = kube
        self._store = store
        self._last_report = last_report
        self._service = service
        self._report_ca = report_ca
        self._clock = clock
        self._refusals = ObjectEvents(kube, clock, news=news)
        self._start_failures = StartFailures(kube, clock, news)
        self._refused_deletes = RefusedWrites(seconds)

    def output_uri(self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> str:
        """A folder in the connection's artifact location."""
        metadata = job["metadata"]
        return names.output_uri(
            parse_artifact_uri(_settings(connection).artifacts.uri),
            namespace=metadata["namespace"],
            model=spec.model_ref.name,
            job=metadata["name"],
            uid=metadata["uid"],
        )

    async def latest_attempt(self, job: Manifest, status: FineTuneJobStatus) -> int:
        """The highest attempt after the first that has a batch Job or a JobSet; 0 if there is none."""
        metadata = job["metadata"]
        namespace = metadata["namespace"]
        children = self._store.select(JOBS, later_attempts(namespace, names.fit(metadata["name"])))
        if status.provider is None and status.completion_time is None and _nodes(job) > 1:
            try:  # JobSets are not watched, and this one may have no Job yet
                children += await self._kube.list(JOB_SETS, namespace, f"{JOB_UID_LABEL}={metadata['uid']}")
            except NotFound:
                logger.debug("there are no JobSets on this cluster")
        own = (child for child in children if self._own(child, metadata["uid"]))
        numbers = ((one["metadata"]["name"], labels_of(one).get(ATTEMPT_LABEL, "")) for one in own)
        named = [(name, int(number)) for name, number in numbers if number.isdecimal()]
        attempts = (number for name, number in named if name in {_attempt(job, number), _batch_job(job, number)})
        return max(attempts, default=0)

    async def observe(self, job: Manifest, status: FineTuneJobStatus) -> Run:
        """The state by the attempt's Job, pods and report, with the end of the log if a failure needs it."""
        attempt = max(status.provider.attempt if status.provider else 0, 1)
        job_id = _attempt(job, attempt)
        recorded = status.provider is not None and status.provider.job_id == job_id
        under_way = status.completion_time is None
        batch_job = await self._batch_job(job, _batch_job(job, attempt), ask=recorded and under_way)
        of_set = batch_job is None and recorded and under_way and _nodes(job) > 1
        if of_set and (job_set := await self._job_set(job, attempt)) and not _is_finished(job_set):
            named = await self._kube.get(JOBS, _batch_job(job, attempt), job["metadata"]["namespace"])
            batch_job = self._own(named, job_set["metadata"]["uid"])  # its labels may be lost, its owner is not
            if batch_job is None:
                return _without_job(job_id, named)
        run = await self._run_of(job, batch_job, attempt, under_way=under_way)
        if batch_job is None:
            return run if run.state == "Absent" else replace(run, job_id=job_id)
        orphaned = wants_deletion(job) and await self._is_orphaned(job, job_id)
        made_at = moment(batch_job["metadata"]["creationTimestamp"])
        return replace(run, job_id=job_id, made_by=_made_by(batch_job), orphaned=orphaned, made_at=made_at)

    async def _is_orphaned(self, job: Manifest, name: str) -> bool:
        """Whether an attempt's Job or JobSet lost its owner. Asks the API, as the Jobs' watch may lag behind."""
        several, namespace = _nodes(job) > 1, job["metadata"]["namespace"]
        found = await (self._kube.get(JOB_SETS, name, namespace) if several else self._kube.get(JOBS, name, namespace))
        return found is not None and job["metadata"]["uid"] not in owner_uids(found)

    async def observe_named(self, job: Manifest, name: str, attempt: int, *, recorded: bool) -> Run:
        """As `observe`, for another batch Job of the attempt; `recorded`: status says that it was started."""
        batch_job = await self._batch_job(job, name, ask=recorded)
        if batch_job is None and not recorded:
            return Run("Absent")  # the attempt's report is from another of its Jobs
        run = await self._run_of(job, batch_job, attempt, under_way=True)
        return replace(run, job_id=name, made_by=_made_by(batch_job)) if batch_job else run

    async def observe_alone(self, batch_job: Manifest) -> Run:
        """As `observe`, for a batch Job of ours that belongs to no attempt and sends no reports."""
        return await self._run_of_pods(batch_job, None, under_way=True)

    async def _batch_job(self, job: Manifest, name: str, *, ask: bool) -> Manifest | None:
        """A batch Job of the owner. `ask`: before it counts as lost ask the API, as the watch may lag behind.

        A Job that lost its labels is no longer watched, so the API is asked for it, too.
        """
        namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
        found = self._own(self._store.get(JOBS, name, namespace), uid)
        unwatched = found is not None and not is_managed(found)
        if unwatched or (found is None and ask):
            found = self._own(await self._fetch_job(name, namespace), uid)
        return None if found is not None and await self._is_held_by_finalizer(found) else found

    async def _is_held_by_finalizer(self, batch_job: Manifest) -> bool:
        """Whether it is being deleted and only a finalizer keeps it: such a Job creates no more pods."""
        if not wants_deletion(batch_job) or has_ended(batch_job):
            return False
        return not (self._pods_of(batch_job) or await self._listed_pods(batch_job))

    async def _run_of(self, job: Manifest, batch_job: Manifest | None, attempt: int, *, under_way: bool) -> Run:
        report = self._last_report(job["metadata"]["uid"], attempt)
        return await self._run_of_pods(batch_job, report, under_way=under_way)

    async def _run_of_pods(self, batch_job: Manifest | None, report: Report | None, *, under_way: bool) -> Run:
        """The state by Job, pods and report, with the end of the log if a failure needs it."""
        pods = self._pods_of(batch_job) if batch_job else []
        if batch_job and not pods and under_way and (has_ended(batch_job) or (report and not _why_no_pods(batch_job))):
            # The pod tells how an attempt ended, and the watch may lag behind: ask the API before it counts as gone.
            # A pod that has reported exists, but is not watched if it lost its labels.
            pods = await self._listed_pods(batch_job)
        run = read_run(batch_job, pods, report, self._clock())
        pod = most_telling(pods)
        if run.wants_log and pod is not None and under_way:
            return with_log(run, *await self._log_tail(pod))
        if run.state == "Queued" and pod is None and batch_job is not None:
            return await self._without_pod(run, batch_job)
        if run.state == "Queued" and run.failure is None and batch_job is not None:
            return await self._with_obstacle(run, pods, batch_job)
        return run

    def made_by(self, connection: LLMConnectionSpec) -> str:
        """A digest of the connection's pod settings; empty for a connection to another provider."""
        return training_job.made_by(connection.hugging_face) if connection.hugging_face else ""

    def has_live_pods(self, job: Manifest) -> bool:
        """Whether a pod of any attempt runs, or a Job of an earlier FineTuneJob of this name is still being deleted."""
        namespace, label = job["metadata"]["namespace"], names.fit(job["metadata"]["name"])
        attempt = job.get("status", {}).get("provider", {}).get("attempt") or 1
        present = self._store.get(JOBS, _batch_job(job, attempt), namespace)
        if present is not None and self._own(present, job["metadata"]["uid"]) is None and will_be_deleted(present):
            return True
        pods = self._store.select(PODS, pods_of_owner(namespace, label))
        return any(is_live(pod, self._clock()) for pod in pods)

    async def start(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Create the attempt's Job or JobSet. Its name follows from the attempt, so a second call changes nothing.

        Raises:
            CannotMake: JobSet is not installed, or another owner's Job has the name.
        """
        number = status.provider.attempt if status.provider else 1
        recorded = status.provider.artifact_uri if status.provider else None
        attempt = training_job.Attempt(
            number=number,
            output_uri=recorded or self.output_uri(job, spec, connection),
            report_url=f"https://{self._service}{REPORT_PATH}",
            report_ca=self._report_ca(),
            active=self._compared_with(job["metadata"]["namespace"], spec),
            short_of_memory=status.provider is not None and status.provider.was_short_of_memory,
        )
        if spec.resources.nodes > 1:
            return await self._start_set(job, jobset.build(job, spec, _settings(connection), attempt))
        manifest = training_job.build(job, spec, _settings(connection), attempt)
        self._store.put(JOBS, await create_job(self._kube, manifest), notified=True)
        return str(manifest["metadata"]["name"])

    async def _start_set(self, job: Manifest, manifest: Manifest) -> str:
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        found = await self._kube.get(JOB_SETS, name, namespace)
        if found is not None and self._own(found, job["metadata"]["uid"]) is None:
            raise taken(JOB_SETS, found)
        try:
            await self._kube.apply(JOB_SETS, manifest)
        except NotFound:
            message = (
                f"spec.resources.nodes: this cluster has no JobSet ({JOB_SETS.api_version}), which runs the pods of "
            )
            raise CannotMake(Failure.because(Reason.JOB_SET_MISSING, message + "several nodes together")) from None
        return str(manifest["metadata"]["name"])

    async def stop(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """Delete the attempt's Job; its pod gets SIGTERM and writes a checkpoint.

        Also deletes the Jobs of other attempts with live pods: for example, a late request of a previous leader may
        have created one. If the FineTuneJob is Complete, Jobs without live pods are kept for inspection.
        """
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        attempt = max(status.provider.attempt if status.provider else 0, 1)
        pods = self._store.select(PODS, pods_of_owner(namespace, names.fit(name)))
        live = [pod for pod in pods if is_live(pod, self._clock())]
        at_work = not is_true(status.conditions, "Complete")
        of_set = _nodes(job) > 1 and (at_work or live)
        if of_set and (found := await self._job_set(job, attempt)):
            await self._kube.delete(JOB_SETS, found["metadata"]["name"], namespace, uid=found["metadata"]["uid"])
        for batch_job_name in sorted({_batch_job(job, attempt), *map(_batch_job_of, live)}):
            batch_job = self._own(self._store.get(JOBS, batch_job_name, namespace), job["metadata"]["uid"])
            if batch_job and (at_work or any(self._own(pod, batch_job["metadata"]["uid"]) for pod in live)):
                await self._end(batch_job)

    async def end_earlier(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """Delete the batch Jobs of earlier attempts, which were kept for inspection."""
        for before in range(1, status.provider.attempt if status.provider else 0):
            await self.end_named(job, _batch_job(job, before))

    async def end_named(self, job: Manifest, name: str) -> None:
        """Delete another batch Job of the owner by name."""
        metadata = job["metadata"]
        batch_job = self._own(self._store.get(JOBS, name, metadata["namespace"]), metadata["uid"])
        if batch_job is not None:
            await self._end(batch_job)

    async def _end(self, batch_job: Manifest) -> None:
        """Delete a batch Job, through its JobSet if it has one, which would otherwise recreate it.

        Raises:
            KubeError: it was not deleted; during the backoff, the server's last error.
        """
        uid, labels = batch_job["metadata"]["uid"], batch_job["metadata"].get("labels")
        self._refused_deletes.check(uid, labels)
        try:
            await self._delete(batch_job)
        except REFUSALS as refusal:
            self._refused_deletes.refused(uid, refusal, labels)
            raise

    async def _delete(self, batch_job: Manifest) -> None:
        metadata = batch_job["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        for owner in owners_of(batch_job):
            if owner["kind"] == JOB_SETS.kind:
                await self._kube.delete(JOB_SETS, owner["name"], namespace, uid=owner["uid"])
                if await self._kube.get(JOB_SETS, owner["name"], namespace) is None:
                    return  # its Job is deleted with it; the watch reports that
                break  # a foreign finalizer keeps it, and so its children
        await self._kube.delete(JOBS, name, namespace, uid=metadata["uid"])
        self._store.remove(JOBS, namespace, name)

    async def _job_set(self, job: Manifest, attempt: int) -> Manifest | None:
        """The JobSet of an attempt, from the API; None while it is being deleted, as it then creates no Job."""
        metadata = job["metadata"]
        found = self._own(
            await self._kube.get(JOB_SETS, _attempt(job, attempt), metadata["namespace"]), metadata["uid"]
        )
        return None if found is not None and wants_deletion(found) else found

    def _compared_with(self, namespace: str, spec: FineTuneJobSpec) -> training_job.Active | None:
        active = version_to_compare(self._store.get(FINE_TUNED_MODELS, spec.model_ref.name, namespace), spec)
        if active is None:
            return None
        return training_job.Active(version=active.version, artifact_uri=active.uri, sha256=active.sha256)

    async def _fetch_job(self, name: str, namespace: str) -> Manifest | None:
        found = await self._kube.get(JOBS, name, namespace)
        if found is not None:
            self._store.put(JOBS, found)
        return found

    async def _listed_pods(self, batch_job: Manifest) -> list[Manifest]:
        """The Job's own pods, from the API; newer than those of a watch that lags behind.

        Pods without our labels are not put into the store: the watch would never update them.
        """
        metadata = batch_job["metadata"]
        listed = await self._kube.list(PODS, metadata["namespace"], f"{BATCH_JOB_LABEL}={metadata['name']}")
        own = [pod for pod in listed if self._own(pod, metadata["uid"])]
        for pod in filter(is_managed, own):
            self._store.put(PODS, pod)
        return own

    def _own(self, child: Manifest | None, uid: str) -> Manifest | None:
        """The child if it belongs to the owner with this UID, and not to an earlier owner of the same name."""
        if child is None:
            return None
        owned = any(owner["uid"] == uid for owner in owners_of(child))
        return child if owned or labels_of(child).get(JOB_UID_LABEL) == uid else None

    def _pods_of(self, batch_job: Manifest) -> list[Manifest]:
        """The Job's own pods, without those of an earlier Job of the same name."""
        metadata = batch_job["metadata"]
        named = self._store.select(PODS, pods_of_job(metadata["namespace"], metadata["name"]))
        return [pod for pod in named if self._own(pod, metadata["uid"])]

    async def _log_tail(self, pod: Manifest) -> tuple[str, str]:
        """The end of the trainer's log. If it cannot be read, what the pod's status has of it, and the error."""
        metadata, unread = pod["metadata"], ""
        try:
            text = await self._kube.pod_log_tail(
                metadata["namespace"], metadata["name"], TRAINER_CONTAINER, LOG_LINES, LOG_BYTES
            )
        except KubeError as error:
            logger.warning("the log of pod %s cannot be read: %s", metadata["name"], error)
            text, unread = kept_log_tail(pod), error.message
        return redact(text), unread

    async def _with_obstacle(self, run: Run, pods: Sequence[Manifest], batch_job: Manifest) -> Run:
        """Add the failure that Events give for pods that do not start."""
        try:
            found = await self._start_failures.of(pods, f"{BATCH_JOB_LABEL}={batch_job['metadata']['name']}")
        except REFUSALS as refusal:
            return replace(run, note=_events_unreadable(refusal))
        return replace(run, failure=found[0] if found else None)

    async def _without_pod(self, run: Run, batch_job: Manifest) -> Run:
        """Add why the Job controller could not create a pod: quota, policy, a missing service account."""
        metadata = batch_job["metadata"]
        if held := _why_no_pods(batch_job):
            return replace(run, note=f"Job {metadata['name']} is {held}")
        since = moment(metadata["creationTimestamp"])
        lasted = self._clock() - since
        late = lasted > POD_IS_LATE
        note = _NO_POD_CREATED if lasted > NO_POD_FOR_LONG else ""
        run = replace(run, awaiting_pod=True, since=since, note=(late and _foreign_controller(batch_job)) or note)
        try:
            told = await self._refusals.of(batch_job) if late else None
        except REFUSALS as refusal:
            return replace(run, note=_events_unreadable(refusal))
        return replace(run, failure=refusal_of_pod(told[1]) if told else None)


def _made_by(batch_job: Manifest) -> str:
    return labels_of(batch_job).get(MADE_BY_LABEL, "")


def _why_no_pods(batch_job: Manifest) -> str:
    """Why it can have no pod at all: it is suspended, or its parallelism was set to 0. Empty if it can."""
    if batch_job["spec"].get("suspend"):
        queue = labels_of(batch_job).get(QUEUE_LABEL)
        step = " (kubectl describe workloads says why not yet)" if queue else ""
        return f"suspended: by {f'queue {queue}' if queue else 'its queue'} until it is admitted{step}, or by hand"
    return "held back: somebody has set its spec.parallelism to 0" if batch_job["spec"].get("parallelism") == 0 else ""


def _foreign_controller(batch_job: Manifest) -> str:
    """Which controller creates its pods, if it is not Kubernetes' own; else empty."""
    other, name = batch_job["spec"].get("managedBy"), batch_job["metadata"]["name"]
    if not other:
        return ""
    step = f"ask an admin whether it runs, and who has set this field (kubectl describe job {name})"
    return f"its pod is to be made by {other}, as spec.managedBy of its Job says, and is not there: {step}"


def _events_unreadable(refusal: KubeError) -> str:
    """The note when the Events that explain it cannot be read."""
    return f"{WAITING_FOR_POD}; why it does not is not known: {refusal.message}"


def _nodes(job: Manifest) -> int:
    """The number of nodes of a FineTuneJob; 1 if not set."""
    return int((job.get("spec", {}).get("resources") or {}).get("nodes", 1))


def _attempt(job: Manifest, number: int) -> str:
    return names.attempt(job["metadata"]["name"], number, _nodes(job))


def _batch_job(job: Manifest, number: int) -> str:
    return names.batch_job(job["metadata"]["name"], number, _nodes(job))


def _without_job(job_set: str, named: Manifest | None) -> Run:
    """The state while a JobSet has no Job yet; `named`: another owner's Job with the name."""
    run = Run("Queued", job_id=job_set, awaiting_pod=True)
    why = taken(JOBS, named) if named else None
    if isinstance(why, CannotMake):
        return replace(run, failure=why.failure)
    return replace(run, note="waiting for JobSet to make the pods' Job")


def _is_finished(job_set: Manifest) -> bool:
    """Whether it has ended and creates no more Jobs: if its Job is gone, so is the attempt."""
    conditions = conditions_of(job_set)
    return any(one["type"] in {"Completed", "Failed"} and one["status"] == "True" for one in conditions)


def _batch_job_of(pod: Manifest) -> str:
    """The name of the pod's batch Job."""
    return next((str(owner["name"]) for owner in owners_of(pod) if owner["kind"] == JOBS.kind), "")


def _settings(connection: LLMConnectionSpec) -> HuggingFace:
    if connection.hugging_face is None:
        raise ValueError("not a huggingFace connection")
    return connection.hugging_face
