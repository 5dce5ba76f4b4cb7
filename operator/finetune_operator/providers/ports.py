"""What a provider must be able to do. Whatever runs the training, the reconciler sees a `Run`."""

from typing import Any, Protocol

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec, FineTuneJobStatus
from finetune_operator.decide.run import Run

Manifest = dict[str, Any]


class TrainingProvider(Protocol):
    """Runs the attempts of FineTuneJobs. Every method may be called again after a crash and does nothing twice."""

    def output_uri(self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec) -> str:
        """Where the job's checkpoints and artifact go; the same for all its attempts."""
        ...

    async def observe(self, job: Manifest, status: FineTuneJobStatus) -> Run:
        """The state of the attempt that status names."""
        ...

    def has_live_pods(self, job: Manifest) -> bool:
        """Whether something of this job may still write to its output."""
        ...

    async def start(
        self, job: Manifest, spec: FineTuneJobSpec, connection: LLMConnectionSpec, status: FineTuneJobStatus
    ) -> str:
        """Start the attempt that status names, once; returns the provider's name of it."""
        ...

    async def stop(self, job: Manifest, status: FineTuneJobStatus) -> None:
        """End the attempt that status names, and whatever runs of another one, giving it time for a checkpoint."""
        ...
