"""Amazon Bedrock's model customization, simulated."""

from tests.simulators.bedrock.service import BedrockSimulator
from tests.simulators.bedrock.settings import BedrockSettings

__all__ = ["BedrockSettings", "BedrockSimulator"]
