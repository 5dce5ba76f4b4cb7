"""FineTuneJob: one run of tuning. Its spec is immutable but for suspend, ttlSecondsAfterFinished and retryNonce."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api.base import (
    MODEL_REF_RULE,
    ApiModel,
    Conditions,
    ConfigMapKeyRef,
    Display,
    Money,
    Name,
    ObjectRef,
    Quantity,
    SecretKeyRef,
    StringMap,
    Timestamp,
    rules,
    shaped,
)
from finetune_api.evaluation import Evaluation, EvaluationResult
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.verdict import DatasetVerdict, SplitName

Method = Literal["LoRA", "QLoRA", "Full"]
DataFormat = Literal["Auto", "CSV", "JSONLines", "JSON", "Parquet"]
JobPhase = Literal[
    "Pending", "Validating", "Queued", "Running", "Evaluating", "Suspended", "Succeeded", "Failed", "Cancelled"
]

LOSS_POINTS = 100
"""Most points of a loss curve that status carries; the whole record is in the artifact."""

MUTABLE_FIELDS = ("suspend", "ttlSecondsAfterFinished", "retryNonce")

_MODEL_NAME = shaped(
    "^[A-Za-z0-9][A-Za-z0-9_:@-]*([./][A-Za-z0-9_:@-]+)*$",
    "baseModel is the name of a model, such as HuggingFaceTB/SmolLM2-135M-Instruct, and no path",
)
_URI_RULES = rules(
    (
        "self.uri.matches('^(pvc|configmap|s3|gs|abfs|hf|https)://[^/]+/.+')",
        "uri needs a scheme, a place and a path: pvc://CLAIM/PATH, configmap://NAME/KEY, s3://BUCKET/KEY, "
        "gs://BUCKET/KEY, abfs://CONTAINER/PATH, hf://datasets/OWNER/NAME/PATH or https://HOST/PATH "
        "(file:// works only in `finetune-trainer check` and `run`)",
    ),
    ("!self.uri.matches('(^|/)[.][.](/|$)')", "uri may not have a '..' segment: write the path without it"),
    (
        "self.uri.startsWith('abfs://') || !self.uri.matches('^[a-z]+://[^/]*@')",
        "uri holds credentials: put them into a Secret and name it in dataset.secretRef",
    ),
    (
        "!self.uri.startsWith('configmap://') || self.uri.matches('^configmap://[^/]+/[^/]+$')",
        "a ConfigMap key has no '/': write configmap://NAME/KEY",
    ),
    (
        "!self.uri.startsWith('hf://') || self.uri.matches('^hf://datasets/[^/]+/[^/]+/.+')",
        "write hf://datasets/OWNER/NAME/PATH",
    ),
)


class DataFile(ApiModel):
    """One file of rows."""

    model_config = ConfigDict(json_schema_extra=_URI_RULES)
    uri: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="pvc://CLAIM/PATH, configmap://NAME/KEY, s3://, gs://, abfs://, hf:// or https://. "
        "Volumes and ConfigMaps are those of the job's namespace."
    )
    format: DataFormat = Field("Auto", description="Auto: by the file's ending (.csv, .jsonl, .json, .parquet).")


class Columns(ApiModel):
    """How the columns of the data are called."""

    prompt: Annotated[str, Field(min_length=1, max_length=128)] = Field("prompt", description="Column with the prompt.")
    completion: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        "completion", description="Column with the completion."
    )
    system: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        "system", description="Column with the optional system message."
    )
    messages: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        "messages", description="Column with a whole conversation, used where there is no prompt column."
    )


class Dataset(ApiModel):
    """What is learnt from, and what the result is measured on."""

    train: DataFile = Field(description="Rows to learn from.")
    validation: DataFile | None = Field(
        None, description="Rows for the loss during training; gives the second loss curve."
    )
    test: DataFile | None = Field(
        None, description="Rows that the tuned model is compared on with the base model after training."
    )
    columns: Columns = Field(Columns(), description="How the columns are called.")
    secret_ref: ObjectRef | None = Field(
        None, description="Secret of the job's namespace; its keys become the trainer's environment (AWS_…, HF_TOKEN)."
    )


class LoRA(ApiModel):
    """Low-rank adapters."""

    r: Annotated[int, Field(ge=1, le=512)] = Field(16, description="Rank of the adapters.")
    alpha: Annotated[int, Field(ge=1, le=2048)] = Field(32, description="Scale: adapters count alpha / r.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout before the adapters.")
    target_modules: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        "all-linear", description="all-linear, or names of modules with commas between them, such as q_proj,v_proj."
    )
    use_rslora: bool = Field(
        False, alias="useRSLoRA", description="rsLoRA: adapters count alpha / √r, so that a large rank learns as well."
    )
    use_dora: bool = Field(
        False,
        alias="useDoRA",
        description="DoRA: lengths and directions of the weights are learnt apart. Slower; better at small ranks.",
    )
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = Field(
        None,
        alias="loraPlusRatio",
        description="LoRA+: the adapters' second halves (B) learn at learningRate times this, for example 16.",
    )

    @property
    def targets(self) -> str | list[str]:
        """As peft takes it: `all-linear` or a list of names."""
        if self.target_modules == "all-linear":
            return self.target_modules
        return [name.strip() for name in self.target_modules.split(",") if name.strip()]


class Hyperparameters(ApiModel):
    """How to learn."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = Field(3, description="Passes over the training set.")
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Peak learning rate. Default: 2e-4 for LoRA and QLoRA, 2e-5 for Full."
    )
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="For providers that take a factor on their own rate (OpenAI) instead of learningRate."
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(16, description="Rows per optimizer step, all GPUs.")
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Rows per forward pass on one GPU; a divisor of batchSize. Default: chosen by the trainer."
    )
    max_sequence_length: Annotated[int, Field(ge=8, le=1048576)] = Field(
        1024, description="Tokens of a row; the end of a longer one is cut."
    )
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.03, description="Part of the steps in which the learning rate rises."
    )
    schedule: Literal["Cosine", "Linear", "Constant"] = Field("Cosine", description="How the learning rate falls.")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="Decoupled weight decay.")
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = Field(1.0, description="Gradients are clipped to it.")
    seed: Annotated[int, Field(ge=0, le=4294967295)] = Field(0, description="Seed of data order and adapters.")
    precision: Literal["Auto", "BFloat16", "Float32"] = Field(
        "Auto", description="Numbers of the frozen and trained weights. Auto: bfloat16 on GPU, float32 on CPU."
    )
    checkpoint_steps: Annotated[int, Field(ge=1, le=1000000)] | None = Field(
        None, description="Optimizer steps between checkpoints. Default: chosen so that there are about ten."
    )

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError("microBatchSize must be a divisor of batchSize")
        return self


class ArtifactOptions(ApiModel):
    """What the job leaves."""

    merge: bool = Field(
        False,
        description="Add the adapter to the base model: the artifact is a whole model in the base's own numbers, with "
        "QLoRA too, and as large as the base. Off: the adapter alone.",
    )


class Code(ApiModel):
    """The user's own Python."""

    config_map_ref: ConfigMapKeyRef = Field(
        description="ConfigMap of the job's namespace and its key. All its keys are beside the code when it runs."
    )


class Resources(ApiModel):
    """What the trainer pod asks for; the connection's podTemplate fills what is left out."""

    gpus_per_node: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None, description="GPUs of the pod, of the connection's gpuResource. 0: train on CPU."
    )
    cpu: Quantity | None = Field(None, description="CPU request and limit, for example 2 or 500m.")
    memory: Quantity | None = Field(None, description="Memory request and limit, for example 16Gi.")
    ephemeral_storage: Quantity | None = Field(None, description="Scratch space request and limit.")


class Adopt(ApiModel):
    """A job that was made elsewhere."""

    job_id: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="The provider's name of the job.")


class Budget(ApiModel):
    """What the job may cost at a provider that bills for it."""

    max_cost: Money = Field(description="Most that the estimate may be; above it the job is refused before any call.")
    currency: Annotated[str, Field(min_length=3, max_length=3)] = Field("USD", description="ISO 4217 code.")


class FineTuneJobSpec(ApiModel):
    """What to tune, on what, and how."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.hyperparameters.microBatchSize) || "
                "self.hyperparameters.batchSize % self.hyperparameters.microBatchSize == 0",
                "hyperparameters.microBatchSize must be a divisor of hyperparameters.batchSize",
            ),
            (
                "self.method != 'Full' || !has(self.lora)",
                "lora has no meaning with this method: remove it or set method: LoRA or QLoRA",
            ),
            (
                "self.method != 'Full' || !self.artifact.merge",
                "artifact.merge has no meaning with method Full, which leaves a whole model: remove it",
            ),
            MODEL_REF_RULE,
        )
    )
    connection_ref: ObjectRef = Field(description="LLMConnection that the job uses.")
    base_model: Annotated[str, Field(min_length=1, max_length=256), _MODEL_NAME] = Field(
        description="Model to start from, for example HuggingFaceTB/SmolLM2-135M-Instruct."
    )
    model_ref: ObjectRef = Field(
        description="FineTunedModel that gets a new version; made when it does not exist. At most 63 characters."
    )
    dataset: Dataset = Field(
        description="Rows of prompt and completion, with an optional system message. Guardrails of a connection or "
        "gateway are not applied to them."
    )
    method: Method = Field(
        "LoRA",
        description="LoRA: small adapters on a frozen base. QLoRA: the same on a base of 4-bit numbers (NF4), in a "
        "quarter of its memory. Full: all weights.",
    )
    lora: LoRA | None = Field(None, description="Adapters, for methods LoRA and QLoRA.")
    hyperparameters: Hyperparameters = Field(Hyperparameters(), description="How to learn.")
    resources: Resources = Field(Resources(), description="What the trainer pod asks for.")
    artifact: ArtifactOptions = Field(ArtifactOptions(), description="What the job leaves.")
    code: Code | None = Field(
        None,
        description="Own Python instead of the built-in recipe, run in the training pod. The connection has to allow "
        "it (fineTuning.allowCode).",
    )
    evaluation: Evaluation = Field(Evaluation(), description="How dataset.test is used.")
    adopt: Adopt | None = Field(
        None,
        description="Make a version of a job that is at the provider already, instead of making one. It is only "
        "looked at, never cancelled; dataset is recorded and not read.",
    )
    budget: Budget | None = Field(None, description="What the job may cost. For providers that bill for tuning.")
    hub_token_secret_ref: SecretKeyRef | None = Field(
        None, description="Hub token for gated base models: a Secret of the job's namespace."
    )
    suspend: bool = Field(False, description="Stop the pod and keep the checkpoint; false goes on from there.")
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31536000)] | None = Field(
        None, description="Seconds of one attempt after which the job fails."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315360000)] | None = Field(
        None, description="Seconds after the end at which the job is deleted. Its model version stays."
    )
    retry_nonce: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Change it to start a failed job again, from its last checkpoint."
    )

    @property
    def adapters(self) -> LoRA | None:
        """The adapters that are trained; None where all weights are."""
        return None if self.method == "Full" else self.lora or LoRA()


class Progress(ApiModel):
    """How far the training is."""

    step: Annotated[int, Field(ge=0)] = Field(description="Optimizer steps done.")
    total_steps: Annotated[int, Field(ge=0)] = Field(description="Optimizer steps in all.")
    epoch: float = Field(0.0, description="Passes over the data done.")
    percent: Annotated[int, Field(ge=0, le=100)] = Field(0, description="Steps done of all, in percent.")
    tokens_per_second: float | None = Field(None, description="Non-padding tokens per second.")
    eta_seconds: int | None = Field(None, description="Seconds left, as an estimate.")
    answers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Answers to the test set so far, of the tuned model and its baselines together."
    )
    total_answers: Annotated[int, Field(ge=0)] | None = Field(None, description="Answers in all.")
    updated_at: Timestamp | None = Field(None, description="When the trainer said so, RFC 3339.")


class LossPoint(ApiModel):
    """One point of a loss curve."""

    step: int = Field(description="Optimizer step.")
    value: float = Field(description="Mean negative log likelihood per completion token, in nats.")


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
        """A failure with the next step that its reason has; a message beyond the field's limit is cut."""
        return cls(reason=reason, message=message[:4096], next_step=NEXT_STEP.get(reason))


class ArtifactRef(ApiModel):
    """Where a version's weights are."""

    uri: Annotated[str, Field(max_length=1024)] | None = Field(None, description="Folder with the weights.")
    provider_model_id: Annotated[str, Field(max_length=512)] | None = Field(
        None, alias="providerModelID", description="The provider's name of the model."
    )
    kind: Literal["Adapter", "Full"] | None = Field(None, description="LoRA adapter, or all weights.")
    architecture: Literal["CausalLM", "Seq2SeqLM"] | None = Field(
        None,
        description="CausalLM: goes on with its prompt. Seq2SeqLM: an encoder-decoder, such as T5.",
    )
    lora_rank: int | None = Field(None, description="Rank of the adapter, where it is one.")
    use_dora: bool | None = Field(None, alias="useDoRA", description="Whether the adapter is a DoRA.")
    bytes: int | None = Field(None, description="Size of the folder in bytes.")
    sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="sha256", description="SHA-256 of the folder's manifest, which has those of the files."
    )


class TrainingResult(ApiModel):
    """What a finished run made."""

    artifact: ArtifactRef = Field(description="The weights.")
    steps: int = Field(description="Optimizer steps.")
    tokens: int | None = Field(None, description="Tokens seen, without padding.")
    train_loss: float | None = Field(None, description="Last training loss.")
    eval_loss: float | None = Field(None, description="Last validation loss.")
    runtime_seconds: int | None = Field(None, description="Seconds of training, all attempts.")
    dataset_sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="datasetSHA256", description="SHA-256 of the training file."
    )


class Cost(ApiModel):
    """What the job costs at its provider."""

    estimated: Money = Field(description="Before the job: tokens of the data, epochs and list price.")
    actual: Money | None = Field(None, description="After the job: tokens that the provider billed, at list price.")
    currency: Annotated[str, Field(max_length=3)] = Field(description="ISO 4217 code.")
    basis: Annotated[str, Field(max_length=512)] = Field(description="How the figures come about.")


class ProviderFile(ApiModel):
    """A converted data file at the provider."""

    split: SplitName = Field(description="Which split it is.")
    id: Annotated[str, Field(min_length=1, max_length=256)] = Field(description="The provider's name of the file.")
    bytes: Annotated[int, Field(ge=0)] = Field(description="Size as uploaded.")
    sha256: Annotated[str, Field(max_length=64)] = Field(alias="sha256", description="SHA-256 as uploaded.")


class ProviderStatus(ApiModel):
    """What runs the job. Written before it is made, so that nothing is ever made twice."""

    name: Annotated[str, Field(max_length=32)] | None = Field(None, description="Provider block of the connection.")
    job_id: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Job of the cluster or of the provider, of the present attempt."
    )
    attempt: Annotated[int, Field(ge=0)] = Field(0, description="Attempts so far, each a new pod.")
    retries: Annotated[int, Field(ge=0)] = Field(0, description="Attempts after a failure, bounded by maxRetries.")
    retry_after: Timestamp | None = Field(None, description="The next attempt starts then, RFC 3339.")
    last_failure: Failure | None = Field(None, description="Why the last attempt ended.")
    artifact_uri: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="Folder of checkpoints and artifact."
    )
    files: Annotated[list[ProviderFile], Field(max_length=3)] | None = Field(
        None, description="Data files at the provider, of the present attempt."
    )
    asked_at: Timestamp | None = Field(
        None, description="When the provider was last asked to make the job; written before it is asked, RFC 3339."
    )


class FineTuneJobStatus(ApiModel):
    """How the job is."""

    observed_generation: int | None = Field(None, description="Generation of the spec that the status speaks of.")
    phase: JobPhase | None = Field(None, description="For people. Machines read conditions.")
    display: Display | None = Field(None, description="What kubectl get shows. Made by finetune_api.display.")
    conditions: Conditions | None = Field(
        None, description="Ready, Reconciling, Stalled, DatasetValid, Complete, Failed, Suspended."
    )
    progress: Progress | None = Field(None, description="How far the training is.")
    loss: Loss | None = Field(None, description="Loss curves.")
    train_loss: float | None = Field(None, description="Last training loss.")
    eval_loss: float | None = Field(None, description="Last validation loss.")
    dataset: DatasetVerdict | None = Field(None, description="What was found in the data.")
    evaluation: EvaluationResult | None = Field(None, description="The tuned model beside its baselines.")
    failure: Failure | None = Field(None, description="What went wrong, where, and what to do.")
    provider: ProviderStatus | None = Field(None, description="What runs the job.")
    cost: Cost | None = Field(None, description="What it costs at a provider that bills for it.")
    result: TrainingResult | None = Field(None, description="What the run made.")
    model_version: Annotated[int, Field(ge=1)] | None = Field(None, description="Version of the FineTunedModel.")
    observed_retry_nonce: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="retryNonce that the present run answers to."
    )
    start_time: Timestamp | None = Field(None, description="When the first pod was asked for, RFC 3339.")
    completion_time: Timestamp | None = Field(None, description="When the job ended, RFC 3339.")


class FineTuneJobManifest(ApiModel):
    """A FineTuneJob as `finetune-trainer check` and `run` read it from a file."""

    api_version: Literal["finetune.dev/v1alpha1"] = Field(description="finetune.dev/v1alpha1")
    kind: Literal["FineTuneJob"] = Field(description="FineTuneJob")
    metadata: "ManifestMetadata" = Field(description="Name and namespace.")
    spec: FineTuneJobSpec = Field(description="What to tune, on what, and how.")


class ManifestMetadata(ApiModel):
    """The part of an object's metadata that matters without a cluster."""

    model_config = ConfigDict(extra="ignore")
    name: Name = Field(description="Name of the job.")
    namespace: Annotated[str, Field(max_length=63)] | None = Field(None, description="Namespace of the job.")
    labels: StringMap | None = Field(None, description="Labels.")


FineTuneJobManifest.model_rebuild()
