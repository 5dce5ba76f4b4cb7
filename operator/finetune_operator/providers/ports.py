"""What a provider must be able to do. Whatever runs the training, the reconciler sees a `Run`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Protocol

from finetune_api.asking import Question, Reply
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
from finetune_operator.providers.rate_limit import Pace


class TrainingProvider(Protocol):
    """Runs the attempts of FineTuneJobs. Every method may be called again after a crash and does nothing twice."""

    def output_uri(self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> str:
        """Where the job's checkpoints and artifact go; the same for all its attempts."""

    async def latest_attempt(self, job: Manifest, status: FineTuneJobStatus) -> int:
        """The latest attempt that has left traces; 0 where there are none.

        Status knows it, unless somebody has emptied it, or put an old one back: then an earlier attempt would be begun
        beside it.
        """

    async def observe(self, job: Manifest, status: FineTuneJobStatus) -> Run:
        """The state of the attempt that status names."""

    def made_by(self, connection: LLMConnectionSpec) -> str:
        """A digest of what pods are made by now, beside the job; empty where the connection is another provider's."""

    def has_live_pods(self, job: Manifest) -> bool:
        """Whether something of this job may still write to its output."""

    async def start(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Start the attempt that status names, once; returns the provider's name of it."""

    async def stop(self, job: Manifest, status: FineTuneJobStatus) -> RemoteJob | None:
        """End the attempt that status names, and whatever runs of another one, giving it time for a checkpoint.

        Returns:
            The attempt's job at a provider outside of the cluster, once it has ended; None where there is none.
        """

    async def end_earlier(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """Delete what came before the pod that status names, and has ended: it is kept for people to look at."""


@dataclass(frozen=True)
class JobRequest:
    """A job to be made, in nobody's dialect."""

    key: JobKey
    spec: FineTuneJobSpec
    """What the provider could not heed has been refused before."""
    suffix: str
    """Part of the tuned model's name, where the provider takes one."""
    files: Sequence[ProviderFile]
    active: Active | None = None
    """The version that the tuned model is compared with, where the job or its model asks for that."""
    short_of_memory: bool = False
    """Whether the attempt before this one was ended for want of memory."""

    def file(self, split: str) -> str | None:
        """The provider's name of a split's file."""
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
    """Whether the provider has looked at it, and cannot use it."""


@dataclass(frozen=True)
class HostRequest:
    """A deployment to be made, in nobody's dialect. What only one provider has is in its block of the template."""

    name: str
    model: str
    """What it is to serve: the provider's name of the tuned model, or the URI of an artifact."""
    template: DeploymentTemplate
    owner: str
    """UID of the ModelDeployment."""
    base_model: str | None = None
    """What the tuned model is an adapter of; None where it is whole."""
    is_base: bool = False
    """Whether it is a model of the provider's own, and not one that was tuned."""
    recorded_at: str = ""
    """When it was recorded that it is to be made. One of a name that was there before is another one."""

    @property
    def token(self) -> str:
        """The same for every call that is to make this deployment, and for no other."""
        return sha256(f"{self.owner}/{self.name}/{self.recorded_at}".encode()).hexdigest()[:32]


class HostingApi(Protocol):
    """Deployments of one account, where a provider makes them; one call each, no state, no retries.

    All of it raises ProviderError's children.
    """

    names_have_case: bool
    """Whether names that differ in capital letters alone are of two deployments."""

    async def list(self) -> list[Hosted]:
        """All deployments, whoever made them; of which connection they are is left out."""

    async def details(self, hosted: Hosted) -> Hosted:
        """The same one with what it serves, how it is billed and why it failed, where a list does not tell."""

    async def make(self, request: HostRequest) -> str | None:
        """Ask for a deployment; the same again changes nothing.

        Returns:
            The operation that tells why it failed, where the deployment itself does not.
        """

    async def delete(self, hosted: Hosted) -> None:
        """Ask for the end of one of the list; one that is not there any more is no error."""

    async def answers(self, hosted: Hosted) -> bool:
        """Whether one of the list answers a question."""

    async def usage(self, hosted: Hosted, since: datetime, now: datetime) -> Figures:
        """When it was last asked since then, by the provider's own figures. Raises where there are none to read."""


class AnsweringApi(Protocol):
    """Models that answer by their name alone, where a provider has them; one call each, no state, no retries.

    All of it raises ProviderError's children, whose messages quote nothing of question and answer.
    """

    async def answer(self, model: str, question: Question) -> Reply:
        """What the model says."""


class FineTuningApi(Protocol):
    """A provider's API with one connection's credentials: one call each, no state, no retries.

    All of it raises ProviderError's children.
    """

    def keep_pace(self, pace: Pace) -> None:
        """Have each call wait for its turn first; what moves data to and from a store need not."""

    async def close(self) -> None:
        """Close its connections."""

    async def check(self) -> None:
        """Whether the credentials are good; cheap, and free of charge."""

    async def account(self) -> str | None:
        """Whose account the credentials lead to, in words; None where the provider does not tell."""

    async def upload(self, name: str, size: int, body: AsyncIterator[bytes]) -> RemoteFile:
        """Pass a file on, without holding it."""

    async def file(self, file_id: str) -> RemoteFile:
        """One file."""

    async def files(self, prefix: str) -> list[RemoteFile]:
        """Files whose names begin so."""

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; one that is not there is no error."""

    async def end_uploads(self, prefix: str) -> None:
        """Give up what is there of uploads that broke off, where a provider keeps it; of files whose names begin so."""

    async def create(self, request: JobRequest) -> RemoteJob:
        """Make a job, once."""

    async def find(self, key: JobKey, since: datetime) -> list[RemoteJob]:
        """Jobs, made since then, that may be that attempt: by what the provider can look up best."""

    async def jobs(self, since: datetime) -> list[RemoteJob]:
        """Jobs that were made since then."""

    async def job(self, job_id: str) -> RemoteJob:
        """One job."""

    async def metrics(self, job: RemoteJob) -> Metrics:
        """How its loss goes or, once it has ended, went."""

    async def cancel(self, job_id: str) -> None:
        """End a job; one that has ended is no error.

        Raises:
            NotThere: there is none, or it is not shown yet.
        """

    async def has_model(self, model: str) -> bool:
        """Whether a model is there to be asked."""

    async def delete_model(self, model: str) -> None:
        """Delete a tuned model; one that is not there is no error."""

    def hosting(self) -> HostingApi | None:
        """Its deployments; None where a tuned model needs none."""

    def answering(self) -> AnsweringApi | None:
        """Its models; None where a tuned model needs a deployment."""


class Credential(Protocol):
    """What azure-identity's credentials can do."""

    async def get_token(self, *scopes: str) -> Any:
        """A token, from a cache while it is good."""

    async def close(self) -> None:
        """Close connections."""
