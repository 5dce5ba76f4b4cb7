"""OpenAI's fine-tuning API, simulated."""

from tests.simulators.openai.service import OpenAISimulator
from tests.simulators.openai.settings import Failure, OpenAISettings

__all__ = ["Failure", "OpenAISettings", "OpenAISimulator"]
