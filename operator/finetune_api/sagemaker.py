"""What the operator and the trainer's container at SageMaker agree on: names of channels and files, and the job.

They share neither a pod nor a network: everything passes through S3, which SageMaker copies to and from the container.
"""

from typing import Annotated

from pydantic import Field

from finetune_api.base import ApiModel
from finetune_api.trainer import ActiveVersionRef, AttemptJob

JOB_CHANNEL = "job"
"""Input channel with one file: a ContainerJob as JSON."""

BASE_CHANNEL = "base"
"""Input channel with the folder of the base model, if the connection keeps models in S3."""

ACTIVE_CHANNEL = "active"
"""Input channel with the artifact of the version to compare the tuned model with, if the role can read it."""

CODE_CHANNEL = "code"
"""Input channel with one file: an OwnCode as JSON, if the job has custom code."""

REPORT_FILE = "report.json"
"""The latest Report: among the checkpoints while the job runs, beside the artifact once that is complete."""

TRAIN_COMMAND = "sagemaker"
"""The subcommand of finetune-trainer in a training container."""

HUB_FOLDER = "/opt/ml/output/hub"
"""Where a training container stores downloads from a hub: on the disk whose size the connection sets."""

SERVING_PORT = 8080
"""The port on which SageMaker calls a serving container."""

MODEL_FOLDER = "/opt/ml/model"
"""Where SageMaker puts the model to serve."""

BASE_FOLDER = "/opt/ml/additional-model-data-sources/base"
"""Where it puts the adapter's base model."""


CodeFileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][-A-Za-z0-9_.]*$", max_length=253)]
"""A ConfigMap's key as a file name; never a path."""


class OwnCode(ApiModel):
    """The keys of spec.code's ConfigMap."""

    files: dict[CodeFileName, str] = Field(description="Contents by key, in base64.")


class ContainerJob(AttemptJob):
    """An attempt in a container of SageMaker, whose folders are fixed. There is one channel per data split."""

    artifact_uri: Annotated[str, Field(max_length=1024)] = Field(description="Where in S3 the artifact will be.")
    trust_remote_code: bool = Field(False, description="Whether models may run code of their own.")
    active_version: ActiveVersionRef | None = Field(
        None, description="The version to compare the tuned model with; its weights come through their channel."
    )
    short_of_memory: bool = Field(
        False, description="Whether the kernel may have ended the previous attempt for lack of memory."
    )
