"""What the operator and the trainer's container at SageMaker agree on: names of channels and files, and the job.

No pod and no network is between them: all passes through S3, which SageMaker copies to and from the container.
"""

from typing import Annotated

from pydantic import Field

from finetune_api.base import ApiModel
from finetune_api.trainer import ActiveVersionRef, AttemptJob

JOB_CHANNEL = "job"
"""Input channel with one file: a ContainerJob as JSON."""

BASE_CHANNEL = "base"
"""Input channel with the folder of the base model, where the connection keeps models in S3."""

ACTIVE_CHANNEL = "active"
"""Input channel with the artifact of the version that the tuned model is compared with, where the role reaches it."""

CODE_CHANNEL = "code"
"""Input channel with one file: an OwnCode as JSON, where the job has code of its own."""

REPORT_FILE = "report.json"
"""The newest Report: among the checkpoints while the job runs, beside the artifact once it is whole."""

TRAIN_COMMAND = "sagemaker"
"""Of finetune-trainer, in a training container."""

HUB_FOLDER = "/opt/ml/output/hub"
"""Where a training container keeps what it fetches from a hub: on the disk whose size the connection says."""

SERVING_PORT = 8080
"""Where SageMaker asks a serving container."""

MODEL_FOLDER = "/opt/ml/model"
"""Where SageMaker puts what is to be served."""

BASE_FOLDER = "/opt/ml/additional-model-data-sources/base"
"""Where it puts the adapter's base model."""


CodeFileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][-A-Za-z0-9_.]*$", max_length=253)]
"""A ConfigMap's key, as a file is called; never a path."""


class OwnCode(ApiModel):
    """The keys of spec.code's ConfigMap."""

    files: dict[CodeFileName, str] = Field(description="Contents by key, in base64.")


class ContainerJob(AttemptJob):
    """An attempt that runs in a container of SageMaker, whose folders are fixed; data come by one channel a split."""

    artifact_uri: Annotated[str, Field(max_length=1024)] = Field(description="Where the artifact is once it is in S3.")
    trust_remote_code: bool = Field(False, description="Let models bring code of their own.")
    active_version: ActiveVersionRef | None = Field(
        None, description="What the tuned model is compared with; its weights come by their channel."
    )
    short_of_memory: bool = Field(
        False, description="Whether the attempt before was ended for want of memory: by the kernel, if it said nothing."
    )
