"""What the answers of a deployment at a provider cost by tokens, in words. Pure; at list price.

An unknown price is called unknown: if nothing were said, it would look as if answers were free.
"""

from dataclasses import dataclass

from finetune_api.catalogue import ProviderFacts
from finetune_api.deployment import DeploymentCost

BY_TOKENS = "by tokens"
"""What `kubectl get` shows if nothing is billed by the hour."""


@dataclass(frozen=True)
class TokenPrices:
    """Prices of one model's answers."""

    said: str
    """Empty if they are not billed by tokens."""
    currency: str
    display: str | None = BY_TOKENS
    """What `kubectl get` shows until something is billed by the hour; None if that is about to come."""


def of_tuned(facts: ProviderFacts, base_model: str, sku: str = "") -> TokenPrices:
    """For a model tuned from this base model, on a deployment that is also billed by the hour if it has an SKU."""
    display = None if sku else BY_TOKENS
    prices = facts.model(base_model).answers
    if prices is None:
        said = "no price is known of its answers, which are billed by tokens: an admin may put it into the chart's "
        return TokenPrices(f"{said}providerCatalogue", facts.hosting_currency, display)
    tuned, currency = prices.tuned, prices.currency
    said = f"{tuned.input} {currency} for a million tokens of questions and {tuned.output} {currency} for a million of "
    return TokenPrices(f"{said}answers, list prices of {prices.as_of}", currency, display)


def are_billed(provider: str, sku: str) -> bool:
    """Whether answers are billed by tokens: not if reserved units or instances are billed by the hour."""
    return "Provisioned" not in sku if provider == "azureOpenAI" else not sku


def with_answers(cost: DeploymentCost | None, prices: TokenPrices | None) -> DeploymentCost | None:
    """The hourly cost, if there is any, with the prices of answers; unchanged if nothing new is known of them."""
    if prices is None or not (cost or prices.said):
        return cost
    cost = cost or DeploymentCost(currency=prices.currency)
    display = cost.display or (prices.display if prices.said else None)
    return cost.model_copy(update={"answers": prices.said or None, "display": display})


def as_before(cost: DeploymentCost | None, before: DeploymentCost | None) -> DeploymentCost | None:
    """The hourly cost with what was said of answers before."""
    if before is None or before.answers is None:
        return cost
    display = before.display if before.display == BY_TOKENS else None
    return with_answers(cost, TokenPrices(before.answers, before.currency, display))
