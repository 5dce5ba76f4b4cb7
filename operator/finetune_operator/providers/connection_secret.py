"""Which Secret a connection needs, and which keys of it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.connection import LLMConnectionSpec

AWS_KEYS = ("accessKeyID", "secretAccessKey")
AZURE_KEYS = ("tenantID", "clientID", "clientSecret")
NAMES = frozenset({"accessKeyID", "tenantID", "clientID"})
"""Keys whose values are names, and no secrets."""

_WORD = re.compile("[A-Za-z][-A-Za-z_.]{0,39}")
"""A key that is told: without digits, which every secret has that somebody took for the name of one."""

_MOST_KEYS = 8

_AROUND = re.compile(r"([\"']).*\1$|[A-Z][A-Z0-9]*_[A-Z0-9_]*=|(?i:bearer)\s|\s|.*\s$")
"""What shells, files of variables and headers (`Bearer …`) have around a key."""


def secret_of(spec: LLMConnectionSpec) -> tuple[str, tuple[str, ...]] | None:
    """Name and keys of a connection's Secret; None where it needs none."""
    if spec.open_ai is not None:
        reference = spec.open_ai.api_key_secret_ref
        return reference.name, (reference.key,)
    if spec.bedrock is not None:
        own = spec.bedrock.credentials.secret_ref
        return (own.name, AWS_KEYS) if own else None
    if spec.sage_maker is not None:
        signer = spec.sage_maker.credentials.secret_ref
        return (signer.name, AWS_KEYS) if signer else None
    azure = spec.azure_open_ai
    return (azure.credentials.secret_ref.name, AZURE_KEYS) if azure and azure.credentials.secret_ref else None


def lacks(missing: Sequence[str], secret: Mapping[str, Any]) -> str:
    """Of a Secret without these keys: which it has instead."""
    there = secret.get("data") or {}
    empty = [key for key in missing if key in there]
    if empty:
        return f"has nothing in {', '.join(empty)}"
    words = [key for key in sorted(there) if _WORD.fullmatch(key)][:_MOST_KEYS]
    return f"has no {', '.join(missing)}; it has {', '.join(words) or 'other keys, or none'}"


def not_alone(value: str) -> str:
    """What a value has beside a key, in words; "" where it may be one."""
    if not (value.isascii() and value.isprintable()):
        return "line breaks or letters beyond ASCII"
    return "quotation marks, spaces or a name around it" if _AROUND.match(value) else ""
