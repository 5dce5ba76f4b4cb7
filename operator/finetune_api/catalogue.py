"""What providers support, charge and retire: a dated table that an admin may override.

Prices give estimates, never bills.
"""

import re
from datetime import date
from decimal import ROUND_UP, Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from finetune_api.base import ApiModel, Money
from finetune_api.job_status import Cost
from finetune_api.money import in_cents, of_tokens

Day = Annotated[date, Field(description="A day, as 2027-01-06.")]

Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
"""In capital letters, as in budgets: otherwise it would be another currency."""

_HOUR = 3600


class Price(ApiModel):
    """The price of tuning a model."""

    per_million_tokens: Money = Field(description="For a million training tokens, each epoch counted.")
    currency: Currency = Field("USD", description="Currency, as ISO 4217 code.")
    as_of: Day = Field(description="The day on which the price was looked up.")


class TokenPrice(ApiModel):
    """The price of requests to a model."""

    input: Money = Field(description="For a million input tokens.")
    output: Money = Field(description="For a million output tokens.")


class AnswerPrices(ApiModel):
    """Prices of requests to a base model, and to models tuned from it."""

    base: TokenPrice = Field(description="The base model.")
    tuned: TokenPrice = Field(description="Models tuned from it.")
    currency: Currency = Field("USD", description="Currency, as ISO 4217 code.")
    as_of: Day = Field(description="The day on which the prices were looked up.")


def _named_once(hosting: dict[str, Money]) -> dict[str, Money]:
    """SKUs are compared without case: no provider distinguishes them by it, and users write them either way.

    Raises:
        ValueError: one has two prices.
    """
    names = {sku.casefold(): sku for sku in hosting}
    if twice := next((sku for sku in hosting if names[sku.casefold()] != sku), None):
        raise ValueError(f"{twice} and {names[twice.casefold()]} are one SKU: leave one of them")
    return hosting


Hosting = Annotated[dict[str, Money], AfterValidator(_named_once)]


def _price_of(sku: str, hosting: dict[str, Money]) -> str | None:
    """The SKU's price, in whichever case it is written."""
    return next((price for name, price in hosting.items() if name.casefold() == sku.casefold()), None)


class ModelFacts(ApiModel):
    """What is known of a base model at a provider."""

    training: Price | None = Field(None, description="Price of tuning it.")
    answers: AnswerPrices | None = Field(None, description="Prices of requests to it, and to models tuned from it.")
    hosting: Hosting = Field(
        default_factory=dict,
        description="Hourly price of a deployment of a model tuned from it, by SKU, if the price depends on the model.",
    )
    hosting_as_of: Day | None = Field(None, description="The day on which these hourly prices were looked up.")
    shutdown: Day | None = Field(None, description="From this day on the model and models tuned from it are gone.")

    def of_tuned(self) -> Self:
        """The facts of a model tuned from it, used as the base of another job."""
        answers = self.answers and self.answers.model_copy(update={"base": self.answers.tuned})
        return self.model_copy(update={"answers": answers})


def tuned_from(model: str) -> str | None:
    """The base of a tuned model, by its provider's naming scheme; None if the name follows none."""
    found = _TUNED.match(model)
    return found and (found["openai"] or found["bedrock"] or found["azure"])


_TUNED = re.compile(r"ft:(?P<openai>[^:]+):|arn:[^/]+:custom-model/(?P<bedrock>[^/]+)/|(?P<azure>.+)\.ft-[0-9a-f]{8,}")
"""`ft:BASE:ORGANISATION:SUFFIX:ID`, `arn:aws:bedrock:REGION:ACCOUNT:custom-model/BASE/ID` and `BASE.ft-ID-SUFFIX`."""

_OF_PROVIDER = re.compile(r"arn:[^/]+:foundation-model/")
"""Prefix of the ARN of one of Bedrock's own models, in any partition of AWS."""


class ProviderFacts(ApiModel):
    """What is known of a provider."""

    closes: Day | None = Field(None, description="From this day on it takes no new fine-tuning jobs.")
    hosting: Hosting = Field(
        default_factory=dict, description="Hourly price of a deployment, by SKU, for one unit of its capacity."
    )
    hosting_currency: Currency = Field("USD", description="Currency, as ISO 4217 code.")
    hosting_as_of: Day | None = Field(None, description="The day on which the hourly prices were looked up.")
    preference_models: list[str] | None = Field(
        None, description="Globs of the base models that support preference pairs; absent if not known."
    )
    models: dict[str, ModelFacts] = Field(default_factory=dict, description="By glob of the base model's name.")
    entry: str = Field("", exclude=True, description="Name of the entry, set by the catalogue.")
    problem: str = Field("", exclude=True, description="Why it cannot be read; nothing is known then.")

    @property
    def where(self) -> str:
        """Where an admin can add what is not known."""
        where = f"the chart's providerCatalogue, under {self.entry}" if self.entry else "the chart's providerCatalogue"
        return f"{where}, which cannot be read: {self.problem}" if self.problem else where

    def price_per_hour(self, base_model: str, sku: str) -> str | None:
        """Hourly price of one unit of a deployment; None if it is not known, or not billed by the hour."""
        return _price_of(sku, self.model(base_model).hosting) or _price_of(sku, self.hosting)

    def price_is_of(self, base_model: str, sku: str) -> date | None:
        """The date of that price; None if not known."""
        own = self.model(base_model)
        return own.hosting_as_of if _price_of(sku, own.hosting) else self.hosting_as_of

    def model(self, name: str) -> ModelFacts:
        """The facts of a base model, which may be a tuned one; empty if none are known."""
        base = tuned_from(name)
        facts = self._listed(name) or (self._listed(base) if base else None) or ModelFacts()
        return facts.of_tuned() if base else facts

    def learns_preferences(self, name: str) -> bool | None:
        """Whether a base model supports preference pairs; a tuned one does if its base does. None: not known."""
        if self.preference_models is None:
            return None
        return any(fnmatchcase(tuned_from(name) or name, glob) for glob in self.preference_models)

    def _listed(self, name: str) -> ModelFacts | None:
        """Those of the longest glob that matches."""
        name = _OF_PROVIDER.sub("", name, count=1)
        matching = [glob for glob in self.models if fnmatchcase(name, glob)]
        return self.models[max(matching, key=len)] if matching else None


class Catalogue(ApiModel):
    """All providers, by host: prices and dates of api.openai.com do not apply to compatible services."""

    providers: dict[str, ProviderFacts] = Field(default_factory=dict, description="By host, or by provider block.")
    problem: str = Field("", exclude=True, description="Why it cannot be read, if so.")

    def of(self, provider: str) -> ProviderFacts:
        """The facts of a provider; empty if it is not listed."""
        facts = self.providers.get(provider, ProviderFacts())
        return facts.model_copy(update={"entry": provider, "problem": self.problem or facts.problem})


def estimate(tokens: int, epochs: float, price: Price) -> Cost:
    """Expected cost of tuning: tokens of one epoch x epochs x list price, rounded up to cents."""
    amount = of_tokens(Decimal(tokens) * Decimal(str(epochs)), price.per_million_tokens)
    basis = (
        f"about {tokens:,} tokens (estimated from the text's length) x {epochs:g} epoch{'' if epochs == 1 else 's'} x "
        f"{price.per_million_tokens} {price.currency} per million, list price of {price.as_of}"
    )
    return Cost(estimated=in_cents(amount, ROUND_UP), currency=price.currency, basis=basis)


def billed(cost: Cost, tokens: int, price: Price) -> Cost:
    """The cost with what the provider has billed, at list price."""
    return cost.model_copy(update={"actual": in_cents(of_tokens(tokens, price.per_million_tokens))})


def longest_time(facts: ProviderFacts, sku: str, per_hour: str, seconds: int, count: int = 1) -> Cost:
    """The cost if `count` instances run for the maximum time: an upper limit, as the real time cannot be estimated."""
    amount = in_cents(Decimal(per_hour) * count * seconds / _HOUR, ROUND_UP)
    dated = f", list price of {facts.hosting_as_of}" if facts.hosting_as_of else ""
    instances = f"{count} {sku}" if count > 1 else sku
    basis = f"at most {seconds:,} s of {instances} at {per_hour} {facts.hosting_currency} an hour{dated}"
    return Cost(estimated=amount, currency=facts.hosting_currency, basis=basis)


def billed_time(cost: Cost, per_hour: str, seconds: int) -> Cost:
    """The cost with the seconds that the provider has billed, at list price."""
    return cost.model_copy(update={"actual": in_cents(Decimal(per_hour) * seconds / _HOUR)})


def unknown(currency: str, *things: str) -> Cost:
    """The cost of something without a known price. It says so, as it would look free otherwise."""
    basis = f"no price is known of {' and of '.join(things)}: an admin may put it into the chart's providerCatalogue"
    return Cost(currency=currency, basis=basis[:512])


def exceeds(cost: Cost, max_cost: str) -> bool:
    """Whether the estimate is known, and above a budget in the same currency."""
    return cost.estimated is not None and Decimal(cost.estimated) > Decimal(max_cost)
