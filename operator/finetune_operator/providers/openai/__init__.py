"""OpenAI and compatible services."""
