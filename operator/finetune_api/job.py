"""FineTuneJob: one run of tuning. Its spec is immutable but for suspend, ttlSecondsAfterFinished and retryNonce."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api.base import (
    MODEL_REF_RULE,
    ApiModel,
    ConfigMapKeyRef,
    ModelRef,
    Name,
    ObjectRef,
    Quantity,
    SecretKeyRef,
    Size,
    StringMap,
    rules,
    shaped,
)
from finetune_api.dataset import Dataset
from finetune_api.evaluation import Evaluation
from finetune_api.preference import Preference
from finetune_api.push import Push
from finetune_api.trackers import Trackers

Method = Literal["LoRA", "QLoRA", "Full"]
MUTABLE_FIELDS = ("suspend", "ttlSecondsAfterFinished", "retryNonce")

_MODEL_NAME = shaped(
    "^[A-Za-z0-9][A-Za-z0-9_:@-]*([./][A-Za-z0-9_:@-]+)*$",
    "baseModel is the name of a model, such as HuggingFaceTB/SmolLM2-135M-Instruct, and no path",
)


class LoRA(ApiModel):
    """Low-rank adapters."""

    r: Annotated[int, Field(ge=1, le=512)] = Field(16, description="Rank of the adapters.")
    alpha: Annotated[int, Field(ge=1, le=2048)] = Field(32, description="Scale: adapters count alpha / r.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Part of the adapters' input that is left out at random while they learn, 0 to less than 1."
    )
    target_modules: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        "all-linear",
        description="all-linear, or names of modules as one text with commas between them, such as q_proj,v_proj.",
    )
    use_rslora: bool = Field(
        False,
        alias="useRSLoRA",
        description="rsLoRA: adapters count alpha / √r instead of alpha / r, so that a large rank learns as well.",
    )
    use_dora: bool = Field(
        False,
        alias="useDoRA",
        description="DoRA: lengths and directions of the weights are learnt apart. Slower; better at small ranks.",
    )
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = Field(
        None,
        alias="loraPlusRatio",
        description="LoRA+: the adapters' second halves (B) learn at learningRate times this, for example 16. "
        "Absent: both halves learn at learningRate.",
    )

    @property
    def targets(self) -> str | list[str]:
        """As peft takes it: `all-linear` or a list of names."""
        if self.target_modules == "all-linear":
            return self.target_modules
        return [name.strip() for name in self.target_modules.split(",") if name.strip()]


class Hyperparameters(ApiModel):
    """How to learn."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.microBatchSize) || self.batchSize % self.microBatchSize == 0",
                "hyperparameters.microBatchSize must be a divisor of hyperparameters.batchSize",
                ".microBatchSize",
            )
        )
    )
    epochs: Annotated[float, Field(gt=0, le=1000)] = Field(
        3, description="Passes over the training set; a fraction is a part of one."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Peak learning rate. Default: 2e-4 for LoRA and QLoRA, 2e-5 for Full; with preference 1e-5 and "
        "1e-6.",
    )
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None,
        description="Factor on the provider's own rate, for providers that take it instead of learningRate "
        "(OpenAI and its kin, Azure OpenAI, Claude at Bedrock). Default: the provider's choice.",
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(16, description="Rows per optimizer step, all GPUs.")
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Rows per forward pass on one GPU; a divisor of batchSize. Default: chosen by the trainer."
    )
    max_sequence_length: Annotated[int, Field(ge=8, le=1048576)] = Field(
        1024, description="Most tokens of a row, prompt and completion together; the end of a longer one is cut."
    )
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.03, description="Part of the steps in which the learning rate rises, 0 to 1."
    )
    schedule: Literal["Cosine", "Linear", "Constant"] = Field(
        "Cosine", description="How the learning rate goes on after it has risen: Cosine and Linear fall to zero."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Weight decay of AdamW, decoupled from the gradient."
    )
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="Most that the norm of all gradients together may be; larger ones are scaled down to it."
    )
    seed: Annotated[int, Field(ge=0, le=4294967295)] = Field(
        0, description="Seed of the data's order, dropout, the adapters' first weights and few-shot examples."
    )
    precision: Literal["Auto", "BFloat16", "Float32"] = Field(
        "Auto",
        description="Numbers that frozen weights are kept in and products are computed in. Auto: bfloat16 where the "
        "GPU has it, and for adapters on one CPU node that multiplies it (AMX, AVX-512 BF16, Arm BF16); else float32.",
    )
    packing: bool = Field(
        True,
        description="Rows of a step stand behind one another without padding, and attention keeps them apart. Off, and "
        "where the model's attention cannot: passes of rows of like lengths, padded.",
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
    push: Push | None = Field(
        None,
        description="Where the artifact goes besides the place where it is kept. A push that fails loses nothing: the "
        "version stands, and status.result.pushes says why.",
    )


class Code(ApiModel):
    """The user's own Python."""

    config_map_ref: ConfigMapKeyRef = Field(
        description="ConfigMap of the job's namespace and its key. All its keys are beside the code when it runs."
    )


class Resources(ApiModel):
    """What each trainer pod asks for; the connection's podTemplate fills what is left out."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = Field(
        1,
        description="Pods that train together, each with what is asked for here; at SageMaker instances. More than one "
        "pod needs JobSet on the cluster, and volumes that pods of several nodes can mount (ReadWriteMany).",
    )
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None,
        description="GPUs of a pod, of the connection's gpuResource; each trains with its own share of a step's rows. "
        "0: train on CPU. Default: what the connection's podTemplate.resources ask for.",
    )
    cpu: Quantity | None = Field(
        None,
        description="CPU of a pod, as request and limit, for example 2 or 500m, which is half a CPU. Default: the "
        "connection's podTemplate.",
    )
    memory: Size | None = Field(
        None,
        description="Memory of a pod, as request and limit, for example 16Gi. Default: the connection's podTemplate.",
    )
    ephemeral_storage: Size | None = Field(
        None,
        description="Scratch space of a pod on its node's disk, as request and limit, for example 50Gi. Default: the "
        "connection's podTemplate.",
    )
    instance_type: (
        Annotated[str, Field(max_length=64), shaped("^ml[.]", "write a type such as ml.g5.xlarge")] | None
    ) = Field(None, description="Instance type at SageMaker, one of the connection's. Default: its first.")

    @property
    def ranks(self) -> int:
        """Processes that train, as far as the job itself says it."""
        return self.nodes * max(self.gpus_per_node or 1, 1)


class Adopt(ApiModel):
    """A job that was made elsewhere."""

    job_id: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        description="The provider's name of the job, such as ftjob-abc123; at AWS its ARN or its name."
    )


class Budget(ApiModel):
    """What the job may cost at a provider that bills for it."""

    max_cost: Annotated[
        str,
        Field(max_length=24),
        shaped(
            r"^[0-9]{1,12}([.][0-9]{1,6})?$",
            'write the amount alone, [0-9] and a point in quotes, such as "25.00"; the currency is a field of its own',
        ),
    ] = Field(
        description='Most that the estimate may be, as text in quotes, such as "25.00"; above it the job is refused '
        "before any call."
    )
    currency: Annotated[
        str, Field(min_length=3, max_length=3), shaped("^[A-Z]{3}$", "write the ISO 4217 code, such as USD")
    ] = Field("USD", description="ISO 4217 code.")


_NO_DEFAULTS = "!has(self.suspend)"
"""The API server fills in none where `kind` is written in other letters, and then only that is to be said."""


class FineTuneJobSpec(ApiModel):
    """What to tune, on what, and how."""

    # The API server evaluates these at each write of a status, and each look-up in an object builds a map of all its
    # fields. So a rule stands where it looks up least, and asks first for what most jobs do not have.
    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.lora) || self.method != 'Full'",
                "lora has no meaning with this method: remove it or set method: LoRA or QLoRA",
                ".lora",
            ),
            (
                f"{_NO_DEFAULTS} || self.method != 'Full' || !self.artifact.merge",
                "artifact.merge has no meaning with method Full, which leaves a whole model: remove it",
                ".artifact.merge",
            ),
            (
                f"{_NO_DEFAULTS} || [self.resources].all(r, r.nodes == 1 && !has(r.gpusPerNode) || "
                "r.nodes * (has(r.gpusPerNode) && r.gpusPerNode > 1 ? r.gpusPerNode : 1) <= "
                "self.hyperparameters.batchSize)",
                "hyperparameters.batchSize must be at least resources.nodes times gpusPerNode: a step's rows are "
                "shared out whole",
                ".hyperparameters.batchSize",
            ),
            (
                "!has(self.code) || self.resources.nodes == 1",
                "code runs in one pod: remove resources.nodes, or remove code for the built-in recipe",
                ".resources.nodes",
            ),
            (
                "!has(self.code) || !has(self.trackers)",
                "trackers follow the built-in recipe: remove them and log from your own code",
                ".trackers",
            ),
            (
                f"{_NO_DEFAULTS} || has(self.preference) || "
                "[self.dataset.columns].all(c, !has(c.chosen) && !has(c.rejected))",
                "dataset.columns.chosen and rejected are for learning from two answers: write preference: {}, or "
                "remove them",
                ".dataset.columns",
            ),
            (
                "!has(self.preference) || self.dataset.columns.completion == 'completion'",
                "dataset.columns.completion has no meaning with preference, whose answers are columns.chosen and "
                "rejected: remove it, or remove preference",
                ".dataset.columns.completion",
            ),
            (
                "!has(self.preference) || !has(self.code)",
                "preference is a part of the built-in recipe: remove it, or remove code",
                ".preference",
            ),
            MODEL_REF_RULE,
        )
    )
    connection_ref: ObjectRef = Field(description="LLMConnection that the job uses.")
    base_model: Annotated[str, Field(min_length=1, max_length=256), _MODEL_NAME] = Field(
        description="Model to start from, for example HuggingFaceTB/SmolLM2-135M-Instruct."
    )
    model_ref: ModelRef = Field(
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
    lora: LoRA | None = Field(
        None, description="Adapters, for methods LoRA and QLoRA. Absent: the defaults of its fields."
    )
    preference: Preference | None = Field(
        None,
        description="Learn which of two answers is the better one (DPO), by any method: rows have prompt, chosen and "
        "rejected. Write {} for the defaults. Absent: completions are learnt. Not at Bedrock; at OpenAI and Azure "
        "OpenAI with the base models that have it there.",
    )
    hyperparameters: Hyperparameters = Field(
        Hyperparameters(), description="How to learn. Providers take some of them; what they cannot heed is refused."
    )
    resources: Resources = Field(
        Resources(), description="What each trainer pod asks for. Default: the connection's podTemplate."
    )
    artifact: ArtifactOptions = Field(ArtifactOptions(), description="What the job leaves.")
    code: Code | None = Field(
        None,
        description="Own Python instead of the built-in recipe, run in the training pod. The connection has to allow "
        "it (fineTuning.allowCode).",
    )
    evaluation: Evaluation = Field(
        Evaluation(),
        description="How the tuned model is measured on dataset.test, and beside what. Without dataset.test it is not.",
    )
    trackers: Trackers | None = Field(
        None,
        description="Experiment trackers that follow the training. They may fail without harm: see status.trackers.",
    )
    adopt: Adopt | None = Field(
        None,
        description="Make a version of a job that is at the provider already, instead of making one. It is only "
        "looked at, never cancelled; dataset is recorded and not read.",
    )
    budget: Budget | None = Field(None, description="What the job may cost. For providers that bill for tuning.")
    hub_token_secret_ref: SecretKeyRef | None = Field(
        None, description="Hugging Face token for gated base models: a Secret of the job's namespace and its key."
    )
    suspend: bool = Field(False, description="Stop the pod and keep the checkpoint; false goes on from there.")
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31536000)] | None = Field(
        None, description="Seconds of one attempt after which the job fails. Default: no limit."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315360000)] | None = Field(
        None,
        description="Seconds after its end at which the job is deleted. Its model version stays. Default: it is kept.",
    )
    retry_nonce: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Any text; change it to start a failed job again, from its last checkpoint."
    )

    @property
    def adapters(self) -> LoRA | None:
        """The adapters that are trained; None where all weights are."""
        return None if self.method == "Full" else self.lora or LoRA()

    @property
    def data(self) -> Dataset:
        """The dataset as it is read: with preference its columns name two answers."""
        if self.preference is None:
            return self.dataset
        return self.dataset.model_copy(update={"columns": self.dataset.columns.of_pairs()})


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
    annotations: dict[str, str] | None = Field(None, description="Annotations.")


FineTuneJobManifest.model_rebuild()
