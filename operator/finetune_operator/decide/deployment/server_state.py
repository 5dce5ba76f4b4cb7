"""The state of a server from its apps/v1 Deployment and pods: what answers, and what is in the way. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from finetune_api.job_status import Failure
from finetune_api.manifest import Manifest, labels_of, wants_deletion
from finetune_api.names import SERVED_VERSION_LABEL
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import moment
from finetune_operator.decide.pods.containers import (
    containers,
    crashed_by_signal,
    ended_before,
    foreign_trouble,
    held_up,
    is_ours,
    memory_limit,
    never_ran,
    obstacle,
    terminated,
    waiting,
)
from finetune_operator.decide.pods.disruption import cut_off_since
from finetune_operator.decide.pods.grace import grace_left
from finetune_operator.decide.pods.refused import may_pass, refusal_of_pod, refusal_of_replacement
from finetune_operator.decide.pods.unschedulable import unplaced

LONG_ENOUGH = timedelta(minutes=10)
"""A server that has run this long counts as up. The kubelet, too, restarts it without a delay then."""


_GIVEN_UP = ": if it is not back within some minutes, another pod takes its place (kubectl get nodes)"


@dataclass(frozen=True)
class Serving:
    """The state of the server, whichever provider runs it."""

    state: Literal["Absent", "Rolling", "Serving", "Failing", "Idle", "Unshown"]
    """Unshown: it existed a moment ago and is missing from one list of its provider. The last state still holds."""
    version: int | None = None
    """The version to serve; all pods serve it if the state is Serving."""
    available: int = 0
    """Pods that answer, of any version."""
    failure: Failure | None = None
    note: str = ""
    """What to add to the message while it serves or rolls out."""
    answers: int | None = None
    """The version that answers now, if that is observed; else it is the one in status."""
    short_of: int = 0
    """The wanted number of servers, if all of them were up once and some do not answer now."""


def read_serving(deployment: Manifest | None, pods: Sequence[Manifest], now: datetime | None = None) -> Serving:
    """The state of a server from its apps/v1 Deployment and pods. `now`: to tell how long none has answered."""
    if deployment is None:
        return Serving("Absent")
    spec, status = deployment["spec"], deployment.get("status", {})
    version = _version(labels_of(spec["template"]))
    wanted = spec.get("replicas", 1)
    available = status.get("availableReplicas", 0)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    if wanted == 0:
        return Serving("Idle", version, available)
    placed = seen and status.get("updatedReplicas", 0) == status.get("replicas", 0) == wanted
    answers = _oldest_ready(pods)
    if placed and available >= wanted:
        return Serving("Serving", version, available, answers=answers)
    of_version = [pod for pod in pods if _version(labels_of(pod)) == version and not _is_over(pod)]
    silent = _silent_since(status, now) if available == 0 and _was_rolled_out(status) else None
    late = [pod for pod in of_version if not is_awaited(_pod_failure(pod), pod, now)]
    failure = _serving_failure(status if seen else {}, late, silent=silent is not None)
    if failure is None and placed and silent is not None:
        failure = _silence(silent, of_version)
    if failure is not None:
        return Serving("Failing", version, available, failure, answers=answers)
    short_of = wanted if placed and _was_rolled_out(status) else 0
    refused = _refused(status if seen else {})
    note = f"{_paused(deployment)}{f'; {refused.message}' if refused else ''}{_waiting_for(of_version)}"
    return Serving("Rolling", version, available, note=note, answers=answers, short_of=short_of)


def is_awaited(failure: Failure | None, obj: Manifest, now: datetime | None) -> bool:
    """Whether what keeps this object from starting is no failure yet: a Secret may come later than what names it."""
    if failure is None or now is None:
        return False
    return grace_left(failure, moment(obj["metadata"]["creationTimestamp"]), now) > 0


def _paused(deployment: Manifest) -> str:
    """That somebody has paused the rollout in Kubernetes. What answers continues to answer."""
    if not deployment["spec"].get("paused"):
        return ""
    name = deployment["metadata"]["name"]
    return f"; somebody has paused Deployment {name} (kubectl rollout resume deployment {name})"


def _silent_since(status: Manifest, now: datetime | None) -> str | None:
    """Since when a server that was up has not answered, if that is long: the progress deadline covers only rollouts."""
    since: str | None = next(
        (c.get("lastTransitionTime") for c in status.get("conditions") or () if c["type"] == "Available"), None
    )
    return None if since is None or now is None or now - moment(since) < LONG_ENOUGH else since


def _silence(since: str, pods: Sequence[Manifest]) -> Failure:
    waits = next((found for pod in pods if (found := unplaced(pod))), None)
    said = f"the server was up, and none of its pods has passed its health check since {since}{_waiting_for(pods)}"
    return waits or Failure.because(Reason.DEPLOYMENT_FAILED, said)


def _was_rolled_out(status: Manifest) -> bool:
    """Whether the newest pod template was up once: the Deployment says so until its template changes."""
    return any(condition.get("reason") == "NewReplicaSetAvailable" for condition in status.get("conditions") or ())


def _oldest_ready(pods: Sequence[Manifest]) -> int | None:
    """The version of the oldest server that is ready: during a rollout, that is the previous version."""
    up = [pod for pod in pods if not wants_deletion(pod) and _is_ready(pod)]
    up = [pod for pod in up if not cut_off_since(pod)]
    oldest = min(up, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)
    return _version(labels_of(oldest)) if oldest else None


def _is_over(pod: Manifest) -> bool:
    """Whether it was evicted or rejected by its node. Such a pod is kept for inspection and not restarted."""
    return pod.get("status", {}).get("phase") in {"Failed", "Succeeded"}


def _is_ready(pod: Manifest) -> bool:
    ours = [one for one in pod.get("status", {}).get("containerStatuses") or () if is_ours(one)]
    return bool(ours) and all(one.get("ready") for one in ours)


def versions_of(pods: Sequence[Manifest]) -> set[int]:
    """The versions that these pods, or pod templates, serve."""
    found = (_version(labels_of(pod)) for pod in pods)
    return {version for version in found if version is not None}


def _version(labels: Mapping[str, str]) -> int | None:
    text = labels.get(SERVED_VERSION_LABEL, "")
    return int(text) if text.isdecimal() else None


def _serving_failure(status: Manifest, pods: Sequence[Manifest], *, silent: bool) -> Failure | None:
    """Why pods of the new version do not come up. Starting, and waiting for room, are no failures.

    `silent`: it was up, and has not answered for long.
    """
    for pod in pods:
        if found := _pod_failure(pod):
            return found
    conditions: list[Manifest] = status.get("conditions") or []
    late = next((c for c in conditions if c.get("reason") == "ProgressDeadlineExceeded"), None)
    refused = _refused(status)
    if refused is not None and (late or silent or not may_pass(refused)):
        return refused
    if late is None:
        return None
    waits = next((found for pod in pods if (found := unplaced(pod))), None)
    said = f"{late.get('message', '')}{_still_starting(pods)}{_blocked_by(pods)}"
    return waits or Failure.because(Reason.DEPLOYMENT_FAILED, said)


def _refused(status: Manifest) -> Failure | None:
    """Why the API server refuses a pod."""
    conditions = status.get("conditions") or ()
    without = next((c for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"), None)
    refusal = refusal_of_replacement if status.get("availableReplicas") else refusal_of_pod
    return refusal(str(without.get("message", ""))) if without else None


def _still_starting(pods: Sequence[Manifest]) -> str:
    """That it may still come up: loading hundreds of gigabytes from a slow volume or store exceeds the deadline."""
    starting = (is_ours(one) and "running" in (one.get("state") or {}) for pod in pods for one in containers(pod))
    return " It still loads, and serves once it is up." if any(starting) else ""


def _pod_failure(pod: Manifest) -> Failure | None:
    found = obstacle(pod)
    if found is not None and found.reason is not Reason.UNSCHEDULABLE:
        return found
    return next((crash for one in containers(pod) if _keeps_crashing(one) and (crash := _crash(one))), None)


def _keeps_crashing(container: Manifest) -> bool:
    """Whether it keeps crashing, even if it runs right now. A single end after a long run does not count."""
    if waiting(container).get("reason") == "CrashLoopBackOff":
        return True
    return container.get("restartCount", 0) > 1 and not container.get("ready") and _ran_briefly(ended_before(container))


def _ran_briefly(ended: Manifest) -> bool:
    started, finished = ended.get("startedAt"), ended.get("finishedAt")
    return started is not None and finished is not None and moment(finished) - moment(started) < LONG_ENOUGH


def _crash(container: Manifest) -> Failure | None:
    """How one of our containers ended. Those of others are mentioned while the pod waits."""
    ended = terminated(container) or ended_before(container)
    if not ended or not is_ours(container):
        return None
    if ended.get("reason") == "OOMKilled":
        limit = memory_limit(container)
        message = f"the server used more memory than its limit{f' of {limit}' if limit else ''}"
        step = "Ask for more memory in spec.huggingFace.resources."
        return Failure(reason=Reason.OUT_OF_MEMORY, message=message, next_step=step)
    if found := never_ran(ended):
        return found
    if found := crashed_by_signal(ended):
        message = f"the server was ended by {found.message}. {found.next_step}"
        return Failure.because(Reason.DEPLOYMENT_FAILED, message)
    said = str(ended.get("message") or f"the server ended with exit code {ended.get('exitCode')}").strip()
    return Failure.because(Reason.DEPLOYMENT_FAILED, _last_line_first(said[-800:]))


def _last_line_first(said: str) -> str:
    """If a server left no message, this is the end of its log, and lists show only the first line."""
    before, _, last = said.rpartition("\n")
    return f"{last.strip()}\n{before}" if before else said


def _waiting_for(pods: Sequence[Manifest]) -> str:
    """What pods that do not answer (yet) wait for, if known."""
    waits = next((found for pod in pods if (found := unplaced(pod))), None)
    if waits is not None:
        return f"; a pod waits for a node: {waits.message}"
    if lacks := next((found for pod in pods if (found := obstacle(pod))), None):
        return f"; a pod waits: {lacks.message}"
    crashes = (_crash(one) for pod in pods for one in containers(pod) if not one.get("ready"))
    crash = next((found for found in crashes if found), None)
    if since := next((said for pod in pods if (said := cut_off_since(pod))), ""):
        return f"; the node of a server's pod does not answer since {since}{_GIVEN_UP}"
    return f"; a server ended and is started again: {crash.message}" if crash else _blocked_by(pods)


def _blocked_by(pods: Sequence[Manifest]) -> str:
    """Which foreign container keeps a server from starting, or its pod from being ready."""
    name = next((found["name"] for pod in pods if (found := held_up(pod))), None)
    if name:
        return (
            f"; container {name}, which a policy of the cluster has put before the server, has yet to end or to be up"
        )
    beside = next((unwell for pod in pods if (unwell := foreign_trouble(pod))), None)
    return f"; {beside.message}" if beside else ""
