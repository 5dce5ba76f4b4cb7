"""ModelDeployment: what answers."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from finetune_api.base import (
    MODEL_REF_RULE,
    Account,
    ApiModel,
    Conditions,
    ModelRef,
    Money,
    ResourceRequirements,
    SecretKeyRef,
    Timestamp,
    rules,
    shaped,
)

DeploymentPhase = Literal["Pending", "Deploying", "Ready", "Updating", "Idle", "Degraded", "Failed", "Deleting"]

_ENGINES = ("huggingFace", "azureOpenAI", "bedrock", "sageMaker")
_ENGINE_COUNT = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in _ENGINES)
ONE_ENGINE = (f"({_ENGINE_COUNT}) <= 1", "name at most one of huggingFace, azureOpenAI, bedrock and sageMaker")
_IDLE_ACTION = "!has(self.idle) || self.idle.action"
IDLE_ON_CLUSTER = (
    f"!has(self.huggingFace) || {_IDLE_ACTION} != 'Delete'",
    "idle.action Delete ends a deployment at a provider; a server on this cluster is stopped with ScaleToZero",
    ".idle.action",
)
IDLE_AT_PROVIDER = (
    f"has(self.huggingFace) || ({_ENGINE_COUNT}) == 0 || {_IDLE_ACTION} != 'ScaleToZero'",
    "idle.action ScaleToZero stops a server on this cluster; a deployment at a provider is ended with Delete, and "
    "made again when it is woken",
    ".idle.action",
)

IntOrString = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 16})]


class Idle(ApiModel):
    """What happens to a deployment that nobody asks anything."""

    after_seconds: Annotated[int, Field(ge=60, le=31536000)] = Field(7200, description="Seconds without a request.")
    action: Literal["None", "ScaleToZero", "Delete"] = Field(
        "None",
        description="What to do then. ScaleToZero: stop a server on this cluster. Delete: end a deployment at a "
        "provider. The object stays, in phase Idle; a changed annotation finetune.dev/wake, or spec, brings it back.",
    )


class LocalServing(ApiModel):
    """A server on this cluster."""

    engine: Literal["Auto", "vLLM", "Transformers"] = Field(
        "Auto",
        description="Auto: vLLM where a GPU is asked for, the connection has its image and the model is one that it "
        "serves; else Transformers.",
    )
    replicas: Annotated[int, Field(ge=0, le=100)] = Field(1, description="Pods that serve. 0: none, the object stays.")
    gpus: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None,
        description="GPUs of a pod, of the connection's gpuResource. 0: serve on CPU. Default: what resources ask for, "
        "else the connection's podTemplate.",
    )
    resources: ResourceRequirements | None = Field(
        None, description="Resources of a pod. Default: those of the connection's podTemplate."
    )
    max_model_length: Annotated[int, Field(ge=16, le=1048576)] | None = Field(
        None, description="Most tokens of prompt and answer together. Default: what the model can."
    )


class AzureServing(ApiModel):
    """A deployment of Azure OpenAI."""

    name: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="What the deployment's name at Azure begins with. Default: made of the object's."
    )
    sku: Literal["Standard", "GlobalStandard", "DeveloperTier", "ProvisionedManaged"] = Field(
        "Standard",
        description="Azure's SKU, which decides where it answers and how it is billed: by the hour and tokens "
        "(Standard, GlobalStandard), by tokens and deleted by Azure after a day (DeveloperTier), "
        "by units (ProvisionedManaged).",
    )
    capacity: Annotated[int, Field(ge=1, le=100000)] = Field(
        1,
        description="Units of the SKU: thousands of tokens a minute, which cost nothing by themselves; with "
        "ProvisionedManaged units that are billed by the hour, each.",
    )


class BedrockServing(ApiModel):
    """A deployment of Bedrock."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.type == 'OnDemand' || (has(self.modelUnits) && has(self.commitment))",
                "type ProvisionedThroughput is billed by the hour: spell out modelUnits and commitment",
            ),
            (
                "self.type != 'OnDemand' || (!has(self.modelUnits) && !has(self.commitment))",
                "type OnDemand is billed by tokens: remove modelUnits and commitment, or write "
                "type: ProvisionedThroughput",
            ),
        )
    )
    type: Literal["OnDemand", "ProvisionedThroughput"] = Field(
        "OnDemand", description="How it is billed: by tokens, or by the hour whether anybody asks or not."
    )
    model_units: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Model units, for ProvisionedThroughput and required there. Each has its price per hour."
    )
    commitment: Literal["NoCommitment", "OneMonth", "SixMonths"] | None = Field(
        None,
        description="For ProvisionedThroughput, and required there: for how long it is bought. Until then it cannot be "
        "deleted, and is billed. NoCommitment: by the hour, deleted at any time.",
    )


class SageMakerServing(ApiModel):
    """An endpoint of Amazon SageMaker. Its instances are billed until it is deleted."""

    instance_type: Annotated[str, Field(max_length=64), shaped("^ml[.]", "write a type such as ml.g5.xlarge")] = Field(
        description="Instance type. It is billed by the hour, so there is no default."
    )
    instances: Annotated[int, Field(ge=1, le=100)] = Field(1, description="Instances, each with the whole model.")
    max_model_length: Annotated[int, Field(ge=16, le=1048576)] | None = Field(
        None, description="Most tokens of prompt and answer together. Default: what the model can."
    )


class DeploymentTemplate(ApiModel):
    """How to serve: what a FineTunedModel's template and a ModelDeployment have in common."""

    model_config = ConfigDict(json_schema_extra=rules(ONE_ENGINE, IDLE_ON_CLUSTER, IDLE_AT_PROVIDER))
    deletion_policy: Literal["Delete", "Retain"] | None = Field(
        None, description="What becomes of the server when the object is deleted. Default: Delete; attached: Retain."
    )
    idle: Idle | None = Field(None, description="What happens when nobody asks anything. Absent: nothing is stopped.")
    hugging_face: LocalServing | None = Field(None, description="A server on this cluster.")
    azure_open_ai: AzureServing | None = Field(None, alias="azureOpenAI", description="A deployment of Azure OpenAI.")
    bedrock: BedrockServing | None = Field(None, description="A deployment of Bedrock.")
    sage_maker: SageMakerServing | None = Field(None, description="An endpoint of Amazon SageMaker.")
    api_key_secret_ref: SecretKeyRef | None = Field(
        None, description="The server asks for this bearer key: a Secret of the deployment's namespace."
    )


class Attach(ApiModel):
    """A deployment that exists already. It is looked at and asked once, and never changed."""

    id: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="The provider's name of the deployment, in the account of the version's LLMConnection. It must "
        "serve a version of modelRef."
    )


class ModelDeploymentSpec(DeploymentTemplate):
    """Which model to serve, and how."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ONE_ENGINE,
            IDLE_ON_CLUSTER,
            IDLE_AT_PROVIDER,
            MODEL_REF_RULE,
            (
                "type(self.version) == string ? self.version == 'Active' : self.version >= 1",
                "version is Active or a positive number: write version: Active, or a number without quotes, such as "
                "version: 2",
                ".version",
            ),
            (
                f"!has(self.attach) || ({_ENGINE_COUNT}) == 0",
                "attach names a cloud deployment that exists; remove huggingFace, azureOpenAI, bedrock and sageMaker, "
                "or remove attach to have one made",
                ".attach",
            ),
            (
                f"!has(self.attach) || {_IDLE_ACTION} == 'None'",
                "an attached deployment is never stopped by the operator: remove idle.action, or attach",
                ".idle.action",
            ),
        )
    )
    model_ref: ModelRef = Field(description="FineTunedModel of the same namespace.")
    version: IntOrString = Field(
        "Active", description="Active follows the model's active version; a number, such as 2, stays with that version."
    )
    retry_nonce: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Any text; change it to deploy again what a provider has deleted."
    )
    attach: Attach | None = Field(
        None, description="A deployment that exists already, instead of one that is made: asked once, never changed."
    )

    @property
    def keeps(self) -> bool:
        """Whether what answers outlives the object. What somebody else has made does, unless they say otherwise."""
        return (self.deletion_policy or ("Retain" if self.attach else "Delete")) == "Retain"


class Endpoint(ApiModel):
    """How to call it."""

    url: Annotated[str, Field(max_length=512)] = Field(description="Base URL; of OpenAI's API with /v1.")
    model: Annotated[str, Field(max_length=253)] = Field(
        description="Name for the request's model field; for Converse its modelId, for InvokeEndpoint its EndpointName."
    )
    api: Literal["OpenAI", "Converse", "InvokeEndpoint"] = Field(
        "OpenAI",
        description="Whose clients can ask: any of OpenAI's API, or AWS's SDKs by bedrock-runtime's Converse or "
        "sagemaker-runtime's InvokeEndpoint, whose body is one of OpenAI's API.",
    )


class HostedDeployment(ApiModel):
    """A deployment at a provider that bills for it. Recorded before it is made, or when it was attached."""

    name: Annotated[str, Field(max_length=64)] = Field(description="Its name at the provider.")
    version: Annotated[int, Field(ge=1)] = Field(description="Version of the model that it serves.")
    connection: Annotated[str, Field(max_length=253)] = Field(description="LLMConnection that it was made with.")
    place: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Where at the provider the connection led then: it is looked for nowhere else."
    )
    account: Account | None = Field(None, description="In whose account there it was made, as the provider tells it.")
    created_at: Timestamp = Field(description="When it was asked for, RFC 3339.")
    answered: bool = Field(False, description="Whether it has answered: from then on the provider has it, or had it.")
    unseen_since: Timestamp | None = Field(
        None,
        description="Since when the provider does not show it, anew from when it is asked for; absent while it does.",
    )
    released_at: Timestamp | None = Field(
        None, description="When its deletion was asked for: then it is not missed. Absent once it is known to stand."
    )
    nonce: Annotated[str, Field(max_length=64)] | None = Field(None, description="retryNonce that it was made for.")
    terms: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="What was asked for last, where a provider changes it in place: SKU and capacity."
    )
    operation: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="By what the provider tells why it failed, until it has answered."
    )
    attached: bool = Field(
        True, description="Whether it was there before: then it is never changed. Absent, it is taken to have been."
    )
    per_hour: Money | None = Field(None, description="Its price per hour, where that is known.")
    billed_since: Timestamp | None = Field(None, description="From when on it is billed; absent where it is not.")


class DeploymentCost(ApiModel):
    """What it costs while it stands. An estimate."""

    per_hour: Money | None = Field(None, description="Price per hour; absent where it is not known.")
    since_deployed: Money | None = Field(
        None, description="Price so far, with that of deployments that are gone; absent where a part is not known."
    )
    ended: Money | None = Field(None, description="The part of it that deployments have cost which are gone.")
    unpriced: bool | None = Field(None, description="Whether some are gone whose price was not known.")
    display: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="What kubectl get shows: the price per hour, or unknown."
    )
    basis: Annotated[str, Field(max_length=512)] | None = Field(None, description="How the figures come about.")
    currency: Annotated[str, Field(max_length=3)] = Field(description="ISO 4217 code.")


class DeploymentUsage(ApiModel):
    """When it was last asked, as far as that is known."""

    deployment: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Deployment at a provider that this speaks of."
    )
    last_request_at: Timestamp | None = Field(
        None, description="The last request, or the start, RFC 3339; written when it has moved by a tenth of the limit."
    )
    counted: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Requests and tokens of prompts that servers had counted by then, where they tell no time."
    )
    warned_at: Timestamp | None = Field(None, description="When an Event last said that it is billed while idle.")


class Sleep(ApiModel):
    """It was stopped because nobody asked it."""

    since: Timestamp = Field(description="When that was decided, RFC 3339.")
    generation: int = Field(description="Generation of the spec by then: another one wakes it.")
    wake: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Annotation finetune.dev/wake by then: another value wakes it."
    )


class ModelDeploymentStatus(ApiModel):
    """What answers now."""

    observed_generation: int | None = Field(None, description="Generation of the spec that the status speaks of.")
    phase: DeploymentPhase | None = Field(None, description="For people. Machines read conditions.")
    conditions: Conditions | None = Field(None, description="Ready, Reconciling, Stalled.")
    served_version: int | None = Field(None, description="Version that answers.")
    target_version: int | None = Field(None, description="Version that is meant to answer.")
    engine: Annotated[str, Field(max_length=32)] | None = Field(None, description="Engine that serves.")
    replicas: int | None = Field(None, description="Pods that answer.")
    selector: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Label selector of the server's pods, by which an autoscaler finds them."
    )
    endpoint: Endpoint | None = Field(None, description="How to call it.")
    hosted: Annotated[list[HostedDeployment], Field(max_length=16)] | None = Field(
        None, description="Deployments at a provider that are this object's and are not gone yet."
    )
    usage: DeploymentUsage | None = Field(None, description="When it was last asked.")
    asleep: Sleep | None = Field(None, description="Set while it is stopped because nobody asked it.")
    cost: DeploymentCost | None = Field(None, description="What it costs while it stands.")
