"""What a decision about a FineTuneJob is based on, and what it consists of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_api.catalogue import ProviderFacts
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderStatus, TokenUsage
from finetune_operator.decide.conditions import Fact, is_true
from finetune_operator.decide.job.reported import REPORT_INTERVAL
from finetune_operator.decide.job.run import Run

PATIENCE = timedelta(minutes=15)
"""A trainer reports every two seconds or, if a step takes longer, after each step."""


_NOT_BEGUN = ProviderStatus()


@dataclass(frozen=True)
class Active:
    """The active version of a job's model: what a comparison with it needs."""

    version: int
    connection: str
    place: str | None = None
    """Where its model is at a provider; None on this cluster, and for versions from before this was recorded."""
    uri: str | None = None
    """Where its artifact is, if we store it."""
    sha256: str | None = None
    provider_model_id: str | None = None


@dataclass(frozen=True)
class JobView:
    """All that is known of a FineTuneJob when a decision is made."""

    name: str
    namespace: str
    uid: str
    generation: int
    created: datetime
    deleting: bool
    spec: FineTuneJobSpec | None
    spec_error: str
    status: FineTuneJobStatus
    connection: LLMConnectionSpec | None
    namespace_labels: Mapping[str, str]
    run: Run
    live_pods: bool
    """Whether pods of this job, or of an earlier one of its name, may still write though no attempt is under way."""
    version: int | None
    """The model's version that this job made, once it is registered."""
    artifact_uri: str
    now: datetime
    is_maker: bool = False
    """Whether this very object made that version, and not the one of its name in a backup."""
    newer: bool = False
    """If the spec cannot be read: whether CRDs of a newer release have admitted it."""
    unrecorded_jobs: int = 0
    """How many jobs have no status yet, including this one."""
    usable_connections: tuple[str, ...] = ()
    """If the connection does not exist: the connections that its namespace may use."""
    connection_created: datetime | None = None
    """When the connection was created, if it exists."""
    connection_unread: bool = False
    """Whether the connection exists, and this release cannot read it."""
    namespace_deleting: bool = False
    """Whether its namespace is being deleted, and the job with it."""
    remote: bool = False
    """Whether its provider is outside of the cluster."""
    outdated: bool = False
    """Whether connection or chart have changed since its pod was created: a new pod might start."""
    restored: str | None = None
    """The restore that brought it back from a backup, if any."""
    kept_by: str = ""
    """The finalizers that keep it while it is being deleted."""
    orphans: bool = False
    """If it is being deleted: whether its children are kept and go on (`kubectl delete --cascade=orphan`)."""
    has_finalizer: bool = False
    """Whether our finalizer is on the job: there may be objects of it outside of the cluster."""
    account_now: str | None = None
    """The account that the connection's credentials belong to, as far as it is known."""
    abandoned: bool = False
    """Whether somebody asked to release it though the provider cannot be reached."""
    report_interval: timedelta = REPORT_INTERVAL
    """Minimum time between two writes of progress."""
    last_report_at: datetime | None = None
    """When its running trainer last reported, by our clock; before any report, when this process began to listen."""
    patience: timedelta = PATIENCE
    """How long a trainer that trains may stay silent."""
    facts: ProviderFacts = field(default_factory=ProviderFacts)
    """Prices and dates of the provider."""
    if_better: bool = False
    """Whether its model activates only a version that is better than the active one."""
    active: Active | None = None
    """The active version of its model, if the model stays at a provider."""
    noted_place: str | None = None
    """Where it was started, from the annotation beside our finalizer: status may lack it or name an old attempt's."""
    noted_account: str | None = None
    has_begun_annotation: bool = False
    """Whether the job has the annotation that goes with our finalizer. Both are removed together."""
    copy_of: str = ""
    """If it is a copy from a backup of another namespace: the job that started what its status describes, in words."""
    same_as: tuple[int, ...] = ()
    """Of an adopted job: earlier versions of its model that have the same weights."""
    asked_tuned: TokenUsage | None = None
    """Requests to the tuned model at a provider, as counted by this process."""
    asked_base: TokenUsage | None = None
    """The same for the base model."""
    silence: Failure | None = None
    """Why neither model has answered a request for some time."""

    @property
    def outside_uid(self) -> str:
        """The UID in the names of its objects at a provider: a job from a backup has a new UID of its own."""
        return self.provider.owner_uid or self.uid

    @property
    def provider(self) -> ProviderStatus:
        """What is recorded about the attempts."""
        return self.status.provider or _NOT_BEGUN

    @property
    def provider_name(self) -> str | None:
        """The provider of its attempts, or the connection's if status does not tell."""
        return self.provider.name or (self.connection.provider if self.connection else None)

    @property
    def began_with(self) -> str | None:
        """The provider that the job was started with, if the connection now leads to another one."""
        recorded = self.provider.name
        return recorded if recorded and self.connection and self.connection.provider != recorded else None

    @property
    def place(self) -> str | None:
        """Where at its provider the attempt is: while anything may be left there, where the first attempt was."""
        now = self.connection.place if self.connection else None
        return (self.noted_place or self.provider.place if self.has_finalizer else None) or now

    @property
    def account(self) -> str | None:
        """The account there, by the same rule as `place`."""
        return (self.noted_account or self.provider.account if self.has_finalizer else None) or self.account_now

    @property
    def attempt(self) -> int:
        """The attempt that is under way or comes next, from 1."""
        return max(self.provider.attempt, 1)

    @property
    def begun(self) -> bool:
        """Whether that attempt was started, even if it is gone by now: its number is used up."""
        return self.run.state != "Absent" or self.provider.job_id is not None

    @property
    def finished(self) -> bool:
        """Whether the job has ended. Only a new retryNonce starts it again."""
        return is_true(self.status.conditions, "Complete") or is_true(self.status.conditions, "Failed")

    @property
    def retry_asked(self) -> bool:
        """Whether retryNonce has changed since the present run began."""
        return self.spec is not None and self.spec.retry_nonce not in {None, self.status.observed_retry_nonce}


@dataclass(frozen=True)
class Decision:
    """The job's new status and what to do: `stop`, and at most one more thing. Status is written last."""

    status: FineTuneJobStatus
    stop: bool = False
    start: bool = False
    submit: bool = False
    """Have the provider create the job: recorded in status first, then looked up, so that it is created once."""
    host: Literal["Up", "Down"] | None = None
    """Create, or delete, the deployments that an evaluation uses."""
    measure: Literal["Start", "Stop"] | None = None
    """Start, or end, the pod that sends the test set to a model at a provider."""
    clear: bool = False
    """Delete the ended pods of earlier attempts, kept for inspection: a quota may count them."""
    register: bool = False
    release: bool = False
    """Clean up at the provider and remove our finalizer."""
    delete: bool = False
    later: bool = False
    """Write no status yet: a later reconcile has more to record."""
    requeue_after: float | None = None

    @property
    def only_says(self) -> bool:
        """Whether there is nothing to do except to write the status."""
        return self == Decision(self.status, requeue_after=self.requeue_after)


@dataclass(frozen=True)
class Change:
    """New values of status fields, and facts for the conditions."""

    facts: list[Fact] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
