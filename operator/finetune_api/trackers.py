"""Experiment trackers for a job's training, and how they are doing."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from finetune_api.base import TRIMMED, ApiModel, HttpUrl, ObjectRef, rules

TrackerName = Literal["mlflow", "tensorBoard", "wandb"]


class MLflow(ApiModel):
    """An MLflow tracking server."""

    tracking_uri: HttpUrl = Field(description="URL of the tracking server, such as https://mlflow.example.com.")
    experiment: Annotated[str, Field(min_length=1, max_length=256), TRIMMED] | None = Field(
        None, description="Experiment of the run; created if it does not exist. Default: the model's name."
    )
    secret_ref: ObjectRef | None = Field(
        None,
        description="Secret of the job's namespace with MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD.",
    )


class TensorBoard(ApiModel):
    """Event files beside the artifact, in the folder tensorboard."""

    model_config = ConfigDict(json_schema_extra={"maxProperties": 0})


class WandB(ApiModel):
    """A project of Weights & Biases. It gets losses, learning rate and settings, and nothing of the data."""

    secret_ref: ObjectRef = Field(description="Secret of the job's namespace with WANDB_API_KEY.")
    entity: Annotated[str, Field(min_length=1, max_length=128), TRIMMED] | None = Field(
        None, description="Team or user that owns the project. Default: that of the key."
    )
    project: Annotated[str, Field(min_length=1, max_length=128), TRIMMED] | None = Field(
        None, description="Project of the run; created if it does not exist. Default: the model's name."
    )
    base_url: HttpUrl | None = Field(None, description="URL of a self-hosted server. Default: the public service.")


class Trackers(ApiModel):
    """Where losses and learning rate are written in addition to the job's own record."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.mlflow) || has(self.tensorBoard) || has(self.wandb)",
                "trackers needs mlflow, tensorBoard or wandb, or several of them",
            ),
        )
    )
    mlflow: MLflow | None = Field(None, description="A run in MLflow.")
    tensor_board: TensorBoard | None = Field(None, description="Write event files for TensorBoard into the artifact.")
    wandb: WandB | None = Field(None, description="A run in Weights & Biases.")


class TrackerState(ApiModel):
    """The state of a tracker. A failing tracker never stops a training."""

    name: TrackerName = Field(description="Which tracker.")
    url: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="The run's page; for TensorBoard the folder of its files below the artifact."
    )
    problem: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="What the tracker did not accept, if anything. metrics.jsonl in the artifact has everything."
    )


TrackerStates = Annotated[list[TrackerState], Field(max_length=4)]
"""All trackers of a job, in reports and in status: with more of them the whole status could not be written."""
