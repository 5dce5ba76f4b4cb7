"""What a pod's status says of its containers: why they do not start, and how they ended. For trainers and servers.

A policy of the cluster may have added containers to ours: a proxy, or an agent that fetches secrets.
"""

import re
from collections.abc import Iterator

from finetune_api.job_status import Failure
from finetune_api.manifest import Manifest
from finetune_api.names import BASE_CONTAINER, FETCH_CONTAINER, SERVER_CONTAINER, TRAINER_CONTAINER
from finetune_api.reasons import Reason
from finetune_api.words import one_line
from finetune_operator.decide.pods import image_pull
from finetune_operator.decide.pods.unschedulable import unplaced

_OURS = frozenset({TRAINER_CONTAINER, SERVER_CONTAINER, FETCH_CONTAINER, BASE_CONTAINER})

_WAITING_REASONS = {
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
    "ImageInspectError": Reason.IMAGE_PULL_FAILED,
    "RegistryUnavailable": Reason.IMAGE_PULL_FAILED,
    "SignatureValidationFailed": Reason.IMAGE_PULL_FAILED,
    "CreateContainerConfigError": Reason.CONTAINER_CONFIG_INVALID,
}
_NOT_EXECUTED = frozenset({126, 255})
_OTHER_PROCESSOR = "exec format error"
_FOREIGN_IMAGE = "the image is built for another processor architecture than the node's: its programs do not run there"
_OWN_IMAGE = (
    "Ask an admin for an image of the nodes' own kind (kubectl get nodes -L kubernetes.io/arch), or to choose nodes "
    "that fit it by nodeSelector in the connection's podTemplate; then set spec.retryNonce."
)

_CRASHES = {
    132: (
        "SIGILL: its node's processor does not know an instruction of the program",
        "Ask an admin for an image that fits the nodes' processors, or for newer nodes (nodeSelector in the "
        "connection's podTemplate).",
    ),
    135: (
        "SIGBUS: a file that it was reading was truncated or replaced meanwhile, or its volume failed",
        "Make sure that nobody changes base models, data or weights in place while they are in use, and have the "
        "volume looked at.",
    ),
}
"""Exit codes for signals of the processor or the kernel that a program does not survive: meaning and next step."""

_UNSTARTABLE = frozenset({"CreateContainerError", "RunContainerError"})

_BETWEEN_TRIES = re.compile(r'^Back-off pulling image "[^"]*": \w+: ')
"""What the kubelet puts before the last error while it waits for the next try."""


def obstacle(pod: Manifest) -> Failure | None:
    """What keeps a pending pod from starting, or None if nothing does."""
    return next((found for one in containers(pod) if (found := _waits(one))), None) or unplaced(pod)


def held_up(pod: Manifest) -> Manifest | None:
    """A foreign container that runs before ours and has not ended or, as a sidecar, is not ready yet."""
    status = pod.get("status", {})
    ours = [one for one in status.get("containerStatuses") or () if is_ours(one)]
    if all(waiting(one).get("reason") != "PodInitializing" for one in ours):
        return None
    before = [one for one in status.get("initContainerStatuses") or () if "running" in (one.get("state") or {})]
    return before[-1] if before and not is_ours(before[-1]) else None


def never_ran(ended: Manifest) -> Failure | None:
    """Why a container of ours never ran: for example, its image lacks the program, or a mount fails.

    A program for another processor architecture is started and ends at once, with a code of the runtime or the shell.
    """
    if ended.get("exitCode") in _NOT_EXECUTED and _OTHER_PROCESSOR in str(ended.get("message", "")).lower():
        return Failure(reason=Reason.CONTAINER_CONFIG_INVALID, message=_FOREIGN_IMAGE, next_step=_OWN_IMAGE)
    if ended.get("reason") not in {"StartError", "ContainerCannotRun"}:
        return None
    return _unstartable(one_line(str(ended.get("message") or ended["reason"])))


def memory_limit_too_low(said: str) -> Failure | None:
    """A memory limit too low for a container to start, as 8Mi for 8Gi. By runc's message."""
    return Failure.because(Reason.INSUFFICIENT_MEMORY, said) if "memory limit too low" in said else None


def crashed_by_signal(ended: Manifest) -> Failure | None:
    """A signal from the processor or the kernel, after which the program itself could report nothing."""
    found = _CRASHES.get(ended.get("exitCode", 0))
    return None if found is None else Failure(reason=Reason.TRAINER_CRASHED, message=found[0], next_step=found[1])


def containers(pod: Manifest) -> Iterator[Manifest]:
    """Status of every container, in the order in which they start."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def is_ours(container: Manifest) -> bool:
    """Whether the operator has put this container into the pod."""
    return container.get("name", TRAINER_CONTAINER) in _OURS


def waiting(container: Manifest) -> Manifest:
    """Why it waits; empty if it does not."""
    found: Manifest = (container.get("state") or {}).get("waiting") or {}
    return found


def terminated(container: Manifest) -> Manifest:
    """How it ended; empty while it has not."""
    found: Manifest = (container.get("state") or {}).get("terminated") or {}
    return found


def ended_before(container: Manifest) -> Manifest:
    """How it ended the last time, if it was restarted."""
    found: Manifest = (container.get("lastState") or {}).get("terminated") or {}
    return found


def was_short_of_memory(container: Manifest) -> bool:
    """Whether the kernel has ended it for lack of memory, now or the last time."""
    return "OOMKilled" in (terminated(container).get("reason"), ended_before(container).get("reason"))


def memory_limit(container: Manifest) -> str:
    """The memory limit of the container, by its pod's status; empty if it has none."""
    limits: Manifest = (container.get("resources") or {}).get("limits") or {}
    return str(limits.get("memory", ""))


def only_foreign_runs(pod: Manifest) -> bool:
    """Whether only foreign containers still run: ours have ended, and are not restarted."""
    beside = pod.get("status", {}).get("containerStatuses") or ()
    ours = [one for one in beside if is_ours(one)]
    runs = any("running" in (one.get("state") or {}) for one in beside if not is_ours(one))
    return runs and bool(ours) and all(terminated(one) for one in ours)


def foreign_failure(pod: Manifest) -> Failure | None:
    """The failure of a foreign container, if one failed."""
    for container in containers(pod):
        ended = terminated(container)
        if not is_ours(container) and ended.get("exitCode", 0) != 0:
            return _foreign_failure(container, _how(ended))
    return None


def foreign_trouble(pod: Manifest) -> Failure | None:
    """The trouble of a foreign container that runs: it was restarted, or is not ready although ours are."""
    ours_are_ready = all(one.get("ready") for one in containers(pod) if is_ours(one))
    for container in containers(pod):
        if is_ours(container) or "running" not in (container.get("state") or {}):
            continue
        if ended := ended_before(container):
            return _foreign_failure(container, f"{_how(ended)}, and was started again")
        if ours_are_ready and not container.get("ready"):
            return _foreign_failure(container, "it is not ready, and so the pod is not")
    return None


def _how(ended: Manifest) -> str:
    reason = str(ended.get("reason") or "Error")
    return f"it ended with exit code {ended.get('exitCode')}{'' if reason == 'Error' else f' ({reason})'}"


def _waits(container: Manifest) -> Failure | None:
    state = waiting(container)
    name = str(state.get("reason", ""))
    said = one_line(str(state.get("message") or name))
    if is_ours(container) and name in _WAITING_REASONS:
        return _unpulled(Failure.because(_WAITING_REASONS[name], _BETWEEN_TRIES.sub("", said)))
    if is_ours(container):
        return _unstartable(said) if name in _UNSTARTABLE else None
    ended = ended_before(container)
    if name == "CrashLoopBackOff":
        return _foreign_failure(container, _how(ended) if ended else said)
    return _foreign_failure(container, said) if name in _WAITING_REASONS or name in _UNSTARTABLE else None


def _unpulled(failure: Failure) -> Failure:
    """With the next step, if it is a failed image pull whose message tells the cause."""
    known = image_pull.step(failure.message) if failure.reason is Reason.IMAGE_PULL_FAILED else None
    return failure.model_copy(update={"next_step": known}) if known else failure


def _unstartable(said: str) -> Failure:
    step = "Ask an admin: the message says what of the connection's image, or of the node, does not let it start."
    return memory_limit_too_low(said) or Failure(
        reason=Reason.CONTAINER_CONFIG_INVALID, message=said[:4096], next_step=step
    )


def _foreign_failure(container: Manifest, said: str) -> Failure:
    message = f"container {container['name']}, which a policy of the cluster has put into the pod: {said}"
    return Failure.because(Reason.SIDECAR_FAILED, message)
