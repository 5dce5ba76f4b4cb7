"""Tells OpenAI's own hosts from those of compatible services."""

from urllib.parse import urlsplit

from finetune_api.connection import LLMConnectionSpec

OPENAI_HOST = "api.openai.com"


def is_openai(host: str) -> bool:
    """Whether a host, with or without port, is OpenAI's own or that of a region such as `eu.api.openai.com`."""
    name = host.casefold().removesuffix(":443")
    return name == OPENAI_HOST or name.endswith(f".{OPENAI_HOST}")


def data_rules(spec: LLMConnectionSpec) -> str:
    """Which rules the data of a connection's jobs must meet: a value of the trainer's data.provider.rules."""
    if spec.open_ai is None:
        return spec.provider
    return "openAI" if is_openai(urlsplit(spec.open_ai.base_url).netloc) else "openAICompatible"
