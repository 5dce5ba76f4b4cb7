"""What a ModelDeployment asks of a provider that makes deployments, in nobody's dialect: name, price, how. Pure."""

from dataclasses import dataclass

from finetune_api.deployment import DeploymentTemplate

NAME_LIMIT = 63
"""Letters of a deployment's name that every provider takes."""


@dataclass(frozen=True)
class Terms:
    """How a deployment is made and billed."""

    sku: str = ""
    """What the catalogue calls its price of an hour."""
    units: int = 1
    """How many times that price."""
    name: str | None = None
    """How its name should begin, where the user says so."""
    name_limit: int = NAME_LIMIT
    one_at_a_time: bool = False
    """Whether the provider refuses a change while another deployment of the account changes."""


def terms_of(template: DeploymentTemplate | None) -> Terms:
    """The terms of the provider's block that a template has."""
    azure = template.azure_open_ai if template else None
    if azure is not None:
        # Only provisioned units are billed by their number: other capacity is a limit of the rate.
        units = azure.capacity if azure.sku == "ProvisionedManaged" else 1
        return Terms(azure.sku, units, azure.name, name_limit=64, one_at_a_time=True)
    return Terms()
