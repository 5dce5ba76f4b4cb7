"""OpenAI and services with its API."""
