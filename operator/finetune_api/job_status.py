"""Status of a FineTuneJob: its progress, what was found, and what was made."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from finetune_api.asking import Candidate
from finetune_api.base import Account, ApiModel, Conditions, Display, Money, Timestamp
from finetune_api.evaluation import EvaluationResult
from finetune_api.memory import MemoryUse
from finetune_api.push import Pushed
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.trackers import TrackerStates
from finetune_api.verdict import DatasetVerdict, SplitName

JobPhase = Literal[
    "Pending", "Validating", "Queued", "Running", "Evaluating", "Suspended", "Succeeded", "Failed", "Cancelled"
]

LOSS_POINTS = 100
"""Limit for a loss curve in status; the artifact has the whole record."""


class Progress(ApiModel):
    """Progress of training and evaluation."""

    step: Annotated[int, Field(ge=0)] = Field(description="Optimizer steps done.")
    total_steps: Annotated[int, Field(ge=0)] = Field(description="Total number of optimizer steps.")
    epoch: float = Field(0.0, description="Passes over the data done.")
    percent: Annotated[int, Field(ge=0, le=100)] = Field(0, description="Fraction of steps done, in percent.")
    tokens_per_second: float | None = Field(None, description="Non-padding tokens per second.")
    eta_seconds: int | None = Field(None, description="Estimated seconds left.")
    answers: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Answers to the test set so far, of the tuned model and its baselines together, and a judge's: "
        "two for each row and baseline.",
    )
    total_answers: Annotated[int, Field(ge=0)] | None = Field(None, description="Total number of answers.")
    saved_step: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Step of the newest checkpoint, from which the next attempt would resume."
    )
    updated_at: Timestamp | None = Field(None, description="When the trainer reported it, RFC 3339.")


class LossPoint(ApiModel):
    """One point of a loss curve."""

    step: int = Field(description="Optimizer step.")
    value: float = Field(
        description="Mean negative log likelihood per completion token, in nats; with preference the mean DPO loss "
        "per row."
    )
    reward_accuracy: float | None = Field(
        None, description="With preference: fraction of rows whose chosen answer gained on the rejected one."
    )
    reward_margin: float | None = Field(
        None, description="With preference: beta times that gain in nats, mean over the rows."
    )


Curve = Annotated[list[LossPoint], Field(max_length=LOSS_POINTS)]


class Loss(ApiModel):
    """Loss curves, thinned to at most 100 points each; the artifact has the full record."""

    train: Curve = Field(default_factory=list, description="Loss on the training set.")
    validation: Curve = Field(default_factory=list, description="Loss on the validation set.")

    @property
    def last_train(self) -> float | None:
        """The newest training loss."""
        return self.train[-1].value if self.train else None

    @property
    def last_validation(self) -> float | None:
        """The newest validation loss."""
        return self.validation[-1].value if self.validation else None

    @property
    def last_rewards(self) -> dict[str, float | None]:
        """The last reward accuracy and margin, as fields of a result: of the validation set if there is one."""
        points = (self.validation or self.train)[-1:]
        return {name: getattr(last, name) for last in points for name in ("reward_accuracy", "reward_margin")}


class Failure(ApiModel):
    """What went wrong, where, and what to do."""

    reason: Annotated[Reason, Field(max_length=64)] = Field(description="One word, from a closed set.")
    message: Annotated[str, Field(max_length=4096)] = Field(description="What went wrong, and where.")
    next_step: Annotated[str, Field(max_length=1024)] | None = Field(None, description="What to do about it.")
    exit_code: int | None = Field(None, description="Exit code of the trainer.")
    log_tail: Annotated[str, Field(max_length=4096)] | None = Field(
        None, description="Last lines of the trainer's log, where the reason alone does not explain it."
    )
    attempt: int | None = Field(None, description="Which attempt failed, from 1.")

    @classmethod
    def because(cls, reason: Reason, message: str) -> Self:
        """A failure with its reason's usual next step; a message beyond the field's limit is truncated."""
        return cls(reason=reason, message=message[:4096], next_step=NEXT_STEP.get(reason))

    @property
    def sentences(self) -> str:
        """Message and next step together, for where there is only one text."""
        told = (part for part in (self.message, self.next_step) if part)
        return " ".join(part if part.endswith("?") else part.rstrip(".") + "." for part in told)


class ArtifactRef(ApiModel):
    """Where a version's weights are."""

    uri: Annotated[str, Field(max_length=1024)] | None = Field(None, description="Folder with the weights.")
    provider_model_id: Annotated[str, Field(max_length=1024)] | None = Field(
        None, alias="providerModelID", description="The provider's name of the model."
    )
    kind: Literal["Adapter", "Full"] | None = Field(None, description="Adapter: a LoRA adapter. Full: a whole model.")
    architecture: Literal["CausalLM", "Seq2SeqLM"] | None = Field(
        None,
        description="CausalLM: a decoder-only model. Seq2SeqLM: an encoder-decoder, for example T5.",
    )
    lora_rank: int | None = Field(None, description="Rank of the adapter, where it is one.")
    use_dora: bool | None = Field(None, alias="useDoRA", description="Whether the adapter is a DoRA.")
    needs_peft: bool | None = Field(
        None,
        alias="needsPEFT",
        description="Whether the adapter has what PEFT alone reads, such as biases or a rank for each layer, and vLLM "
        "cannot serve it.",
    )
    base_model: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="Base model that the adapter of an adopted job names."
    )
    bytes: int | None = Field(None, description="Size of the folder in bytes.")
    sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="sha256", description="SHA-256 of the folder's manifest, which contains the checksums of the files."
    )


NOTHING_LEARNT = "the tuned model answers as its base model does"
"""Beginning of the warning that the training has changed no weight."""

TOO_LONG = "it was trained for too long"
"""Beginning of the warning that the model was better before the end of the training, on rows it had not seen."""

LITTLE_KEPT = "most of what was learnt is lost by rounding"
"""Beginning of the warning that the model is nearly its base once it is saved in 16 bits."""

TOKENIZER_LEFT_OUT = "the tokenizer that the code has saved is not used"
"""Beginning of the warning that the code saves another tokenizer, or chat template, than the base model's."""

EXPERTS_LEFT = "the experts stay as they are"
"""Beginning of the warning about adapters on a mixture of experts. It comes last, as it puts nothing in doubt."""


class TrainingResult(ApiModel):
    """Result of a finished run."""

    artifact: ArtifactRef = Field(description="The weights.")
    steps: int = Field(description="Optimizer steps.")
    tokens: int | None = Field(None, description="Tokens trained on, without padding.")
    train_loss: float | None = Field(None, description="Last training loss.")
    eval_loss: float | None = Field(None, description="Last validation loss.")
    reward_accuracy: float | None = Field(
        None, description="With preference: last rewardAccuracy, on the validation set if there is one."
    )
    reward_margin: float | None = Field(
        None, description="With preference: last rewardMargin, on the validation set if there is one."
    )
    runtime_seconds: int | None = Field(None, description="Seconds of training, all attempts.")
    dataset_sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="datasetSHA256", description="SHA-256 of the training file."
    )
    pushes: Annotated[list[Pushed], Field(max_length=4)] | None = Field(
        None, description="Outcome of spec.artifact.push."
    )
    warnings: Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=2)] | None = Field(
        None,
        description="Signs that the training went wrong although it finished, such as a loss that rose or weights that "
        "never moved; and what part of a mixture of experts adapters do not reach.",
    )
    evaluation_failure: Failure | None = Field(
        None, description="Why the tuned model was not evaluated although the job has dataset.test."
    )


class Cost(ApiModel):
    """What the job costs at its provider."""

    estimated: Money | None = Field(
        None,
        description="Estimate before the job: tokens of the data, times epochs, times list price; where time is "
        "billed, the maximum. Absent if a price is unknown; basis says which.",
    )
    evaluation: Money | None = Field(
        None, description="Part of the estimate for evaluating the models at the provider, if known."
    )
    actual: Money | None = Field(
        None,
        description="Cost after the job: tokens or time that the provider billed, at list price, with that of earlier "
        "attempts. Absent if a price is unknown.",
    )
    earlier: Money | None = Field(
        None, description="Part of the cost for attempts before the current one, as far as it is known."
    )
    unknown_attempts: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Number of earlier attempts of which no bill, or no price, is known; what they cost is in no "
        "figure.",
    )
    hosting: Money | None = Field(
        None, description="Part of the cost for deployments of the evaluation so far, by their hours at list price."
    )
    currency: Annotated[str, Field(max_length=3)] = Field(description="Currency, as ISO 4217 code.")
    basis: Annotated[str, Field(max_length=512)] = Field(description="How the figures are calculated.")


PartName = Literal[SplitName, "code"]
"""What of a job is uploaded to its provider: its data and, if the provider runs it, custom code."""


class ProviderFile(ApiModel):
    """A converted file at the provider."""

    split: PartName = Field(description="Which split it is, or code.")
    id: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="The provider's name of the file.")
    bytes: Annotated[int, Field(ge=0)] = Field(description="Size as uploaded.")
    sha256: Annotated[str, Field(max_length=64)] = Field(alias="sha256", description="SHA-256 as uploaded.")


class TokenUsage(ApiModel):
    """Requests to a model at a provider, and the tokens that are billed for them."""

    answers: Annotated[int, Field(ge=0)] = Field(
        0, description="Number of requests that were passed on and may be billed."
    )
    prompt_tokens: Annotated[int, Field(ge=0)] = Field(0, description="Tokens of the questions.")
    completion_tokens: Annotated[int, Field(ge=0)] = Field(0, description="Tokens of the answers.")


class ComparedVersion(ApiModel):
    """The version that was active when the evaluation began."""

    version: Annotated[int, Field(ge=1)] = Field(description="Its number.")
    model: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="The provider's name of it; none where it is not at this job's provider."
    )


class EvaluationDeployment(ApiModel):
    """A deployment for an evaluation, where models answer only through deployments. Recorded before it is created."""

    candidate: Candidate = Field(description="Which of the job's models answers in it.")
    name: Annotated[str, Field(max_length=64)] = Field(description="Its name at the provider.")
    created_at: Timestamp = Field(description="When it was recorded, RFC 3339.")
    unseen_since: Timestamp | None = Field(
        None,
        description="Since when the provider does not show it; absent while it does.",
    )
    ready_at: Timestamp | None = Field(
        None, description="When it was first seen to be ready, RFC 3339: from then on it is billed."
    )
    address: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Name that requests use, once it has answered."
    )
    borrowed: bool = Field(
        True,
        description="Whether it existed before the evaluation: then it is neither created nor deleted. "
        "Absent counts as true.",
    )
    released: bool = Field(False, description="Whether its deletion was requested.")
    per_hour: Money | None = Field(None, description="Its price per hour, where it has one that is known.")
    failure: Annotated[str, Field(max_length=512)] | None = Field(None, description="Why it is not available.")


class ProviderEvaluation(ApiModel):
    """The evaluation of a model that stays at its provider: a pod here sends it requests through the operator."""

    job_id: Annotated[str, Field(max_length=253)] | None = Field(None, description="Batch Job of the pod that asks.")
    tries: Annotated[int, Field(ge=1)] = Field(1, description="Number of the pod that asks, from 1.")
    failures: Annotated[int, Field(ge=0)] = Field(0, description="Pods that ended without a result.")
    retry_after: Timestamp | None = Field(None, description="When the next pod or deployment is tried, RFC 3339.")
    active_version: ComparedVersion | None = Field(None, description="The version that it is compared with.")
    tuned: TokenUsage | None = Field(None, description="Questions to the tuned model and the active version.")
    base: TokenUsage | None = Field(None, description="Questions to the base model.")
    deployments: Annotated[list[EvaluationDeployment], Field(max_length=8)] | None = Field(
        None, description="Deployments that are used; those created for the evaluation are deleted after it."
    )
    deployments_gone: bool = Field(
        False, description="True if none of the deployments created for it was left when it was suspended."
    )
    deploying_since: Timestamp | None = Field(None, description="Since when the next pod waits for them, RFC 3339.")
    hosting: Money | None = Field(None, description="Estimated cost of deployments that are already deleted.")
    ended: bool = Field(False, description="Whether it has ended, with or without a result.")
    failure: Failure | None = Field(None, description="Why the last pod ended without a result.")


class ProviderStatus(ApiModel):
    """The attempts, and what runs them. Written before anything is created, so that nothing is created twice."""

    name: Annotated[str, Field(max_length=32)] | None = Field(None, description="Provider block of the connection.")
    job_id: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="Name of the batch Job, or ID of the provider's job, of the current attempt."
    )
    place: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Where at the provider it was started; it is not looked for elsewhere."
    )
    account: Account | None = Field(None, description="Account in which it was started, as the provider identifies it.")
    owner_uid: Annotated[str, Field(max_length=64)] | None = Field(
        None,
        description="UID by which the job's objects at its provider are known: the job's own or, if it was "
        "restored from a backup with its status, its earlier one.",
    )
    attempt: Annotated[int, Field(ge=0)] = Field(0, description="Number of attempts so far, each with a new pod.")
    retries: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Number of retries after failures and interruptions. maxRetries limits those after failures "
        "and the fruitless interruptions together.",
    )
    interruptions: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Number of those after an interruption by the cluster: an eviction, a preemption, a drained or "
        "lost node, a deleted pod.",
    )
    fruitless_interruptions: Annotated[int, Field(ge=0)] = Field(
        0, description="Number of the last interruptions in a row without a newer checkpoint."
    )
    saved_work: Annotated[int, Field(ge=0)] = Field(
        0,
        description="What the current attempt found done: steps by the newest checkpoint, and answers to the test set.",
    )
    retry_after: Timestamp | None = Field(None, description="When the next attempt starts, RFC 3339.")
    last_failure: Failure | None = Field(None, description="Why the last attempt failed.")
    artifact_uri: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="Folder of checkpoints and artifact."
    )
    files: Annotated[list[ProviderFile], Field(max_length=4)] | None = Field(
        None, description="Data files at the provider, of the current attempt."
    )
    files_at: Timestamp | None = Field(
        None, description="When the files were first known to exist, RFC 3339: a provider may list them only later."
    )
    asked_at: Timestamp | None = Field(
        None, description="When the job's creation was last requested, RFC 3339; written before the request."
    )
    stop_asked_at: Timestamp | None = Field(
        None,
        description="When the provider was first told to stop the job, by suspend or its deadline, and had not done so "
        "yet, RFC 3339.",
    )
    nameless_since: Timestamp | None = Field(
        None, description="Since when the provider reports the job as done without naming a model, RFC 3339."
    )
    evaluation: ProviderEvaluation | None = Field(
        None, description="Evaluation of the provider's model, in the current attempt."
    )

    @property
    def was_short_of_memory(self) -> bool:
        """Whether the previous attempt ran out of memory."""
        last = self.last_failure
        return last is not None and last.reason is Reason.OUT_OF_MEMORY and last.attempt == self.attempt - 1


class FineTuneJobStatus(ApiModel):
    """State of the job."""

    observed_generation: int | None = Field(None, description="Generation of the spec that the status describes.")
    phase: JobPhase | None = Field(None, description="State in one word, for people; tools should read conditions.")
    display: Display | None = Field(None, description="Values of the columns of kubectl get.")
    conditions: Conditions | None = Field(
        None,
        description="Ready, Reconciling, Stalled, DatasetValid, Complete, Failed, Suspended, Pushed, Tracked, "
        "Evaluated, Retiring; Released and Cleaned are False while deployments of an evaluation, or data at the "
        "provider, could not be deleted.",
    )
    progress: Progress | None = Field(None, description="Progress of training and evaluation.")
    loss: Loss | None = Field(None, description="Loss curves.")
    train_loss: float | None = Field(None, description="Last training loss.")
    eval_loss: float | None = Field(None, description="Last validation loss.")
    dataset: DatasetVerdict | None = Field(None, description="Result of the data check.")
    memory: MemoryUse | None = Field(None, description="Estimated and measured memory of the training, per GPU or pod.")
    evaluation: EvaluationResult | None = Field(
        None, description="Scores of the tuned model and its baselines on the test set."
    )
    trackers: TrackerStates | None = Field(None, description="State of each tracker, and the URL of its run.")
    failure: Failure | None = Field(None, description="What went wrong, where, and what to do.")
    provider: ProviderStatus | None = Field(
        None, description="Details of the attempts, on the cluster or at the provider."
    )
    cost: Cost | None = Field(None, description="Cost at a provider that bills for it.")
    result: TrainingResult | None = Field(None, description="Result of the training.")
    model_version: Annotated[int, Field(ge=1)] | None = Field(None, description="Version of the FineTunedModel.")
    observed_retry_nonce: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="retryNonce of the current run."
    )
    start_time: Timestamp | None = Field(None, description="When the first pod was requested, RFC 3339.")
    completion_time: Timestamp | None = Field(None, description="When the job ended, RFC 3339.")

    def with_provider(self, **fields: Any) -> Self:
        """The status with these fields of status.provider."""
        return self.model_copy(update={"provider": (self.provider or ProviderStatus()).model_copy(update=fields)})
