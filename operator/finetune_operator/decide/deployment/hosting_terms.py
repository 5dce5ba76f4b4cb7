"""What a ModelDeployment asks of a provider's deployments, independent of the provider: name, price, terms. Pure."""

from dataclasses import dataclass
from hashlib import sha256

from finetune_api.deployment import DeploymentTemplate

NAME_LIMIT = 63
"""Length of a name that every provider accepts."""

_COMMITMENT_LETTER = {"NoCommitment": "n", "OneMonth": "m", "SixMonths": "s"}


@dataclass(frozen=True)
class Terms:
    """How a deployment is made and billed."""

    sku: str = ""
    """The catalogue's key of its hourly price."""
    units: int = 1
    """How many times that price is billed."""
    name: str | None = None
    """How its name should begin, if the user says so."""
    kind: str = ""
    """Part of its name: another kind of a version is another deployment, which answers before this one is deleted."""
    name_limit: int = NAME_LIMIT
    strict_names: bool = True
    """Whether two adjacent dashes are forbidden."""
    in_place: str = ""
    """The terms in words, if the operator changes them in place; else ""."""
    made_as: str = ""
    """The terms in words, if other terms need another deployment and the provider shows the present ones."""
    one_at_a_time: bool = False
    """Whether the provider refuses a change while another deployment of the account changes."""


def terms_of(template: DeploymentTemplate | None) -> Terms:
    """The terms in a template's provider block."""
    if template is None:
        return Terms()
    azure, bedrock, sagemaker = template.azure_open_ai, template.bedrock, template.sage_maker
    if bedrock is not None and bedrock.type == "ProvisionedThroughput":
        units, commitment = bedrock.model_units or 1, bedrock.commitment or "NoCommitment"
        return Terms(commitment, units, kind=f"p{units}{_COMMITMENT_LETTER[commitment]}")
    if azure is not None:
        units = azure_units(azure.sku, azure.capacity)
        asked = in_words(azure.sku, azure.capacity)
        return Terms(
            azure.sku, units, azure.name, name_limit=64, strict_names=False, in_place=asked, one_at_a_time=True
        )
    if sagemaker is not None:
        kind = sha256(sagemaker.model_dump_json().encode()).hexdigest()[:4]
        asked = in_words(sagemaker.instance_type, sagemaker.instances)
        return Terms(sagemaker.instance_type, sagemaker.instances, kind=kind, made_as=asked)
    return Terms()


def in_words(sku: str, capacity: int) -> str:
    """SKU and capacity, or instance type and count, as status shows them."""
    return f"{sku} x {capacity}"


def azure_units(sku: str, capacity: int) -> int:
    """How many times an SKU's price is billed: by the number of provisioned units; other capacity is a rate limit."""
    return capacity if sku == "ProvisionedManaged" else 1
