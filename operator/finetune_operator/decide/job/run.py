"""The state of a job's present attempt, whatever provider runs it."""

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
    """The state of the present attempt, whatever provider runs it.

    Some states are of providers outside of the cluster: Checked, the data are there and the job can be made; Measured,
    a pod here has asked the tuned model the test set; Unseen, nothing has been heard of the job since this process
    began; Unreachable, the provider cannot be asked (`failure`).
    """

    state: RunState
    report: Report | None = None
    failure: Failure | None = None
    """Why it failed; while Queued, what keeps it from starting; of an Active check, its data from the provider."""
    job_id: str | None = None
    """The provider's name of the attempt."""
    interrupted: bool = False
    """Whether it failed by no fault of its own: the cluster, or somebody who may delete its pod, ended it."""
    at_its_limit: bool = False
    """Whether it was ended at a limit of its own pod, of memory or of disk, which the next attempt has as well."""
    wants_log: bool = False
    """Whether the reason alone does not explain the failure."""
    awaiting_pod: bool = False
    """Whether its pod is still to be made, or the pod's volumes to be mounted: nothing tells of it, so look again."""
    since: datetime | None = None
    """Since when it waits for that, where it is known."""
    ending: bool = False
    """Whether the pod is told to end, or has ended and its Job has yet to say so: nothing may tell, so look again."""
    starting: bool = False
    """Whether its pod has just begun and nothing has been heard of the trainer yet: it will speak, so wait."""
    made_by: str = ""
    """What of its connection the batch Job was made by, as its provider's `made_by`; empty where that is not known."""
    orphaned: bool = False
    """Of a job that is deleted: whether Kubernetes has taken the owner off what the attempt has made, which stays."""
    made_at: datetime | None = None
    """When its batch Job was made, where it has one."""
    started_at: datetime | None = None
    """When its trainer began, by its node's clock."""
    billed_seconds: int | None = None
    """Time that the provider bills, once it is known, where it bills by the time."""
    billed_tokens: int | None = None
    """Tokens that the provider bills, once they are known, where it bills by them; also of what came to nothing."""
    measuring: "Run | None" = None
    """The pod that asks the tuned model the test set, where the model stays at a provider."""
    note: str = ""
    """What it is doing, where the state alone does not say it."""
    nameless: bool = False
    """Whether its provider calls it done, and has not named its model."""
    unknown: bool = False
    """Whether its provider has a job of the attempt of which status does not tell: it was emptied or put back, or the
    answer to the create was lost."""
    base: str = ""
    """What a provider says that it is tuned from."""
    beside: tuple[str, ...] = ()
    """Other jobs that go on at the provider for the same object, which wants one: no earlier look has shown them."""


def with_log(run: Run, log_tail: str, unread: str = "") -> Run:
    """The run with the end of the trainer's log in its failure; `unread`: why there is none."""
    if run.failure is None:
        return run
    fields: dict[str, str | None] = {"log_tail": log_tail[-4096:]}
    if unread and not log_tail:
        said = f"{run.failure.message[:2048].rstrip('. ')}; its log cannot be read: {unread}"
        fields |= {"message": said[:4096], "next_step": _WITHOUT_LOG}
    return replace(run, failure=run.failure.model_copy(update=fields))
