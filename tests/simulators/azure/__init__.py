"""Azure OpenAI, simulated: the data plane, deployments by ARM, and the tokens for both."""

from tests.simulators.azure.service import AzureSimulator
from tests.simulators.azure.settings import AzureSettings

__all__ = ["AzureSettings", "AzureSimulator"]
