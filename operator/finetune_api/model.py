"""FineTunedModel: versions, exactly one of them active."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.base import Account, ApiModel, Conditions, Display, Timestamp
from finetune_api.deployment import DeploymentTemplate
from finetune_api.evaluation import EvaluationResult
from finetune_api.job_status import ArtifactRef


class ModelDeploymentPolicy(ApiModel):
    """Whether and how the active version is served."""

    mode: Literal["Automatic", "Manual"] = Field(
        "Automatic",
        description="Automatic: a ModelDeployment of the model's name is made, and follows the active version. Manual: "
        "you write ModelDeployments.",
    )
    template: DeploymentTemplate = Field(
        DeploymentTemplate(), description="Spec of that ModelDeployment, without modelRef, version and attach."
    )


class FineTunedModelSpec(ApiModel):
    """Which version is active, and what becomes of the others."""

    activation: Literal["Automatic", "IfBetter", "Manual"] = Field(
        "Automatic",
        description="Automatic: the newest version is active. IfBetter: the first version is, and after it a new one "
        "that its evaluation found better than the active version and than its base model. Manual: activeVersion says.",
    )
    active_version: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Number of the version that is active, whatever activation says: change it to roll back. Absent: "
        "by activation.",
    )
    deployment: ModelDeploymentPolicy = Field(ModelDeploymentPolicy(), description="How the model is served.")
    history_limit: Annotated[int, Field(ge=1, le=100)] = Field(
        10, description="Versions kept. The weights of older ones that are neither active nor served are deleted."
    )
    deletion_policy: Literal["Delete", "Retain"] = Field(
        "Retain",
        description="What becomes of all versions' weights, on volumes and at providers, when the object is deleted. "
        "Delete: they go first, after the model's deployments, and the object waits for it.",
    )


class ModelVersion(ApiModel):
    """What one job made."""

    version: Annotated[int, Field(ge=1)] = Field(description="Number, from 1; never given twice.")
    job: Annotated[str, Field(max_length=253)] = Field(description="FineTuneJob that made it.")
    job_uid: Annotated[str, Field(max_length=64)] = Field(description="UID of that job.")
    connection: Annotated[str, Field(max_length=253)] = Field(description="LLMConnection it was made with.")
    place: Annotated[str, Field(max_length=544)] | None = Field(
        None, description="At which provider, and where there, its weights are; absent on this cluster."
    )
    account: Account | None = Field(None, description="In whose account there its weights are.")
    base_model: Annotated[str, Field(max_length=256)] = Field(description="Model it was tuned from.")
    method: Annotated[str, Field(max_length=32)] = Field(description="Method of tuning.")
    lora_rank: int | None = Field(None, description="Rank of the adapter, where it is one.")
    adopted: bool | None = Field(
        None,
        description="Whether its job was made elsewhere. Weights at a provider are deleted only where this says False: "
        "others are not ours, or nobody knows.",
    )
    artifact: ArtifactRef = Field(description="Where the weights are.")
    dataset_sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="datasetSHA256", description="SHA-256 of the training file."
    )
    train_loss: float | None = Field(None, description="Last training loss.")
    eval_loss: float | None = Field(None, description="Last validation loss.")
    evaluation: EvaluationResult | None = Field(None, description="The tuned model beside its baselines.")
    created_at: Timestamp = Field(description="When the job ended, RFC 3339.")
    deployment: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="ModelDeployment that serves it."
    )


class FineTunedModelStatus(ApiModel):
    """Which versions there are."""

    observed_generation: int | None = Field(None, description="Generation of the spec that the status speaks of.")
    conditions: Conditions | None = Field(
        None,
        description="Ready, Reconciling, Stalled, and Cleaned: whether weights that were to be deleted are gone, where "
        "that was in doubt.",
    )
    display: Display | None = Field(None, description="What kubectl get shows. Made by finetune_api.display.")
    active_version: int | None = Field(None, description="The one active version.")
    latest_version: int | None = Field(None, description="The newest version. Numbers are never given twice.")
    base_model: Annotated[str, Field(max_length=256)] | None = Field(None, description="Base of the active version.")
    eval_loss: float | None = Field(None, description="Validation loss of the active version.")
    deployment: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="ModelDeployment that follows the active version."
    )
    versions: Annotated[list[ModelVersion], Field(max_length=200)] | None = Field(
        None, description="Versions, oldest first."
    )
