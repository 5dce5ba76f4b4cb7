"""Azure OpenAI's block of an LLMConnection, and what its AzureML workspace leads to."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from finetune_api.base import NO_PLACEHOLDER, ApiModel, HttpUrl, Name, Never, ObjectRef, SecureUrl, rules, shaped

_SubscriptionID = Annotated[
    str,
    Field(max_length=64),
    shaped(
        "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        "write the subscription's ID, not its name, as `az account show --query id` prints it: "
        "11111111-2222-3333-4444-555555555555",
    ),
    NO_PLACEHOLDER,
]
_ONE_NAME = shaped(
    r"^[^/\s\"\x27]+$",
    "write the name alone, without the path of the whole resource ID, quotation marks and white space",
)


class AzureCredentials(ApiModel):
    """Client secret or workload identity."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.secretRef) != (has(self.workloadIdentity) && self.workloadIdentity)",
                "credentials are either secretRef or workloadIdentity: true",
            )
        )
    )
    secret_ref: ObjectRef | None = Field(
        None, description="Secret of the operator's namespace with tenantID, clientID and clientSecret."
    )
    workload_identity: bool | None = Field(
        None, description="Use the workload identity of the operator's pod. Absent: secretRef has the keys."
    )


class AzureWorkspace(ApiModel):
    """An AzureML workspace connection that knows endpoint and account."""

    name: Annotated[Name, _ONE_NAME] = Field(description="Name of the AzureML workspace.")
    connection: Annotated[Name, _ONE_NAME] = Field(description="Name of the connection in the workspace.")


_OF_A_CALL = Never(
    "/openai(/.*)?$", "write the resource's endpoint alone, such as https://NAME.openai.azure.com, without /openai/..."
)


class AzureEvaluation(ApiModel):
    """Deployments that are made for an evaluation, and deleted after it."""

    sku: Literal["Standard", "GlobalStandard", "DeveloperTier"] | None = Field(
        None,
        description="SKU of the tuned model's deployment. DeveloperTier has no price per hour, but no guarantee of "
        "data residency. Default: as trainingType, so that questions stay where the training data are.",
    )
    capacity: Annotated[int, Field(ge=1, le=100000)] = Field(
        50, description="Capacity of each deployment, in thousands of tokens per minute; it costs nothing by itself."
    )


class AzureOpenAI(ApiModel):
    """Azure OpenAI: tuning by its data plane, deployments by ARM."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.workspace) || (has(self.endpoint) && has(self.account))",
                "azureOpenAI needs endpoint and account, or a workspace that knows them",
            )
        )
    )
    endpoint: Annotated[SecureUrl, _OF_A_CALL] | None = Field(
        None,
        description="Endpoint of the Azure OpenAI resource, for example "
        "https://NAME.openai.azure.com; optional with workspace.",
    )
    subscription_id: _SubscriptionID = Field(
        description="ID of the Azure subscription, for example 11111111-2222-3333-4444-555555555555."
    )
    resource_group: Annotated[str, Field(max_length=90), _ONE_NAME, NO_PLACEHOLDER] = Field(
        description="Resource group of the account."
    )
    account: Annotated[str, Field(max_length=64), _ONE_NAME, NO_PLACEHOLDER] | None = Field(
        None, description="Azure OpenAI account; optional with workspace."
    )
    workspace: AzureWorkspace | None = Field(
        None,
        description="AzureML workspace in the same resource group from which endpoint and account are resolved; "
        "looked up every hour. endpoint and account, if set, take precedence.",
    )
    credentials: AzureCredentials = Field(description="Credentials of the operator; exactly one field.")
    authority_host: SecureUrl | None = Field(
        None, description="URL of Entra ID, for sovereign clouds. Default: https://login.microsoftonline.com."
    )
    management_endpoint: SecureUrl | None = Field(
        None, description="URL of Azure Resource Manager, for sovereign clouds. Default: https://management.azure.com."
    )
    training_type: Literal["Standard", "GlobalStandard", "DeveloperTier"] = Field(
        "Standard",
        description="Azure's training type, which decides where jobs run and at which price. Not every "
        "model supports every type.",
    )
    evaluation: AzureEvaluation = Field(
        AzureEvaluation(), description="Temporary deployments for the evaluation on dataset.test."
    )


class AzureResolved(ApiModel):
    """Where an AzureML workspace connection leads, by ARM's latest answer."""

    workspace: Name = Field(description="Name of the AzureML workspace.")
    connection: Name = Field(description="Name of the connection in the workspace.")
    endpoint: HttpUrl = Field(description="Endpoint of the account.")
    subscription_id: Annotated[str, Field(max_length=64)] = Field(description="Subscription of the account.")
    resource_group: Annotated[str, Field(max_length=90)] = Field(description="Resource group of the account.")
    account: Annotated[str, Field(max_length=64)] = Field(description="Azure OpenAI account.")
