"""The newest report of each training pod. Only a cache: each report is complete, and the pod's status has the last."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from finetune_api.base import AttemptRef
from finetune_api.manifest import Manifest, labels_of, owners_of
from finetune_api.names import ATTEMPT_LABEL, JOB_LABEL, JOB_UID_LABEL
from finetune_api.trainer import Report
from finetune_operator.desired import names
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, JOBS, PODS, TokenIdentity
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.report_server.route import Outlived
from finetune_operator.runtime.store import Address, Store


@dataclass(slots=True)
class _Entry:
    """Of a running job: its newest report, and when that came or when it was first asked for."""

    address: Address
    heard: datetime
    report: Report | None = None


class ReportBox:
    """Accepts reports only from a job's own pods, and returns the newest.

    Args:
        store: watched pods, Jobs and FineTuneJobs: owner references say which pod may report for which job.
        enqueue: called for each job that has a new report.
        clock: now, with a time zone.
    """

    def __init__(self, store: Store, enqueue: Callable[[Key], None], clock: Callable[[], datetime]) -> None:
        self._store = store
        self._enqueue = enqueue
        self._clock = clock
        self._known: dict[str, _Entry] = {}
        self._uids: dict[Address, str] = {}

    def authorise(self, identity: TokenIdentity, report: AttemptRef) -> str | None:
        """Why this pod may not report for this attempt, or None: pod, Job, FineTuneJob and attempt must all match."""
        if identity.pod_name is None or identity.namespace != report.namespace:
            return "the token is not bound to a pod of the job's namespace"
        pod = self._store.get(PODS, identity.pod_name, identity.namespace)
        if pod is None or pod["metadata"]["uid"] != identity.pod_uid:
            return "the token's pod is not a training pod"
        batch_job = self._batch_job(pod)
        if batch_job is None:
            return Outlived("the Job of the token's pod is gone")
        if not _is_of(batch_job, report):
            return "the token's pod is of another job"
        if labels_of(pod).get(ATTEMPT_LABEL) != str(report.attempt):
            return "the token's pod runs another attempt"
        return _why_ended(self._store.get(FINE_TUNE_JOBS, report.name, report.namespace), report)

    def accept(self, report: Report) -> None:
        """Keep the report unless one of a later attempt is known, and enqueue the job."""
        known = self._entry(report.namespace, report.name, report.uid)
        if known.report is None or known.report.attempt <= report.attempt:
            known.report, known.heard = report, self._clock()
        self._enqueue(Key(FINE_TUNE_JOBS.kind, report.namespace, report.name))

    def last(self, uid: str, attempt: int) -> Report | None:
        """The newest report of an attempt."""
        known = self._known.get(uid)
        report = None if known is None else known.report
        return report if report is not None and report.attempt == attempt else None

    def last_heard_at(self, namespace: str, name: str, uid: str) -> datetime:
        """When the job last reported; if it has not yet, when this was first asked."""
        return self._entry(namespace, name, uid).heard

    def forget(self, uid: str) -> None:
        """Drop a job that has ended or is gone, even if it never reported."""
        known = self._known.pop(uid, None)
        if known is not None:
            del self._uids[known.address]

    def forget_named(self, namespace: str, name: str) -> None:
        """Drop a job that was deleted before it ended."""
        uid = self._uids.get((namespace, name))
        if uid is not None:
            self.forget(uid)

    def _entry(self, namespace: str, name: str, uid: str) -> _Entry:
        """The entry of a job; replaces that of an earlier job of the same name."""
        if uid not in self._known:
            self.forget_named(namespace, name)
            self._known[uid] = _Entry((namespace, name), self._clock())
            self._uids[namespace, name] = uid
        return self._known[uid]

    def _batch_job(self, pod: Manifest) -> Manifest | None:
        """The pod's Job, if it still exists."""
        for owner in owners_of(pod):
            if owner["kind"] == JOBS.kind:
                found = self._store.get(JOBS, owner["name"], pod["metadata"]["namespace"])
                if found is not None and found["metadata"]["uid"] == owner["uid"]:
                    return found
        return None


def _why_ended(job: Manifest | None, report: AttemptRef) -> Outlived | None:
    if job is None or job["metadata"]["uid"] != report.uid:
        return Outlived("the job does not exist")
    return Outlived("the job has ended") if job.get("status", {}).get("completionTime") else None


def _is_of(batch_job: Manifest, report: AttemptRef) -> bool:
    """Whether the batch Job belongs to the report's FineTuneJob, by its owner or by the labels it was created with."""
    owner, labels = (FINE_TUNE_JOBS.kind, report.name, report.uid), labels_of(batch_job)
    owned = any((o["kind"], o["name"], o["uid"]) == owner for o in owners_of(batch_job))
    named = (labels.get(JOB_LABEL), labels.get(JOB_UID_LABEL)) == (names.fit(report.name), report.uid)
    return owned or named
