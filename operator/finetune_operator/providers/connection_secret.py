"""Which Secret a connection needs, and which keys of it."""

from finetune_api.connection import LLMConnectionSpec

AWS_KEYS = ("accessKeyID", "secretAccessKey")
AZURE_KEYS = ("tenantID", "clientID", "clientSecret")
NAMES = frozenset({"accessKeyID", "tenantID", "clientID"})
"""Keys whose values are names, and no secrets."""


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
