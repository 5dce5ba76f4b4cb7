"""What a ModelDeployment asks of a provider that makes deployments, in nobody's dialect: name, price, how. Pure."""

from dataclasses import dataclass
from hashlib import sha256

from finetune_api.deployment import DeploymentTemplate

NAME_LIMIT = 63
"""Letters of a deployment's name that every provider takes."""

_COMMITMENT_LETTER = {"NoCommitment": "n", "OneMonth": "m", "SixMonths": "s"}


@dataclass(frozen=True)
class Terms:
    """How a deployment is made and billed."""

    sku: str = ""
    """What the catalogue calls its price of an hour."""
    units: int = 1
    """How many times that price."""
    name: str | None = None
    """How its name should begin, where the user says so."""
    kind: str = ""
    """Part of its name: another kind of the same version is another deployment, and answers before this one goes."""
    name_limit: int = NAME_LIMIT
    strict_names: bool = True
    """Whether no dash may stand beside another."""
    in_place: str = ""
    """What is asked for, in words, where the operator changes it in place; "" where it does not."""
    made_as: str = ""
    """What is asked for, in words, where other terms are another deployment, and the provider may show others."""
    one_at_a_time: bool = False
    """Whether the provider refuses a change while another deployment of the account changes."""


def terms_of(template: DeploymentTemplate | None) -> Terms:
    """The terms of the provider's block that a template has."""
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
    """SKU and capacity, or instances and their number, as status shows them."""
    return f"{sku} x {capacity}"


def azure_units(sku: str, capacity: int) -> int:
    """How many times an SKU's price is billed: provisioned units by their number, else capacity is only a rate."""
    return capacity if sku == "ProvisionedManaged" else 1
