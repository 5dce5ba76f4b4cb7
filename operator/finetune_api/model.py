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
        description="Automatic: a ModelDeployment of the model's name is created and follows the active version. "
        "Manual: you create ModelDeployments.",
    )
    template: DeploymentTemplate = Field(
        DeploymentTemplate(), description="Spec of that ModelDeployment, without modelRef, version and attach."
    )


class FineTunedModelSpec(ApiModel):
    """Which version is active, how it is served, and when weights are deleted."""

    activation: Literal["Automatic", "IfBetter", "Manual"] = Field(
        "Automatic",
        description="How a version becomes active. Automatic: the newest is active. IfBetter: what is active "
        "stays, at first the first, until the evaluation of a later one finds it better than the active one and its "
        "base model. Manual: activeVersion decides.",
    )
    active_version: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Version to activate, whatever activation says: change it to roll back. Absent: activation "
        "decides.",
    )
    deployment: ModelDeploymentPolicy = Field(ModelDeploymentPolicy(), description="How the model is served.")
    history_limit: Annotated[int, Field(ge=1, le=100)] = Field(
        10,
        description="Number of versions to keep. Weights of older versions that are neither active nor served "
        "are deleted.",
    )
    deletion_policy: Literal["Delete", "Retain"] = Field(
        "Retain",
        description="What happens to the weights of all versions, on volumes and at providers, when the object is "
        "deleted. Delete: they are deleted first, after the model's deployments, and the object waits for it.",
    )


class ModelVersion(ApiModel):
    """A version, made by one job."""

    version: Annotated[int, Field(ge=1)] = Field(description="Number, from 1; never reused.")
    job: Annotated[str, Field(max_length=253)] = Field(description="FineTuneJob that made it.")
    job_uid: Annotated[str, Field(max_length=64)] = Field(description="UID of that job.")
    connection: Annotated[str, Field(max_length=253)] = Field(description="LLMConnection with which it was made.")
    place: Annotated[str, Field(max_length=544)] | None = Field(
        None, description="Provider, and place there, of the weights; absent for weights of this cluster."
    )
    account: Account | None = Field(None, description="Account at the provider that has the weights.")
    base_model: Annotated[str, Field(max_length=256)] = Field(description="Model it was tuned from.")
    method: Annotated[str, Field(max_length=32)] = Field(description="Method of tuning.")
    lora_rank: int | None = Field(None, description="Rank of the adapter, where it is one.")
    adopted: bool | None = Field(
        None,
        description="Whether the version was adopted from an existing job. Weights at a provider are deleted only "
        "if this is false.",
    )
    artifact: ArtifactRef = Field(description="Where the weights are.")
    dataset_sha256: Annotated[str, Field(max_length=64)] | None = Field(
        None, alias="datasetSHA256", description="SHA-256 of the training file."
    )
    train_loss: float | None = Field(None, description="Last training loss.")
    eval_loss: float | None = Field(None, description="Last validation loss.")
    evaluation: EvaluationResult | None = Field(
        None,
        description="Scores of the tuned model and its baselines on the test set; of many versions, those beside "
        "the active one may have none here, nor losses and datasetSHA256.",
    )
    created_at: Timestamp = Field(description="When the job ended, RFC 3339.")
    deployment: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="ModelDeployment that serves it."
    )


DELETED_LIMIT = 200
"""The number that fits into a status of 64 KiB beside its versions, with names of usual length."""


class DeletedVersion(ApiModel):
    """A deleted version whose job still exists."""

    version: Annotated[int, Field(ge=1)] = Field(description="Its number.")
    job: Annotated[str, Field(max_length=253)] = Field(description="FineTuneJob that made it.")
    job_uid: Annotated[str, Field(max_length=64)] = Field(description="UID of that job.")


class FineTunedModelStatus(ApiModel):
    """The versions, and which one is active."""

    observed_generation: int | None = Field(None, description="Generation of the spec that the status describes.")
    conditions: Conditions | None = Field(
        None,
        description="Ready, Reconciling, Stalled; and Cleaned, False while weights that should be deleted could "
        "not be.",
    )
    display: Display | None = Field(None, description="Values of the columns of kubectl get.")
    active_version: int | None = Field(None, description="Number of the active version.")
    latest_version: int | None = Field(None, description="Number of the newest version. Numbers are never reused.")
    base_model: Annotated[str, Field(max_length=256)] | None = Field(None, description="Base of the active version.")
    eval_loss: float | None = Field(None, description="Validation loss of the active version.")
    deployment: Annotated[str, Field(max_length=253)] | None = Field(
        None, description="ModelDeployment that follows the active version."
    )
    versions: Annotated[list[ModelVersion], Field(max_length=200)] | None = Field(
        None, description="Versions, oldest first."
    )
    let_go: Annotated[list[DeletedVersion], Field(max_length=DELETED_LIMIT)] | None = Field(
        None,
        description="Versions beyond historyLimit whose weights are deleted and whose jobs are still there, the "
        "newest, 200 at most, oldest first. Such a job makes no second version, though its own status is lost.",
    )
