"""The state of a job's present attempt, whichever provider runs it."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from finetune_api.job_status import Failure
from finetune_api.trainer import Report

_WITHOUT_LOG = (
    "Have an admin fix what keeps the operator from reading the log (its role's pods/log: helm upgrade), and look for "
    "this pod's where the cluster keeps logs; then set spec.retryNonce: of another such end failure.logTail tells more."
)

RunState = Literal[
    "Absent", "Queued", "Active", "Checked", "Measured", "Succeeded", "Failed", "ResultUnknown", "Unseen", "Unreachable"
]


@dataclass(frozen=True)
class Run:
    """The state of the present attempt, whichever provider runs it.

    Some states occur only at providers outside of the cluster. Checked: data are uploaded, the job can be created.
    Measured: a pod on this cluster has sent the test set to the tuned model. Unseen: this process has not yet heard of
    the job. Unreachable: the provider cannot be asked, for the reason in `failure`.
    """

    state: RunState
    report: Report | None = None
    failure: Failure | None = None
    """Why it failed; if Queued, what keeps it from starting; if an Active check, its data from the provider."""
    job_id: str | None = None
    """The provider's ID of the attempt."""
    interrupted: bool = False
    """Whether the cluster, or a user who deleted its pod, ended it: not its own fault."""
    at_its_limit: bool = False
    """Whether it was ended for exceeding its pod's limit of memory or disk, which the next attempt has as well."""
    wants_log: bool = False
    """Whether the reason alone does not explain the failure."""
    awaiting_pod: bool = False
    """Whether its pod is still to be created, or its volumes to be mounted: no event may tell, so check again."""
    since: datetime | None = None
    """Since when it waits for that, if known."""
    ending: bool = False
    """Whether the pod is terminating, or has ended before its Job says so. No event may report it, so check again."""
    starting: bool = False
    """Whether its pod has just started and the trainer has not reported yet: its report will trigger a reconcile."""
    made_by: str = ""
    """A digest of the settings that its batch Job was created with, by the provider's `made_by`; empty if unknown."""
    orphaned: bool = False
    """Of a deleted job: whether Kubernetes has removed the owner reference from its children, which are then kept."""
    made_at: datetime | None = None
    """When its batch Job was created, if it has one."""
    started_at: datetime | None = None
    """When its trainer started, by its node's clock."""
    billed_seconds: int | None = None
    """Seconds that the provider bills, once known, if it bills by time."""
    billed_tokens: int | None = None
    """Tokens that the provider bills, once known, if it bills by tokens; failed training included."""
    measuring: "Run | None" = None
    """The pod that sends the test set to the tuned model, if the model stays at a provider."""
    note: str = ""
    """What it is doing, if the state alone does not tell."""
    nameless: bool = False
    """Whether its provider calls it done, and has not named its model yet."""
    unknown: bool = False
    """Whether its provider has a job of the attempt that status does not know: status was emptied or replaced by an old
    one, or the response to the create call was lost."""
    base: str = ""
    """The model that it is tuned from, by the provider's name."""
    beside: tuple[str, ...] = ()
    """Other jobs of the same object that run at the provider: there should be one. No earlier list showed them."""


def with_log(run: Run, log_tail: str, unread: str = "") -> Run:
    """The run with the end of the trainer's log in its failure; `unread`: why the log cannot be read."""
    if run.failure is None:
        return run
    fields: dict[str, str | None] = {"log_tail": log_tail[-4096:]}
    if unread and not log_tail:
        said = f"{run.failure.message[:2048].rstrip('. ')}; its log cannot be read: {unread}"
        fields |= {"message": said[:4096], "next_step": _WITHOUT_LOG}
    return replace(run, failure=run.failure.model_copy(update=fields))
