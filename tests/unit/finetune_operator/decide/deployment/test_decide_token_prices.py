"""What answers at a provider cost by their tokens: told where anybody knows it, and else that nobody does."""

import pytest

from finetune_api.catalogue import ProviderFacts
from finetune_api.deployment import DeploymentCost
from finetune_operator.decide.deployment.token_prices import TokenPrices, are_billed, as_before, of_tuned, with_answers

ANSWERS = {
    "base": {"input": "0.15", "output": "0.60"},
    "tuned": {"input": "0.30", "output": "1.20"},
    "currency": "EUR",
    "asOf": "2026-11-01",
}
HOURLY = DeploymentCost(per_hour="1.70", display="1.70 USD", currency="USD")


def test_prices_are_those_of_what_was_tuned_with_their_day() -> None:
    facts = ProviderFacts.model_validate({"models": {"gpt-*": {"answers": ANSWERS}}})
    told = of_tuned(facts, "gpt-4o-mini")
    assert told.currency == "EUR"
    assert told.said == (
        "0.30 EUR for a million tokens of questions and 1.20 EUR for a million of answers, list prices of 2026-11-01"
    )


def test_what_nobody_knows_is_said_to_be_unknown() -> None:
    told = with_answers(None, of_tuned(ProviderFacts(), "gpt-4o-mini"))
    assert told is not None
    assert (told.display, told.per_hour, told.currency) == ("by tokens", None, "USD")
    assert told.answers == (
        "no price is known of its answers, which are billed by tokens: an admin may put it into the chart's "
        "providerCatalogue"
    )


def test_what_will_be_billed_by_the_hour_once_it_is_ready_is_not_shown_as_billed_by_tokens_only() -> None:
    prices = of_tuned(ProviderFacts(), "gpt-4o-mini", "Standard")
    creating, ready = with_answers(None, prices), with_answers(HOURLY, prices)
    assert creating is not None
    assert ready is not None
    assert (creating.display, creating.answers is None) == (None, False)
    assert as_before(None, creating) == creating
    assert ready.display == HOURLY.display


def test_past_cost_of_what_was_billed_by_the_hour_only_is_not_shown_as_billed_by_tokens() -> None:
    past = DeploymentCost(ended="3.40", currency="USD")
    assert with_answers(past, TokenPrices("", "USD")) == past


@pytest.mark.parametrize(
    ("provider", "sku", "billed"),
    [
        ("openAI", "", True),
        ("bedrock", "", True),
        ("bedrock", "NoCommitment", False),
        ("sageMaker", "ml.g5.xlarge", False),
        ("azureOpenAI", "Standard", True),
        ("azureOpenAI", "DeveloperTier", True),
        ("azureOpenAI", "ProvisionedManaged", False),
        ("azureOpenAI", "GlobalProvisionedManaged", False),
    ],
)
def test_where_hours_of_reserved_units_or_instances_are_billed_answers_are_not(
    provider: str, sku: str, *, billed: bool
) -> None:
    assert are_billed(provider, sku) == billed


def test_the_cost_by_the_hour_stays_what_it_is_beside_that_of_answers() -> None:
    told = with_answers(HOURLY, TokenPrices("cheap", "USD"))
    assert told == HOURLY.model_copy(update={"answers": "cheap"})
    assert with_answers(told, TokenPrices("", "USD")) == HOURLY
    assert with_answers(None, TokenPrices("", "USD")) is None


def test_nothing_is_written_twice_for_what_was_said_of_answers_before() -> None:
    before = with_answers(None, TokenPrices("cheap", "USD"))
    assert as_before(None, before) == before
    assert as_before(HOURLY, before) == with_answers(HOURLY, TokenPrices("cheap", "USD"))
    assert as_before(HOURLY, None) == HOURLY
    unpriced = DeploymentCost(currency="USD")
    assert as_before(unpriced, HOURLY) == unpriced, "of what is not billed by tokens nothing is said"
