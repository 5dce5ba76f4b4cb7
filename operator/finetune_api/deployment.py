"""ModelDeployment: serves a model."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from finetune_api.aws import InstanceType
from finetune_api.base import (
    MODEL_REF_RULE,
    Account,
    ApiModel,
    Conditions,
    ModelRef,
    Money,
    Nonce,
    ResourceRequirements,
    SecretKeyRef,
    Timestamp,
    rules,
    shaped,
)

DeploymentPhase = Literal["Pending", "Deploying", "Ready", "Updating", "Idle", "Degraded", "Failed", "Deleting"]

ENGINES = ("huggingFace", "azureOpenAI", "bedrock", "sageMaker")
"""Blocks of a spec that choose what serves."""
_ENGINE_COUNT = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in ENGINES)
ONE_ENGINE = (
    f"({_ENGINE_COUNT}) <= 1",
    "name at most one of huggingFace, azureOpenAI, bedrock and sageMaker (kubectl scale and autoscalers write "
    "huggingFace: they are for servers on this cluster)",
)
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
    """What to do with a deployment that receives no requests."""

    after_seconds: Annotated[int, Field(ge=60, le=31536000)] = Field(
        7200, description="Seconds without a request after which the deployment is idle."
    )
    action: Literal["None", "ScaleToZero", "Delete"] = Field(
        "None",
        description="What to do when idle. ScaleToZero: stop a server on this cluster. Delete: delete a deployment "
        "at a provider. None: only report. The object stays, in phase Idle; a new value of the annotation "
        "finetune.dev/wake, or a new spec, wakes it.",
    )


class LocalServing(ApiModel):
    """A server on this cluster."""

    engine: Literal["Auto", "vLLM", "Transformers"] = Field(
        "Auto",
        description="Auto: vLLM if GPUs are requested, the connection has vllmImage, and vLLM supports the model; "
        "otherwise Transformers.",
    )
    replicas: Annotated[int, Field(ge=0, le=100)] = Field(
        1, description="Number of pods. 0 stops the server and keeps the object."
    )
    gpus: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None,
        description="GPUs per pod (of the connection's gpuResource). 0: serve on CPU. Default: what resources "
        "requests, else the connection's podTemplate.",
    )
    resources: ResourceRequirements | None = Field(
        None, description="Resources per pod. Default: those of the connection's podTemplate."
    )
    max_model_length: Annotated[int, Field(ge=16, le=1048576)] | None = Field(
        None, description="Maximum number of tokens of prompt and answer together. Default: what the model supports."
    )


_NAME_AT_AZURE = shaped(
    "^[A-Za-z0-9][-A-Za-z0-9_.]*$", "write letters, digits, -, _ and . only, beginning with a letter or a digit"
)


class AzureServing(ApiModel):
    """A deployment of Azure OpenAI."""

    name: Annotated[str, Field(min_length=1, max_length=64), _NAME_AT_AZURE] | None = Field(
        None,
        description="Prefix of the deployment's name at Azure: letters, digits, -, _ and . only. Default: made from "
        "the object's name.",
    )
    sku: Literal["Standard", "GlobalStandard", "DeveloperTier", "ProvisionedManaged"] = Field(
        "Standard",
        description="SKU at Azure, which decides where requests are processed and how they are billed: by the hour "
        "and by tokens (Standard, GlobalStandard); by tokens, deleted by Azure after a day (DeveloperTier); by units "
        "(ProvisionedManaged).",
    )
    capacity: Annotated[int, Field(ge=1, le=100000)] = Field(
        1,
        description="Capacity of the SKU: thousands of tokens per minute, which cost nothing by themselves; with "
        "ProvisionedManaged, units that are each billed by the hour.",
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
        "OnDemand",
        description="OnDemand: billed by tokens. ProvisionedThroughput: billed by the hour, whether it is used or not.",
    )
    model_units: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Number of model units; required with ProvisionedThroughput. Each has its price per hour."
    )
    commitment: Literal["NoCommitment", "OneMonth", "SixMonths"] | None = Field(
        None,
        description="Commitment; required with ProvisionedThroughput. During it the deployment cannot be deleted "
        "and is billed. NoCommitment: billed by the hour, can be deleted at any time.",
    )


class SageMakerServing(ApiModel):
    """An endpoint of Amazon SageMaker. Its instances are billed until it is deleted."""

    instance_type: InstanceType = Field(
        description="Instance type, for example ml.g5.xlarge. Required, because it is billed by the hour."
    )
    instances: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Number of instances, each with the whole model."
    )
    max_model_length: Annotated[int, Field(ge=16, le=1048576)] | None = Field(
        None, description="Maximum number of tokens of prompt and answer together. Default: what the model supports."
    )


class DeploymentTemplate(ApiModel):
    """How to serve: the common part of a FineTunedModel's template and a ModelDeployment."""

    model_config = ConfigDict(json_schema_extra=rules(ONE_ENGINE, IDLE_ON_CLUSTER, IDLE_AT_PROVIDER))
    deletion_policy: Literal["Delete", "Retain"] | None = Field(
        None,
        description="What happens to the server, or the deployment at a provider, when the object is "
        "deleted. Default: Delete; attached: Retain.",
    )
    idle: Idle | None = Field(None, description="What to do when there are no requests. Absent: nothing is stopped.")
    hugging_face: LocalServing | None = Field(None, description="A server on this cluster.")
    azure_open_ai: AzureServing | None = Field(None, alias="azureOpenAI", description="A deployment of Azure OpenAI.")
    bedrock: BedrockServing | None = Field(None, description="A deployment of Bedrock.")
    sage_maker: SageMakerServing | None = Field(None, description="An endpoint of Amazon SageMaker.")
    api_key_secret_ref: SecretKeyRef | None = Field(
        None,
        description="Bearer key that clients must send: a Secret of the deployment's namespace. Absent: no "
        "key is required.",
    )


_NAME_AT_PROVIDER = shaped(
    "^[A-Za-z0-9][A-Za-z0-9._-]*$",
    "write the deployment's name alone, as its provider lists it, without ARN, address and white space",
)


class Attach(ApiModel):
    """A deployment that exists already. It is observed, tested with one request, and never changed."""

    id: Annotated[str, Field(min_length=1, max_length=64), _NAME_AT_PROVIDER] = Field(
        description="Name of the deployment at the provider, in the account of the version's LLMConnection. It "
        "must serve a version of modelRef."
    )


class ModelDeploymentSpec(DeploymentTemplate):
    """Which model to serve, where, and how."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ONE_ENGINE,
            IDLE_ON_CLUSTER,
            IDLE_AT_PROVIDER,
            MODEL_REF_RULE,
            (
                "!has(self.version) || (type(self.version) == string ? self.version == 'Active' : self.version >= 1)",
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
    retry_nonce: Nonce = Field(
        None,
        description="Any text; empty counts as absent. Change it to deploy again what a provider has deleted, or what "
        "failed there.",
    )
    attach: Attach | None = Field(
        None,
        description="Use an existing deployment instead of creating one. It is sent one question and never changed.",
    )

    @property
    def keeps(self) -> bool:
        """Whether the deployment outlives the object. An attached one does, unless the user says otherwise."""
        return (self.deletion_policy or ("Retain" if self.attach else "Delete")) == "Retain"


class Endpoint(ApiModel):
    """How to call it."""

    url: Annotated[str, Field(max_length=512)] = Field(description="Base URL; with /v1 for OpenAI's API.")
    model: Annotated[str, Field(max_length=1024)] = Field(
        description="Name for the request's model field; for Converse its modelId, for InvokeEndpoint its EndpointName."
    )
    api: Literal["OpenAI", "Converse", "InvokeEndpoint"] = Field(
        "OpenAI",
        description="API of the endpoint: OpenAI's, or AWS's Converse (bedrock-runtime) or InvokeEndpoint "
        "(sagemaker-runtime, with a body of OpenAI's API).",
    )


class HostedDeployment(ApiModel):
    """A deployment at a provider that bills for it. Recorded before it is created, or when it is attached."""

    name: Annotated[str, Field(max_length=64)] = Field(description="Its name at the provider.")
    version: Annotated[int, Field(ge=1)] = Field(description="Version of the model that it serves.")
    connection: Annotated[str, Field(max_length=253)] = Field(description="LLMConnection with which it was created.")
    place: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="Where the connection led when it was created: it is not looked for elsewhere."
    )
    account: Account | None = Field(None, description="Account in which it was created, as the provider identifies it.")
    created_at: Timestamp = Field(description="When it was requested, RFC 3339.")
    answered: bool = Field(False, description="Whether it has answered a request.")
    silent_since: Timestamp | None = Field(
        None, description="Since when an attached one is asked and has never answered; absent once it has."
    )
    unseen_since: Timestamp | None = Field(
        None,
        description="Since when the provider does not show it; absent while it does.",
    )
    released_at: Timestamp | None = Field(
        None, description="When its deletion was requested; absent once it is known to exist still."
    )
    nonce: Annotated[str, Field(max_length=64)] | None = Field(None, description="retryNonce for which it was created.")
    terms: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="SKU and capacity that were requested last, where a provider changes them in place."
    )
    operation: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="ID by which the provider says why it failed, until it has answered."
    )
    attached: bool = Field(
        True, description="Whether it existed before and was attached; it is then never changed. Absent counts as true."
    )
    per_hour: Money | None = Field(None, description="Price per hour, if known.")
    billed_since: Timestamp | None = Field(None, description="Since when it is billed; absent if it is not.")


class DeploymentCost(ApiModel):
    """The cost of the deployments at a provider. An estimate."""

    per_hour: Money | None = Field(
        None, description="Price per hour; absent if unknown, or if nothing is billed by the hour."
    )
    since_deployed: Money | None = Field(
        None, description="Total so far, including deleted deployments; absent if a part is unknown."
    )
    ended: Money | None = Field(None, description="Part of the total that is from deleted deployments.")
    unpriced: bool | None = Field(None, description="Whether there were deployments whose price is unknown.")
    display: Annotated[str, Field(max_length=32)] | None = Field(
        None,
        description="What kubectl get shows: the price per hour (1.70 USD/h), followed by attached where the "
        "deployment was not made for this object; unknown; or by tokens. Nothing until one that is billed by the hour "
        "is ready.",
    )
    answers: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="Price of answers where they are billed by tokens, or that it is unknown; not in the figures."
    )
    basis: Annotated[str, Field(max_length=512)] | None = Field(None, description="How the figures are calculated.")
    currency: Annotated[str, Field(max_length=3)] = Field(description="Currency, as ISO 4217 code.")


class DeploymentUsage(ApiModel):
    """When it last received a request, as far as known."""

    deployment: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Deployment at a provider that the figures belong to."
    )
    last_request_at: Timestamp | None = Field(
        None,
        description="Time of the last request, or of the start, RFC 3339; updated in steps of a tenth of afterSeconds.",
    )
    counted: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Requests and prompt tokens counted by the servers at that time, for servers that report no time.",
    )
    warned_at: Timestamp | None = Field(
        None, description="When an Event last warned that it is billed while idle, or while this is unknown."
    )


class Sleep(ApiModel):
    """Present while it is stopped because it received no requests."""

    since: Timestamp = Field(description="Since when, RFC 3339.")
    generation: int = Field(description="Generation of the spec at that time: a newer one wakes it.")
    wake: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="Value of the annotation finetune.dev/wake at that time: another value wakes it."
    )


class ModelDeploymentStatus(ApiModel):
    """What is served now."""

    observed_generation: int | None = Field(None, description="Generation of the spec that the status describes.")
    phase: DeploymentPhase | None = Field(
        None, description="State in one word, for people; tools should read conditions."
    )
    conditions: Conditions | None = Field(
        None,
        description="Ready, Reconciling, Stalled; Idle, whether it receives no requests, with spec.idle and at "
        "providers; Retiring, True if the provider withdraws the model or the service.",
    )
    served_version: int | None = Field(None, description="Version that is served now.")
    target_version: int | None = Field(None, description="Version that should be served.")
    engine: Annotated[str, Field(max_length=32)] | None = Field(None, description="Engine that serves.")
    replicas: int | None = Field(None, description="Number of ready pods.")
    selector: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Label selector of the server's pods, for autoscalers."
    )
    endpoint: Endpoint | None = Field(None, description="How to call it.")
    hosted: Annotated[list[HostedDeployment], Field(max_length=16)] | None = Field(
        None, description="Deployments at a provider that belong to this object and are not deleted yet."
    )
    usage: DeploymentUsage | None = Field(None, description="When it was last used.")
    asleep: Sleep | None = Field(
        None, description="Present while the deployment is stopped because it received no requests."
    )
    cost: DeploymentCost | None = Field(None, description="Cost of the deployments at a provider, at list price.")
