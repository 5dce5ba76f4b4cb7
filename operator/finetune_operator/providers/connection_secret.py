"""The Secret and keys that a connection needs, and their values, which are passed to the SDK and nowhere else."""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.connection import LLMConnectionSpec
from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import TryLater
from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import SECRETS, Kube, secret_value
from finetune_operator.runtime.logs import hide

AWS_KEYS = ("accessKeyID", "secretAccessKey")
AZURE_KEYS = ("tenantID", "clientID", "clientSecret")
_NAMES = frozenset({"accessKeyID", "tenantID", "clientID"})
"""Keys whose values are identifiers, not secrets."""

_WORD = re.compile("[A-Za-z][-A-Za-z_.]{0,39}")
"""Key names that may be shown: without digits, since a user may have used a secret as a key, and secrets have some."""

_MOST_KEYS = 8

_OPENAI = re.compile("sk-[-_A-Za-z0-9]{8,}")
_GUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SHAPES = {
    "accessKeyID": re.compile("A[A-Z]{3}[A-Z0-9]{16}"),
    "secretAccessKey": re.compile("[A-Za-z0-9/+]{40}"),
    "tenantID": _GUID,
    "clientID": _GUID,
    "clientSecret": re.compile("[-_.~A-Za-z0-9]{3}[0-9]Q~[-_.~A-Za-z0-9]{31,34}"),
}
"""Formats of providers' credentials; services compatible with OpenAI's API may use others."""

_AROUND = re.compile(r"([\"']).*\1$|[A-Z][A-Z0-9]*_[A-Z0-9_]*=|(?i:bearer)\s|\s|.*\s$")
"""Quotes and prefixes that were copied with a key from shells, .env files or headers (`Bearer …`)."""


def secret_of(spec: LLMConnectionSpec) -> tuple[str, tuple[str, ...]] | None:
    """Name and keys of a connection's Secret; None if it needs none."""
    if spec.open_ai is not None:
        reference = spec.open_ai.api_key_secret_ref
        return reference.name, (reference.key,)
    if (aws := spec.bedrock or spec.sage_maker) is not None:
        own = aws.credentials.secret_ref
        return (own.name, AWS_KEYS) if own else None
    azure = spec.azure_open_ai
    return (azure.credentials.secret_ref.name, AZURE_KEYS) if azure and azure.credentials.secret_ref else None


def lacks(missing: Sequence[str], secret: Mapping[str, Any]) -> str:
    """Describe a Secret that lacks these keys, and which keys it has."""
    there = secret.get("data") or {}
    empty = [key for key in missing if key in there]
    if empty:
        return f"has nothing in {', '.join(empty)}"
    words = [key for key in sorted(there) if _WORD.fullmatch(key)][:_MOST_KEYS]
    return f"has no {', '.join(missing)}; it has {', '.join(words) or 'other keys, or none'}"


def extra_characters(value: str) -> str:
    """What a value contains besides a key, in words; "" if it may be a key."""
    if not (value.isascii() and value.isprintable()):
        return "line breaks or letters beyond ASCII"
    return "quotation marks, spaces or a name around it" if _AROUND.match(value) else ""


def _defect(key: str, value: str) -> str:
    """What is wrong with a key's value, without calling the provider; "" if nothing."""
    shape = _SHAPES.get(key, _OPENAI)
    if not shape.fullmatch(value) and shape.fullmatch(_decoded(value)):
        return (
            f"{key} was encoded as Base64 twice: write it as it is with kubectl create secret or under stringData, or "
            "encoded once under data"
        )
    if why := extra_characters(value):
        return (
            f"{key} has {why}, as no key has: write the key alone, once, and not the file, the line or the Base64 that "
            "it came in"
        )
    return ""


def _decoded(value: str) -> str:
    """Decode Base64; "" if it is not Base64 or not text."""
    try:
        return b64decode("".join(value.split()), validate=True).decode("ascii").strip()
    except ValueError:
        return ""


class ConnectionSecrets:
    """Reads the Secrets of connections, which are in the operator's own namespace."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def of(self, spec: LLMConnectionSpec) -> Mapping[str, str]:
        """The required values of a connection's Secret, by key.

        Raises:
            TryLater: the Secret or one of its keys is missing, malformed or unreadable.
        """
        needed = secret_of(spec)
        if needed is None:
            return {}
        name, keys = needed
        try:
            secret = await self._kube.get(SECRETS, name, self._namespace)
        except Forbidden as refusal:
            raise _unreadable(f"{self._namespace}/{name}", refusal) from None
        if secret is None:
            told = f"Secret {self._namespace}/{name} does not exist; it needs {', '.join(keys)}"
            raise TryLater(Reason.SECRET_NOT_FOUND, told)
        values = {key: (secret_value(secret, key) or b"").decode(errors="replace").strip() for key in keys}
        for key in values.keys() - _NAMES:
            hide(values[key])
        missing = [key for key, value in values.items() if not value]
        if missing:
            told = f"Secret {self._namespace}/{name} {lacks(missing, secret)}"
            raise TryLater(Reason.SECRET_NOT_FOUND, told)
        for key, value in values.items():
            if wrong := _defect(key, value):
                raise TryLater(Reason.CREDENTIALS_INVALID, f"Secret {self._namespace}/{name}: {wrong}")
        return values


def _unreadable(secret: str, refusal: Forbidden) -> TryLater:
    """The operator lacks the permission, or an authorizer refuses it: shown on every object that needs the provider."""
    step = "Ask an admin to let the operator read it: `helm upgrade` restores rights that were edited."
    return TryLater(Reason.WRITE_REFUSED, f"Secret {secret} cannot be read: {refusal.message}", 60.0, next_step=step)
