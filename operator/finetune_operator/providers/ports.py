"""Protocols that providers implement. Whatever runs the training, the reconciler sees a `Run`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol

from finetune_api.asking import ChatReply, ChatRequest
from finetune_api.connection import LLMConnectionSpec
from finetune_api.deployment import DeploymentTemplate
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import FineTuneJobStatus, ProviderFile
from finetune_api.manifest import Manifest
from finetune_operator.decide.deployment.hosted_record import Hosted
from finetune_operator.decide.deployment.idle import Figures
from finetune_operator.decide.job.remote import JobKey, Metrics, RemoteJob
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.view import Active
from finetune_operator.providers.calls.rate_limit import RateLimiter


class TrainingProvider(Protocol):
    """Runs the attempts of FineTuneJobs. Every method is idempotent: it may be called again after a crash."""

    def output_uri(self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> str:
        """Where the job's checkpoints and artifact are written; the same for all its attempts."""

    async def latest_attempt(self, job: Manifest, status: FineTuneJobStatus) -> int:
        """The number of the latest attempt that left traces; 0 if there are none.

        Status normally has it. If someone cleared the status or restored an old one, an earlier attempt would
        otherwise be started while this one runs.
        """

    async def observe(self, job: Manifest, status: FineTuneJobStatus) -> Run:
        """The state of the attempt that status names."""

    def made_by(self, connection: LLMConnectionSpec) -> str:
        """A digest of the settings, other than the job, that pods are made from; empty for another provider."""

    def has_live_pods(self, job: Manifest) -> bool:
        """Whether something of this job may still write to its output."""

    async def start(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Start the attempt that status names, once; returns the provider's name for it."""

    async def stop(self, job: Manifest, status: FineTuneJobStatus) -> RemoteJob | None:
        """Stop the attempt that status names and any other attempt that runs, with time to write a checkpoint.

        Returns:
            The attempt's job at a provider outside of the cluster, once it has ended; None if there is none.
        """

    async def end_earlier(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """Delete ended Jobs and pods before the one that status names; they were kept for inspection."""


@dataclass(frozen=True)
class JobRequest:
    """A job to create, in provider-neutral terms."""

    key: JobKey
    spec: FineTuneJobSpec
    """Settings that the provider does not support were refused earlier."""
    suffix: str
    """Part of the tuned model's name, if the provider accepts one."""
    files: Sequence[ProviderFile]
    active: Active | None = None
    """The version to compare the tuned model with, if the job or its model asks for that."""
    short_of_memory: bool = False
    """Whether the previous attempt ran out of memory."""

    def file(self, split: str) -> str | None:
        """The provider's ID of a split's file."""
        return next((file.id for file in self.files if file.split == split), None)


@dataclass(frozen=True)
class RemoteFile:
    """A file at a provider."""

    id: str
    name: str
    bytes: int
    ready: bool = True
    """Whether a job may use it already."""
    unusable: bool = False
    """Whether the provider has checked it and rejected it."""


@dataclass(frozen=True)
class HostRequest:
    """A deployment to create, in provider-neutral terms. Provider-specific settings are in the template's block."""

    name: str
    model: str
    """What it serves: the provider's name of the tuned model, or the URI of an artifact."""
    template: DeploymentTemplate
    owner: str
    """UID of the ModelDeployment."""
    base_model: str | None = None
    """The base model of an adapter; None if the artifact is a full model."""
    is_base: bool = False
    """Whether `model` is one of the provider's own base models, not a tuned one."""
    recorded_at: str = ""
    """When the intent to create it was recorded. It tells this deployment from an earlier one of the same name."""

    @property
    def token(self) -> str:
        """Idempotency token: the same for every call that creates this deployment, and for no other."""
        return sha256(f"{self.owner}/{self.name}/{self.recorded_at}".encode()).hexdigest()[:32]


class HostingApi(Protocol):
    """Deployments of one account at a provider that has them; one call each, no state, no retries.

    Every method raises subclasses of ProviderError.
    """

    names_have_case: bool
    """Whether deployment names are case-sensitive."""

    async def list(self) -> list[Hosted]:
        """All deployments, whoever created them; their `connection` is not set."""

    async def details(self, hosted: Hosted) -> Hosted:
        """The same deployment with what it serves, how it is billed and why it failed, if the list omits these."""

    async def make(self, request: HostRequest) -> str | None:
        """Request a deployment; idempotent.

        Returns:
            The operation that says why it failed, if the deployment itself does not say.
        """

    async def delete(self, hosted: Hosted) -> None:
        """Request the deletion of a listed deployment; no error if it no longer exists."""

    async def answers(self, hosted: Hosted) -> bool:
        """Whether a listed deployment answers a question."""

    async def usage(self, hosted: Hosted, since: datetime, now: datetime) -> Figures:
        """The time of the last request since then, by the provider's metrics. Raises if these cannot be read."""


class AnsweringApi(Protocol):
    """Models that are called by name, without a deployment; one call each, no state, no retries.

    Raises subclasses of ProviderError, whose messages quote neither question nor answer.
    """

    async def answer(self, model: str, question: ChatRequest) -> ChatReply:
        """The model's answer."""


class FineTuningApi(Protocol):
    """A provider's API with one connection's credentials: one call each, no state, no retries.

    Every method raises subclasses of ProviderError.
    """

    def use_limiter(self, limiter: RateLimiter) -> None:
        """Make each call wait for the rate limiter first; transfers to and from an object store may skip it."""

    async def close(self) -> None:
        """Close its connections."""

    async def check(self) -> None:
        """Raise if the credentials are invalid; a cheap call that is not billed."""

    async def account(self) -> str | None:
        """The account of the credentials, in words; None if the provider does not say."""

    async def upload(self, name: str, size: int, body: AsyncIterator[bytes]) -> RemoteFile:
        """Stream a file to the provider, without buffering it."""

    async def file(self, file_id: str) -> RemoteFile:
        """One file."""

    async def files(self, prefix: str) -> list[RemoteFile]:
        """Files whose names start with the prefix."""

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; no error if it does not exist."""

    async def end_uploads(self, prefix: str) -> None:
        """Abort incomplete uploads of files with this prefix, if the provider keeps such."""

    async def create(self, request: JobRequest) -> RemoteJob:
        """Create a job, once."""

    async def find(self, key: JobKey, since: datetime) -> list[RemoteJob]:
        """Jobs created since then that may be that attempt, by whatever the provider can look up best."""

    async def jobs(self, since: datetime) -> list[RemoteJob]:
        """Jobs created since then."""

    async def job(self, job_id: str) -> RemoteJob:
        """One job."""

    async def metrics(self, job: RemoteJob) -> Metrics:
        """Its losses so far."""

    async def cancel(self, job_id: str) -> None:
        """Cancel a job; no error if it has ended.

        Raises:
            NotThere: it does not exist, or is not visible yet.
        """

    async def has_model(self, model: str) -> bool:
        """Whether a model exists."""

    async def delete_model(self, model: str) -> None:
        """Delete a tuned model; no error if it does not exist."""

    def hosting(self) -> HostingApi | None:
        """Its deployments; None if tuned models need none."""

    def answering(self) -> AnsweringApi | None:
        """Its models; None if tuned models need a deployment."""


class Credential(Protocol):
    """The interface of azure-identity's credentials."""

    async def get_token(self, *scopes: str) -> Any:
        """A token, from a cache while it is valid."""

    async def close(self) -> None:
        """Close connections."""
