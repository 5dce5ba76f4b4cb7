"""What a decision about a FineTuneJob is made of, and what it consists of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_api.catalogue import ProviderFacts
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Asked, Failure, FineTuneJobStatus, ProviderStatus
from finetune_operator.decide.conditions import Fact, is_true
from finetune_operator.decide.job.reported import REPORT_INTERVAL
from finetune_operator.decide.job.run import Run

PATIENCE = timedelta(minutes=15)
"""A trainer reports every two seconds where a step is no longer, and after each step where it is."""


_NOT_BEGUN = ProviderStatus()


@dataclass(frozen=True)
class Active:
    """The active version of a job's model, as far as one that is compared with it has to know."""

    version: int
    connection: str
    place: str | None = None
    """Where at a provider its model is; None on this cluster, and of versions from before that was recorded."""
    uri: str | None = None
    """Where its artifact is, if it is ours."""
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
    """Whether pods of this job, or of an earlier one of its name, may still write while no attempt is under way."""
    version: int | None
    """Version of the model that this job made, once it is registered."""
    artifact_uri: str
    now: datetime
    made_it: bool = False
    """Whether that version is of this very object, and not of the one that a backup had under its name."""
    newer: bool = False
    """Of a spec that cannot be read: whether definitions of a newer release have let it through."""
    unsaid: int = 0
    """How many jobs there are of which status has said nothing yet, this one among them."""
    usable_connections: tuple[str, ...] = ()
    """Connections that serve its namespace, where the one that it names is not there."""
    connection_unread: bool = False
    """Whether the connection is there, and this release cannot read it."""
    ending: bool = False
    """Whether its namespace is on its way out: the job goes with it, if not at once."""
    remote: bool = False
    """Whether its provider is outside of the cluster."""
    outdated: bool = False
    """Of a pod that cannot start: whether connection or chart have changed since, and it would be another one now."""
    restored: str | None = None
    """The restore that has brought it back from a backup, if one has."""
    kept_by: str = ""
    """The finalizers that keep it, where it is on its way out."""
    orphans: bool = False
    """Of one that is deleted: whether what it has made is to stay, and go on (`kubectl delete --cascade=orphan`)."""
    held: bool = False
    """Whether our finalizer is on the job: something of it may be outside of the cluster."""
    account_now: str | None = None
    """Whose account at its provider the connection's credentials lead to, as far as that is known by now."""
    abandoned: bool = False
    """Whether somebody wants it let go though the provider cannot be asked."""
    report_interval: timedelta = REPORT_INTERVAL
    """Least time between two writes of progress."""
    heard_at: datetime | None = None
    """When its trainer at work was last heard, by our own clock; where it was not, since when this process listens."""
    patience: timedelta = PATIENCE
    """So long a trainer that trains may say nothing."""
    facts: ProviderFacts = field(default_factory=ProviderFacts)
    """Prices and dates of the provider."""
    if_better: bool = False
    """Whether its model activates only what is better than the active version."""
    active: Active | None = None
    """The active version of its model, where the model stays at a provider."""
    noted_place: str | None = None
    """Where it was begun, as is noted beside our finalizer: status may have lost it, or be an earlier attempt's."""
    noted_account: str | None = None
    noted: bool = False
    """Whether the note that goes with our finalizer is on the job: whoever lets go of it takes both off."""
    copy_of: str = ""
    """The job that has begun what this one's status tells of, in words: a backup came into another namespace."""
    same_as: tuple[int, ...] = ()
    """Of a job that was made elsewhere: earlier versions of its model that are the very weights that it has made."""
    asked_tuned: Asked | None = None
    """What the tuned model at a provider was asked, as this process has counted it."""
    asked_base: Asked | None = None
    """The same of the base model."""
    silence: Failure | None = None
    """Why none of the questions to either is answered, where that has lasted."""

    @property
    def outside_uid(self) -> str:
        """By which UID its things at a provider are known: a job from a backup has another one of its own."""
        return self.provider.owner_uid or self.uid

    @property
    def provider(self) -> ProviderStatus:
        """What is recorded about the attempts."""
        return self.status.provider or _NOT_BEGUN

    @property
    def provider_name(self) -> str | None:
        """The provider of its attempts; by the connection, where status does not tell."""
        return self.provider.name or (self.connection.provider if self.connection else None)

    @property
    def began_with(self) -> str | None:
        """The provider that the job was begun with, where its connection, made anew, is one to another."""
        recorded = self.provider.name
        return recorded if recorded and self.connection and self.connection.provider != recorded else None

    @property
    def place(self) -> str | None:
        """Where at its provider the attempt is: as long as anything may be left there, where the first one was."""
        now = self.connection.place if self.connection else None
        return (self.noted_place or self.provider.place if self.held else None) or now

    @property
    def account(self) -> str | None:
        """In whose account there: as with `place`."""
        return (self.noted_account or self.provider.account if self.held else None) or self.account_now

    @property
    def attempt(self) -> int:
        """The attempt that is under way or comes next, from 1."""
        return max(self.provider.attempt, 1)

    @property
    def begun(self) -> bool:
        """Whether that attempt has been started, be it there or gone: its number is used up."""
        return self.run.state != "Absent" or self.provider.job_id is not None

    @property
    def finished(self) -> bool:
        """Whether the job has ended. Nothing but a new retryNonce starts it again."""
        return is_true(self.status.conditions, "Complete") or is_true(self.status.conditions, "Failed")

    @property
    def retry_asked(self) -> bool:
        """Whether retryNonce has changed since the present run began."""
        return self.spec is not None and self.spec.retry_nonce not in {None, self.status.observed_retry_nonce}


@dataclass(frozen=True)
class Decision:
    """What the job's status should be and what is to be done: `stop`, and one more thing at most. Status comes last."""

    status: FineTuneJobStatus
    stop: bool = False
    start: bool = False
    submit: bool = False
    """Have the provider make the job: looked up first, recorded before."""
    host: Literal["Up", "Down"] | None = None
    """Have the deployments stand that an evaluation asks, or go."""
    measure: Literal["Start", "Stop"] | None = None
    """Start or end the pod that asks a model at a provider the test set."""
    clear: bool = False
    """End what earlier attempts have left to be looked at: it may keep this one out."""
    register: bool = False
    release: bool = False
    """Tidy up at the provider and take our finalizer off."""
    delete: bool = False
    later: bool = False
    """Write nothing yet: a later look has more to say."""
    requeue_after: float | None = None

    @property
    def only_says(self) -> bool:
        """Whether there is nothing to do but to write the status."""
        return self == Decision(self.status, requeue_after=self.requeue_after)


@dataclass(frozen=True)
class Change:
    """New values for status fields, and the facts for its conditions."""

    facts: list[Fact] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
