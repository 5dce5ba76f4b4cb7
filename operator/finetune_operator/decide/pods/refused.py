"""Why the API server refuses a pod, an object that creates pods, or another write; and what helps."""

import re

from finetune_api.job_status import Failure
from finetune_api.quantities import amount
from finetune_api.reasons import Reason
from finetune_operator.decide.transient import PASSING

_NAME_OF_A_TRY = re.compile(r'(\bError creating: )?\bpods? "[^"]*" ', re.IGNORECASE)

_NO_ANSWER = re.compile(
    r"(context deadline exceeded|net/http: request canceled)( \(Client\.Timeout exceeded while [^)]*\))?"
)
"""Go words a timeout in one of these ways, depending on microseconds."""

_AGAIN = "It is retried automatically."

_COUNTS_ENDED = r"\bexceeded quota: .*requested: count/(jobs\.batch|pods|jobsets\.jobset\.x-k8s\.io)="
"""A quota of objects: unlike one of `pods`, it also counts ended objects that are kept for inspection."""

_COUNTS_OTHERS = r"\bexceeded quota: .*requested: (count/|services)"
"""A quota of objects that are no pods and create none, including our own kinds."""
_MAKE_ROOM = (
    "Delete what is no longer needed (a Service or Deployment of this operator by its ModelDeployment) of the kind "
    f"that the message names, or ask an admin for a larger ResourceQuota (kubectl describe resourcequota). {_AGAIN}"
)

_WAIT = (
    "Wait until other pods of the namespace end, ask for less (a job: under a new name), or ask an admin for a larger "
    f"ResourceQuota (kubectl describe resourcequota). {_AGAIN}"
)

_ROOM_FOR_ONE_MORE = (
    "Ask an admin for a larger ResourceQuota (kubectl describe resourcequota), or end other pods: another server "
    f"needs room beside those that answer. {_AGAIN}"
)

_RIGHTS = r'\bUser "[^"]*" cannot \w+ resource "'
_GIVE_RIGHTS = (
    "Ask an admin: the operator's role lacks the right that the message names, and helm upgrade brings back those of "
    f"the chart. {_AGAIN}"
)

_SILENT_WEBHOOK = r"\bfailed calling webhook "
_WAKE_WEBHOOK = f"Ask an admin: the webhook that the message names does not answer. Does its server run? {_AGAIN}"

_CHANGED = r"\bkeeps other values of status\."
_LEAVE_AS_IT_IS = (
    "Ask an admin which mutating webhook or policy of the cluster changes statuses of finetune.dev as they are "
    f"written: it has to leave them as they are. {_AGAIN}"
)

_STEPS = {
    _RIGHTS: _GIVE_RIGHTS,
    _COUNTS_ENDED: "Delete Jobs of the namespace that have ended, with their pods, by the job that each belongs to, or "
    f"ask an admin for a larger ResourceQuota (kubectl describe resourcequota). {_AGAIN}",
    _COUNTS_OTHERS: _MAKE_ROOM,
    r"\bexceeded quota: ": _WAIT,
    r"\bfailed quota: ": "Ask an admin to set what the ResourceQuota requires of each pod in podTemplate.resources "
    "of the connection, or a default for it in a LimitRange; spec.resources of a job under a new name and "
    "spec.huggingFace.resources of a deployment may set it, too.",
    r" per (Container|Pod) is |: must be less than or equal to \S+ limit of ": "Ask for as much as the namespace's "
    "LimitRange allows (kubectl describe limitrange): in spec.resources of a job under a new name, in "
    "spec.huggingFace.resources of a deployment, or ask an admin to do it in podTemplate.resources of the connection.",
    r"\bviolates PodSecurity ": "Ask an admin: the namespace's Pod Security level forbids what the connection (its "
    f"podTemplate, modelCache.volume), or a policy that changes pods, has put into the pod. {_AGAIN}",
    r"\bany security context constraint: ": "Ask an admin to let the pod's service account, default where podTemplate "
    f"names none, use the SCC nonroot-v2 (oc adm policy add-scc-to-user nonroot-v2 -z ACCOUNT). {_AGAIN}",
    _SILENT_WEBHOOK: _WAKE_WEBHOOK,
    _CHANGED: _LEAVE_AS_IT_IS,
    r'\b(serviceaccount|RuntimeClass) "[^"]*" not found|\bno PriorityClass with name \S+ was found': "Make what the "
    f"message names, or ask an admin to name another one in podTemplate of the connection. {_AGAIN}",
}
"""By the messages of Kubernetes' own admission. For a policy or webhook, the reason's own step is used."""

_QUOTA = re.compile(r"\bexceeded quota: .*requested: (?!count/|services)(\S+), used: \S+, limited: (\S+)")
_MORE_THAN_ALL = (
    "Ask for less (a job: under a new name), or ask an admin for a larger ResourceQuota (kubectl describe "
    f"resourcequota): one pod asks for more than all of it, so waiting does not help. {_AGAIN}"
)

_STEPS_OF_WRITES = {words: _STEPS[words] for words in (_RIGHTS, _COUNTS_OTHERS, _SILENT_WEBHOOK, _CHANGED)}
"""The steps that also apply to objects that are no pods and create none."""


def refusal_of_pod(said: str) -> Failure:
    """The failure when a pod is refused, without the generated name, which differs each time."""
    failure = Failure.because(Reason.POD_REJECTED, _plain(_NAME_OF_A_TRY.sub("its pod ", said)))
    step = next((step for words, step in _STEPS.items() if re.search(words, said)), failure.next_step)
    return failure.model_copy(update={"next_step": _MORE_THAN_ALL if _is_more_than_all(said) else step})


def refusal_of_write(said: str) -> Failure:
    """The failure when another write is refused, or a read that the operator's role does not allow."""
    failure = Failure.because(Reason.WRITE_REFUSED, _plain(said))
    return failure.model_copy(update={"next_step": step_of_write(said) or failure.next_step})


def step_of_write(said: str) -> str | None:
    """The next step, unless a policy or a webhook has refused the object itself."""
    return next((step for words, step in _STEPS_OF_WRITES.items() if re.search(words, said)), None)


def refusal_of_replacement(said: str) -> Failure:
    """The failure of a pod that is to replace another one, which itself may use up the quota."""
    failure = refusal_of_pod(said)
    return failure.model_copy(update={"next_step": _ROOM_FOR_ONE_MORE}) if failure.next_step == _WAIT else failure


def may_pass(obstacle: Failure) -> bool:
    """Whether what keeps a pod out may pass unaided: a quota has room again when other pods end."""
    return obstacle.reason in PASSING or obstacle.next_step == _WAIT


def counts_ended_objects(refusal: Failure | None) -> bool:
    """Whether a quota that counts ended objects refuses it, so that deleting earlier attempts helps."""
    return refusal is not None and re.search(_COUNTS_ENDED, refusal.message) is not None


def _is_more_than_all(said: str) -> bool:
    """Whether the request exceeds the whole quota, even if nothing of it is used."""
    found = _QUOTA.search(said)
    if found is None:
        return False
    asked, limited = (dict(part.partition("=")[::2] for part in listed.split(",")) for listed in found.groups())
    pairs = [(amount(value), amount(limited.get(name, ""))) for name, value in asked.items()]
    return any(much is not None and most is not None and much > most for much, most in pairs)


def _plain(said: str) -> str:
    """The same text each time: otherwise each try would write a status and an Event."""
    return _NO_ANSWER.sub("context deadline exceeded", said) if re.search(_SILENT_WEBHOOK, said) else said
