"""What to report in an LLMConnection's status."""

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
from finetune_operator.decide.transient import TEMPORARY

GOOD_FOR, BAD_FOR = timedelta(hours=1), timedelta(minutes=1)
"""How long the result of a good, and of a bad, check is valid."""

PASSES_WITHIN = timedelta(minutes=10)
"""A temporary obstacle is over within this time; one that lasts longer needs a person."""

_READ_ITS_CONDITIONS = "Ask an admin: its own conditions say why (kubectl describe llmc)."

NO_NAMESPACE = "no namespace may use it: none that the operator watches has the labels of spec.namespaceSelector"


def lacking(name: str, *, is_there: bool, field: str = "", of: str = "") -> Failure:
    """Why a connection cannot be used: it does not exist, or this release cannot read it.

    Args:
        name: of the connection.
        is_there: whether it exists.
        field: of the spec that names it.
        of: what it is needed for, to append to its name.
    """
    place = f"{field}: " if field else ""
    if not is_there:
        return Failure.because(Reason.CONNECTION_NOT_FOUND, f"{place}LLMConnection {name}{of} does not exist")
    message = f"{place}this release of the operator cannot read LLMConnection {name}{of}"
    return Failure(reason=Reason.CONNECTION_NOT_FOUND, message=message, next_step=_READ_ITS_CONDITIONS)


@dataclass(frozen=True)
class Checked:
    """The result of a check of credentials, or of the pods of a connection to this cluster."""

    failure: Failure | None = None


def with_resolved(spec: LLMConnectionSpec, status: LLMConnectionStatus) -> LLMConnectionSpec:
    """The spec with the endpoint and account that its workspace was resolved to. Those in the spec take precedence."""
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

    Rarely while they are good, unless they are `doubted`: a job or deployment has had an authentication failure since.
    """
    if status.last_checked is None or status.observed_generation != generation:
        return 0.0
    good = is_true(status.conditions, "Ready") and not any(
        one.message == NO_NAMESPACE for one in status.conditions or ()
    )
    every = GOOD_FOR if good and not doubted else BAD_FOR
    left = moment(status.last_checked) + every - now
    return left.total_seconds() if timedelta() < left <= every else 0.0  # a longer time was written by another clock


def checked_by_another(status: LLMConnectionStatus, now: datetime) -> float:
    """Seconds for which another operator's good check counts. It repeats the check within the hour."""
    if status.last_checked is None or not is_true(status.conditions, "Ready"):
        return 0.0
    return (moment(status.last_checked) + GOOD_FOR + PASSES_WITHIN - now).total_seconds()


def affects_nothing(before: LLMConnectionStatus, now: LLMConnectionStatus) -> bool:
    """Whether a change of status, such as the time of a check, does not affect its jobs and deployments."""

    def said(status: LLMConnectionStatus) -> object:
        return status.observed_generation, is_true(status.conditions, "Ready"), status.azure_open_ai

    return said(before) == said(now)


_DRY_RUN_PREFIX = re.compile(r'^Job\.batch "[^"]*" is invalid: |^Job in version "[^"]*" cannot be handled as a Job: ')
"""Prefix that names an object of a dry run, which has another name each time."""


def pod_refused(message: str, *, elsewhere: bool = False) -> Failure:
    """The failure when the API server would refuse the connection's pods.

    Args:
        message: of the server, with the connection's own fields where it is about one.
        elsewhere: whether these pods only check data, and training is at a provider.
    """
    parts = "checkPod.podTemplate" if elsewhere else "huggingFace.podTemplate, or modelCache.volume,"
    said = f"the API server refuses its pods: {_DRY_RUN_PREFIX.sub('', message)}"
    return Failure(reason=Reason.POD_REJECTED, message=said[:4096], next_step=f"Correct {parts} of the connection.")


_STEPS = {
    Reason.PROVIDER_REFUSED: "Correct the connection: its address, its place there, what its identity may do.",
    Reason.SPEC_INVALID: "Correct what the message names; the connection is looked at again automatically.",
}
"""Next steps for connections, where those of jobs do not apply."""

_TO_USERS = "Ask an admin to "
"""A connection's status is read by the admin, so this is removed from next steps."""


def _of_connection(failure: Failure) -> Failure:
    """With a connection's next step, if the failure has only the usual one of its reason."""
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
    """Ready if jobs can use it.

    Args:
        spec: None if it cannot be read, for the reason `spec_error`.
        spec_error: which fields are invalid.
        status: the present one.
        generation: of the spec.
        now: the time.
        checked: the result of a check of credentials, or of pods; None if there was none.
        retires: what the provider retires on a known date.
        nobody: whether its selector selects no namespace.
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
    """Whether it is Ready with this spec, or was so within `PASSES_WITHIN`: longer trouble needs a person."""
    if status.last_checked is None or status.observed_generation != generation or is_true(status.conditions, "Stalled"):
        return False
    told = next((one for one in status.conditions or () if one.type == "Ready"), None)
    return told is not None and (told.status == "True" or now - moment(told.last_transition_time) < PASSES_WITHIN)


def _usable(spec: LLMConnectionSpec, checked: Checked | None, *, nobody: bool, good: bool, first: bool) -> list[Fact]:
    """Whether jobs can use it, or why not.

    Args:
        spec: the connection's.
        checked: the result of a check, if any.
        nobody: whether there is no namespace that its selector selects.
        good: it worked before, so its address cannot be wrong.
        first: it is the spec's first check: the Secret may come later, for example if it is synced from a vault.
    """
    if checked is not None and checked.failure is not None:
        passes = good and checked.failure.reason in TEMPORARY
        comes = first and checked.failure.reason is Reason.SECRET_NOT_FOUND
        say = reconciling if passes or comes else stalled
        return say(checked.failure.reason, _of_connection(checked.failure).sentences)
    if spec.hugging_face is None and checked is None:
        return stalled(Reason.PROVIDER_NOT_SUPPORTED, f"this release does not use {spec.provider} connections")
    if not spec.fine_tuning.enabled:
        return ready(Reason.FINE_TUNING_DISABLED, "deployments are served; new jobs are refused")
    return ready(Reason.READY, _for_whom(spec, nobody=nobody))


def _for_whom(spec: LLMConnectionSpec, *, nobody: bool) -> str:
    """Which namespaces may use a working connection, and for what."""
    if spec.namespace_selector is None:
        return "no namespace may use it: spec.namespaceSelector is not set"
    if nobody:
        return NO_NAMESPACE
    if spec.fine_tuning.allowed_models == []:
        return "no base model may be tuned: spec.fineTuning.allowedModels is empty"
    everybody = spec.namespace_selector.match_labels is None and spec.namespace_selector.match_expressions is None
    return "jobs of every namespace may use it" if everybody else "jobs may use it"
