"""FineTuneJob: one tuning run. Its spec is immutable except suspend, ttlSecondsAfterFinished and retryNonce."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_api.aws import InstanceType
from finetune_api.base import (
    MODEL_REF_RULE,
    ApiModel,
    ConfigMapKeyRef,
    Cores,
    ModelRef,
    Name,
    Never,
    Nonce,
    ObjectRef,
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
    "baseModel is the name of a model, such as HuggingFaceTB/SmolLM2-135M-Instruct, without white space, and no path",
)


_ALL_LINEAR = Never(
    "^(?i:all([_ ]?linear)?)$|^A(?i:ll-linear)$|^(?i:all-)L(?i:inear)$",
    "write all-linear in lower case and with a hyphen, or names of modules with commas",
)

_NAMES_OF_MODULES = shaped(
    "^[ ,]*[A-Za-z0-9_.-]+( *,[ ,]*[A-Za-z0-9_.-]+)*[ ,]*$",
    "targetModules is all-linear, or names of modules with commas, such as q_proj,v_proj: not a pattern or a list",
)

_ALL_AMONG_NAMES = Never(
    "all-linear[ ,]*,[ ,]*[A-Za-z0-9_]|[A-Za-z0-9_][ ,]*,[ ,]*all-linear",
    "write all-linear alone, or only names of modules",
)


class LoRA(ApiModel):
    """Low-rank adapters."""

    r: Annotated[int, Field(ge=1, le=512)] = Field(16, description="Rank of the adapters.")
    alpha: Annotated[int, Field(ge=1, le=2048)] = Field(
        32, description="Scaling: the adapters' output is multiplied by alpha / r."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Dropout: fraction of the adapters' input that is dropped at random during training."
    )
    target_modules: Annotated[
        str, Field(min_length=1, max_length=512), _NAMES_OF_MODULES, _ALL_LINEAR, _ALL_AMONG_NAMES
    ] = Field(
        "all-linear",
        description="all-linear, or a comma-separated list of module names, for example q_proj,v_proj. No patterns.",
    )
    use_rslora: bool = Field(
        False,
        alias="useRSLoRA",
        description="rsLoRA: scale the adapters by alpha / √r instead of alpha / r, so that large ranks train as well.",
    )
    use_dora: bool = Field(
        False,
        alias="useDoRA",
        description="DoRA: train magnitude and direction of the weights separately. Slower; better at small ranks. "
        "Not served by vLLM.",
    )
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = Field(
        None,
        alias="loraPlusRatio",
        description="LoRA+: the B matrices of the adapters learn at learningRate times this factor, for example "
        "16. Absent: A and B learn at learningRate.",
    )

    @property
    def targets(self) -> str | list[str]:
        """In peft's form: `all-linear` or a list of names."""
        names = [name.strip() for name in self.target_modules.split(",") if name.strip()]
        return names[0] if names == ["all-linear"] else names


class Hyperparameters(ApiModel):
    """How to train."""

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
        3, description="Passes over the training set. Fractions are allowed, for example 0.5."
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Peak learning rate. Default: 2e-4 for LoRA and QLoRA, 2e-5 for Full; with preference 1e-5 and "
        "1e-6.",
    )
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None,
        description="Factor on the provider's own learning rate, for providers that accept it instead of "
        "learningRate (OpenAI and compatible services, Azure OpenAI, Claude at Bedrock). Default: the provider's "
        "choice.",
    )
    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(
        16, description="Rows per optimizer step, over all GPUs and nodes together."
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None,
        description="Rows per forward pass on one GPU; must divide batchSize. Changes memory and speed, not "
        "the result. Default: chosen by the trainer.",
    )
    max_sequence_length: Annotated[int, Field(ge=8, le=1048576)] = Field(
        1024,
        description="Maximum number of tokens of a row, prompt and completion together (by default no more than the "
        "base model has positions for); longer rows are truncated at the end.",
    )
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.03, description="Fraction of the steps during which the learning rate rises to its peak."
    )
    schedule: Literal["Cosine", "Linear", "Constant"] = Field(
        "Cosine", description="Learning rate after the warmup: Cosine and Linear decay to zero, Constant stays."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="Weight decay of AdamW.")
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = Field(
        1.0, description="Gradient clipping: gradients with a larger global norm are scaled down to it."
    )
    seed: Annotated[int, Field(ge=0, le=4294967295)] = Field(
        0,
        description="Random seed for the order of the data, dropout, the adapters' initial weights and the "
        "choice of few-shot examples.",
    )
    precision: Literal["Auto", "BFloat16", "Float32"] = Field(
        "Auto",
        description="Number format of frozen weights and of computations. Auto: BFloat16 on GPUs that have it, and "
        "for adapters on a single CPU node that multiplies it (AMX, AVX-512 BF16, Arm BF16); otherwise Float32.",
    )
    packing: bool = Field(
        True,
        description="Concatenate the rows of a step without padding; attention keeps them apart, and the result is "
        "the same. If false, or if the model does not support it, rows of similar length are padded.",
    )
    checkpoint_steps: Annotated[int, Field(ge=1, le=1000000)] | None = Field(
        None,
        description="Optimizer steps between checkpoints. Default: chosen so that there are about ten checkpoints.",
    )

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError("microBatchSize must be a divisor of batchSize")
        return self

    def is_set(self, name: str) -> bool:
        """Whether a field has another value than the API server's default."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)


class ArtifactOptions(ApiModel):
    """The tuned weights: merged or not, and where they are pushed."""

    merge: bool = Field(
        False,
        description="Merge the adapter into the base model: the artifact is a whole model in the base model's "
        "number format (also with QLoRA), and as large as the base model. If false, the artifact is the adapter.",
    )
    push: Push | None = Field(
        None,
        description="Registries and hubs to which the artifact is also pushed. A failed push does not fail the "
        "job: the version exists, and status.result.pushes has the cause.",
    )


class Code(ApiModel):
    """The user's own Python code."""

    config_map_ref: ConfigMapKeyRef = Field(
        description="ConfigMap of the job's namespace, and the key that is run. The other keys are in the same "
        "folder and can be imported."
    )


class Resources(ApiModel):
    """Resources of each trainer pod; the connection's podTemplate provides those that are left out."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = Field(
        1,
        description="Number of pods that train together, each with these resources; at SageMaker, number of "
        "instances. More than 1 needs JobSet on the cluster, and volumes that pods on several nodes can mount "
        "(ReadWriteMany).",
    )
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None,
        description="GPUs per pod (of the connection's gpuResource). 0: train on CPU. Default: what "
        "podTemplate.resources of the connection requests.",
    )
    cpu: Cores | None = Field(
        None,
        description="CPU per pod, as request and limit, for example 2, or 500m for half a CPU. Default: the "
        "connection's podTemplate.",
    )
    memory: Size | None = Field(
        None,
        description="Memory per pod, as request and limit, for example 16Gi. Default: the connection's podTemplate.",
    )
    ephemeral_storage: Size | None = Field(
        None,
        description="Scratch space per pod on its node's disk, as request and limit, for example 50Gi. Default: "
        "the connection's podTemplate.",
    )
    instance_type: InstanceType | None = Field(
        None,
        description="Instance type at SageMaker, one of the connection's instanceTypes, for example "
        "ml.g5.xlarge. Default: the first of them.",
    )

    @property
    def ranks(self) -> int:
        """Processes that train, as far as the job's own spec tells."""
        return self.nodes * max(self.gpus_per_node or 1, 1)


class Adopt(ApiModel):
    """A job that was created elsewhere."""

    job_id: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        shaped(
            "^[A-Za-z0-9_:@=+-]+([./][A-Za-z0-9_:@=+-]+)*$",
            "write the job's ID as the provider shows it, such as ftjob-abc123, or at AWS its ARN or its name",
        ),
    ] = Field(description="ID of the job at the provider, for example ftjob-abc123; at AWS its ARN or its name.")


class Budget(ApiModel):
    """The maximum cost at a provider that bills for the job."""

    max_cost: Annotated[
        str,
        Field(max_length=24),
        shaped(
            r"^[0-9]{1,12}([.][0-9]{1,6})?$",
            'write the amount alone, [0-9] and a point in quotes, such as "25.00"; the currency is a field of its own',
        ),
    ] = Field(
        description='Maximum estimated cost, in quotes, for example "25.00". A job whose estimate is higher is '
        "refused before any call to the provider."
    )
    currency: Annotated[
        str, Field(min_length=3, max_length=3), shaped("^[A-Z]{3}$", "write the ISO 4217 code, such as USD")
    ] = Field("USD", description="Currency, as ISO 4217 code.")


_NO_DEFAULTS = "!has(self.suspend)"
"""If `kind` is misspelt in case, the API server sets no defaults, and only that is to be reported."""


class FineTuneJobSpec(ApiModel):
    """What to tune, on what, and how."""

    # The API server evaluates these rules at each write of a status, and each access to an object builds a map of all
    # its fields. So each rule is where it needs the fewest accesses, and first tests what most jobs do not have.
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
    connection_ref: ObjectRef = Field(
        description="LLMConnection to use: where the model is trained, and with which image and credentials."
    )
    base_model: Annotated[str, Field(min_length=1, max_length=256), _MODEL_NAME] = Field(
        description="Base model, for example HuggingFaceTB/SmolLM2-135M-Instruct; at a provider, the provider's "
        "name or ID of it."
    )
    model_ref: ModelRef = Field(
        description="FineTunedModel of the job's namespace that gets a new version; created if it does not exist."
    )
    dataset: Dataset = Field(
        description="Training, validation and test data: rows of prompt and completion, with an optional system "
        "message. Guardrails of a connection or gateway are not applied to them."
    )
    method: Method = Field(
        "LoRA",
        description="LoRA: train small adapters on a frozen base model. QLoRA: the same on a base model quantised "
        "to 4 bits (NF4), which takes a quarter of its memory. Full: train all weights.",
    )
    lora: LoRA | None = Field(
        None, description="Settings of the adapters, for methods LoRA and QLoRA. Absent: the defaults of its fields."
    )
    preference: Preference | None = Field(
        None,
        description="Preference tuning (DPO), with any method: rows have prompt, chosen and rejected. Write {} for "
        "the defaults. Absent: learn completions. Not available at Bedrock; at OpenAI and Azure OpenAI for the base "
        "models that support it there.",
    )
    hyperparameters: Hyperparameters = Field(
        Hyperparameters(),
        description="Hyperparameters. Providers support some of them; the others are rejected, not ignored.",
    )
    resources: Resources = Field(
        Resources(), description="Resources of each trainer pod. Default: the connection's podTemplate."
    )
    artifact: ArtifactOptions = Field(
        ArtifactOptions(), description="The tuned weights: merged or not, and where they are pushed."
    )
    code: Code | None = Field(
        None,
        description="Your own Python code instead of the built-in recipe, run in the training pod. The connection "
        "must allow it (fineTuning.allowCode).",
    )
    evaluation: Evaluation = Field(
        Evaluation(),
        description="How the tuned model is evaluated on dataset.test, and against which baselines. Has no effect "
        "without dataset.test.",
    )
    trackers: Trackers | None = Field(
        None,
        description="Experiment trackers that receive losses and other metrics. A tracker that fails does not stop "
        "the training: see status.trackers.",
    )
    adopt: Adopt | None = Field(
        None,
        description="Make a version of an existing job at the provider instead of starting one. That job is only "
        "observed, never cancelled; dataset is recorded but not read.",
    )
    budget: Budget | None = Field(None, description="Maximum cost of the job, for providers that bill for tuning.")
    hub_token_secret_ref: SecretKeyRef | None = Field(
        None, description="Hugging Face token for gated base models: a Secret of the job's namespace, and its key."
    )
    suspend: bool = Field(
        False,
        description="true stops the job and keeps its checkpoint; false resumes it. At "
        "providers other than SageMaker resuming starts from the beginning.",
    )
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31536000)] | None = Field(
        None, description="Seconds after which an attempt is stopped and the job fails. Default: no limit."
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315360000)] | None = Field(
        None,
        description="Seconds after its end when the job is deleted; its model version stays. Default: the job is kept.",
    )
    retry_nonce: Nonce = Field(
        None,
        description="Any text; empty counts as absent. Change it to retry a failed job, from its last checkpoint. A "
        "job that has succeeded is not started again.",
    )

    @property
    def adapters(self) -> LoRA | None:
        """The adapters to train; None if all weights are trained."""
        return None if self.method == "Full" else self.lora or LoRA()

    @property
    def data(self) -> Dataset:
        """The dataset as it is read: with preference, its columns name two answers."""
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

    name: Name = Field(description="Name of the object.")
    namespace: Annotated[str, Field(max_length=63)] | None = Field(None, description="Namespace of the object.")
    labels: StringMap | None = Field(None, description="Labels.")
    annotations: dict[str, str] | None = Field(None, description="Annotations.")


FineTuneJobManifest.model_rebuild()
