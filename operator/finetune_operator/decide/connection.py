"""What an LLMConnection's status says."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_api.job_status import Failure
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.conditions import (
    Fact,
    is_true,
    merge,
    moment,
    ready,
    reconciling,
    retiring,
    stalled,
    timestamp,
)
from finetune_operator.decide.transient import CHANGES_BY_ITSELF

GOOD_FOR, BAD_FOR = timedelta(hours=1), timedelta(minutes=1)
"""How long a check's result is believed."""

PASSES_WITHIN = timedelta(minutes=10)
"""What passes by itself does so within this time, or something is wrong that somebody has to look at."""

_READ_ITS_CONDITIONS = "Ask an admin: its own conditions say why (kubectl describe llmc)."

NOBODY = "no namespace may use it: none that the operator watches has the labels of spec.namespaceSelector"


def lacking(name: str, *, is_there: bool, field: str = "", of: str = "") -> Failure:
    """Why nothing can be done with a connection by its name: there is none, or one that this release cannot read.

    Args:
        name: the connection's.
        is_there: whether there is one of this name.
        field: of the spec that names it.
        of: what it is needed for, after its name.
    """
    place = f"{field}: " if field else ""
    if not is_there:
        return Failure.because(Reason.CONNECTION_NOT_FOUND, f"{place}LLMConnection {name}{of} does not exist")
    message = f"{place}this release of the operator cannot read LLMConnection {name}{of}"
    return Failure(reason=Reason.CONNECTION_NOT_FOUND, message=message, next_step=_READ_ITS_CONDITIONS)


@dataclass(frozen=True)
class Checked:
    """How a check of credentials, or of the pods that a connection to this cluster has, went."""

    failure: Failure | None = None


def with_resolved(spec: LLMConnectionSpec, status: LLMConnectionStatus) -> LLMConnectionSpec:
    """The spec with endpoint and account of its workspace, as far as they were found; what is written counts."""
    azure, found = spec.azure_open_ai, status.azure_open_ai
    workspace = azure.workspace if azure else None
    if azure is None or workspace is None or found is None:
        return spec
    if (found.workspace, found.connection) != (workspace.name, workspace.connection):
        return spec
    place = {} if azure.account else {"subscription_id": found.subscription_id, "resource_group": found.resource_group}
    fields = {"endpoint": azure.endpoint or found.endpoint, "account": azure.account or found.account} | place
    return spec.model_copy(update={"azure_open_ai": azure.model_copy(update=fields)})


def check_is_due(status: LLMConnectionStatus, *, generation: int, now: datetime, doubted: bool = False) -> float:
    """Seconds until the credentials are to be checked, 0 for now.

    Rarely while they are good, unless they are `doubted`: a call of a job or a deployment has met a bad key since.
    """
    if status.last_checked is None or status.observed_generation != generation:
        return 0.0
    good = is_true(status.conditions, "Ready") and not any(one.message == NOBODY for one in status.conditions or ())
    every = GOOD_FOR if good and not doubted else BAD_FOR
    left = moment(status.last_checked) + every - now
    return left.total_seconds() if timedelta() < left <= every else 0.0  # more: another clock has written that


def good_by_another(status: LLMConnectionStatus, now: datetime) -> float:
    """Seconds for which a good check counts that another operator has made, and makes again within its hour."""
    if status.last_checked is None or not is_true(status.conditions, "Ready"):
        return 0.0
    return (moment(status.last_checked) + GOOD_FOR + PASSES_WITHIN - now).total_seconds()


def says_the_same(before: LLMConnectionStatus, now: LLMConnectionStatus) -> bool:
    """Whether a change of status, such as the time of a check, is none to the connection's jobs and deployments."""

    def said(status: LLMConnectionStatus) -> object:
        return status.observed_generation, is_true(status.conditions, "Ready"), status.azure_open_ai

    return said(before) == said(now)


_OF_A_TRIAL = re.compile(r'^Job\.batch "[^"]*" is invalid: |^Job in version "[^"]*" cannot be handled as a Job: ')
"""Of an object that was never there, under a name that is another one each time."""


def pod_refused(message: str, *, elsewhere: bool = False) -> Failure:
    """The API server would take none of the connection's pods, for what `message` says.

    Args:
        message: the server's, by the connection's own fields as far as it is about one.
        elsewhere: whether these pods only check data, and training is at a provider.
    """
    parts = "checkPod.podTemplate" if elsewhere else "huggingFace.podTemplate, or modelCache.volume,"
    said = f"the API server refuses its pods: {_OF_A_TRIAL.sub('', message)}"
    return Failure(reason=Reason.POD_REJECTED, message=said[:4096], next_step=f"Correct {parts} of the connection.")


_STEPS = {
    Reason.PROVIDER_REFUSED: "Correct the connection: its address, its place there, what its identity may do.",
    Reason.SPEC_INVALID: "Correct what the message names; the connection is looked at again automatically.",
}
"""What there is to be done about a connection, where that is not what is to be done about a job."""

_TO_USERS = "Ask an admin to "
"""Who reads a connection is the admin."""


def _of_connection(failure: Failure) -> Failure:
    """With what there is to be done about a connection, where whoever found the problem knows nothing better."""
    reason, step = Reason(failure.reason), failure.next_step or ""
    if step == NEXT_STEP.get(reason):
        step = _STEPS.get(reason, step)
    if step.startswith(_TO_USERS):
        step = step.removeprefix(_TO_USERS).replace(", or to ", ", or ")
        step = step[:1].upper() + step[1:]
    return failure.model_copy(update={"next_step": step or None})


def decide(
    spec: LLMConnectionSpec | None,
    spec_error: str,
    status: LLMConnectionStatus,
    *,
    generation: int,
    now: datetime,
    checked: Checked | None = None,
    retires: str | None = None,
    nobody: bool = False,
) -> LLMConnectionStatus:
    """Ready where jobs can use it.

    Args:
        spec: None where it cannot be read, for the reason `spec_error`.
        spec_error: which fields do not fit.
        status: the present one.
        generation: of the spec.
        now: the time.
        checked: what a check of credentials, or of pods, came to; None where none was made.
        retires: what of the provider ends on a day that is known.
        nobody: whether there is no namespace that its selector selects.
    """
    facts = stalled(Reason.SPEC_INVALID, spec_error)
    if spec is not None:
        first = status.last_checked is None or status.observed_generation != generation
        usable = _usable(spec, checked, nobody=nobody, good=_was_good(status, generation, now), first=first)
        facts = [*usable, *retiring(retires, status.conditions)]
    return status.model_copy(
        update={
            "observed_generation": generation,
            "conditions": merge(status.conditions, facts, generation=generation, now=now),
            "provider": spec.provider if spec else status.provider,
            "models": spec.fine_tuning.allowed_models if spec else status.models,
            "last_checked": timestamp(now) if checked else status.last_checked,
        }
    )


def _was_good(status: LLMConnectionStatus, generation: int, now: datetime) -> bool:
    """Whether it is Ready by this spec, or was a moment ago: what lasts for longer needs somebody."""
    if status.last_checked is None or status.observed_generation != generation or is_true(status.conditions, "Stalled"):
        return False
    told = next((one for one in status.conditions or () if one.type == "Ready"), None)
    return told is not None and (told.status == "True" or now - moment(told.last_transition_time) < PASSES_WITHIN)


def _usable(spec: LLMConnectionSpec, checked: Checked | None, *, nobody: bool, good: bool, first: bool) -> list[Fact]:
    """Whether jobs can use it, or why they cannot.

    Args:
        spec: the connection's.
        checked: what a check came to.
        nobody: whether there is no namespace that its selector selects.
        good: it could be used, so that its address is no mistake.
        first: it is the spec's first check: the Secret may come a little later, as by what brings it from a vault.
    """
    if checked is not None and checked.failure is not None:
        passes = good and checked.failure.reason in CHANGES_BY_ITSELF
        comes = first and checked.failure.reason is Reason.SECRET_NOT_FOUND
        say = reconciling if passes or comes else stalled
        return say(checked.failure.reason, _of_connection(checked.failure).sentences)
    if spec.hugging_face is None and checked is None:
        return stalled(Reason.PROVIDER_NOT_SUPPORTED, f"this release does not use {spec.provider} connections")
    if not spec.fine_tuning.enabled:
        return ready(Reason.FINE_TUNING_DISABLED, "deployments are served; new jobs are refused")
    return ready(Reason.READY, _for_whom(spec, nobody=nobody))


def _for_whom(spec: LLMConnectionSpec, *, nobody: bool) -> str:
    """Who may use it for what, where it can be used."""
    if spec.namespace_selector is None:
        return "no namespace may use it: spec.namespaceSelector is not set"
    if nobody:
        return NOBODY
    if spec.fine_tuning.allowed_models == []:
        return "no base model may be tuned: spec.fineTuning.allowedModels is empty"
    everybody = spec.namespace_selector.match_labels is None and spec.namespace_selector.match_expressions is None
    return "jobs of every namespace may use it" if everybody else "jobs may use it"
