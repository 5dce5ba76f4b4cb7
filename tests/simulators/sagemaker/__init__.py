"""Amazon SageMaker's training jobs and endpoints, simulated."""

from tests.simulators.sagemaker.service import SageMakerSimulator
from tests.simulators.sagemaker.settings import SageMakerSettings

__all__ = ["SageMakerSettings", "SageMakerSimulator"]
