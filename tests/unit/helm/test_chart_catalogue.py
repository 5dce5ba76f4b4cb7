"""The catalogue of prices and dates as the chart brings it, and as admins correct it."""

import json
from typing import get_args

import pytest

from finetune_api.catalogue import Catalogue
from finetune_api.deployment import AzureServing, BedrockServing
from finetune_api.manifest import Manifest
from tests.unit.helm.charts import CHART, WITHOUT_DEFINITIONS, ChartError, Values, of_kind, render

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def defaults() -> list[Manifest]:
    return render({})


FILLED_IN_BY_THE_CATALOGUE = {"entry", "problem"}


def catalogue_of(manifests: list[Manifest]) -> Catalogue:
    [text] = [m["data"]["providers.json"] for m in of_kind(manifests, "ConfigMap") if "providers.json" in m["data"]]
    return Catalogue.model_validate_json(text)


def test_the_catalogue_can_be_read_and_knows_openai(defaults: list[Manifest]) -> None:
    facts = catalogue_of(defaults).of("api.openai.com")
    price = facts.model("gpt-4o-mini-2024-07-18").training
    assert price is not None
    assert (price.per_million_tokens, price.currency) == ("3.00", "USD")
    assert (str(facts.closes), str(facts.model("gpt-4o-mini-2024-07-18").shutdown)) == ("2027-01-06", "2027-01-14")


def test_every_price_has_its_day(defaults: list[Manifest]) -> None:
    for name, facts in catalogue_of(defaults).providers.items():
        assert not facts.hosting or facts.hosting_as_of, name
        for glob, model in facts.models.items():
            assert not model.hosting or model.hosting_as_of, (name, glob)


def test_the_catalogue_can_be_corrected_and_added_to() -> None:
    mini = {"gpt-4o-mini-2024-07-18": {"training": {"perMillionTokens": "9.99", "asOf": "2027-01-01"}}}
    other = {"models": {"*": {"training": {"perMillionTokens": "0.50", "currency": "EUR", "asOf": "2027-01-01"}}}}
    catalogue = catalogue_of(render({"providerCatalogue": {"api.openai.com": {"models": mini}, "llm.corp": other}}))
    facts = catalogue.of("api.openai.com")
    assert facts.model("gpt-4o-mini-2024-07-18").training.per_million_tokens == "9.99"
    assert facts.model("gpt-4.1-mini-2025-04-14").training.per_million_tokens == "5.00"
    assert str(facts.closes) == "2027-01-06"
    assert catalogue.of("llm.corp").model("anything").training.currency == "EUR"


def test_the_schema_takes_every_field_of_the_catalogue_and_no_other() -> None:
    fields = Catalogue.model_json_schema(by_alias=True)["$defs"]
    provider = json.loads((CHART / "values.schema.json").read_text())["properties"]["providerCatalogue"]
    model = provider["additionalProperties"]["properties"]["models"]["additionalProperties"]
    answers = model["properties"]["answers"]
    places = {
        "ProviderFacts": provider["additionalProperties"],
        "ModelFacts": model,
        "Price": model["properties"]["training"],
        "AnswerPrices": answers,
        "TokenPrice": answers["properties"]["tuned"],
    }
    for name, place in places.items():
        assert set(place["properties"]) == set(fields[name]["properties"]) - FILLED_IN_BY_THE_CATALOGUE, name


SKUS = [
    *get_args(AzureServing.model_fields["sku"].annotation),
    *(name for part in get_args(BedrockServing.model_fields["commitment"].annotation) for name in get_args(part)),
]


@pytest.mark.parametrize("place", [("hosting",), ("models", "m", "hosting")], ids=".".join)
@pytest.mark.parametrize(
    ("sku", "write"),
    [*((sku.lower(), sku) for sku in SKUS), ("STANDARD", "Standard"), ("ML.G5.xlarge", "ml.g5.xlarge")],
)
def test_a_sku_whose_capital_letters_are_wrong_is_refused_with_the_right_ones(
    place: tuple[str, ...], sku: str, write: str
) -> None:
    facts: Values = {sku: "2.00"}
    for name in reversed(place):
        facts = {name: facts}
    with pytest.raises(ChartError) as error:
        render(WITHOUT_DEFINITIONS | {"providerCatalogue": {"azureOpenAI-us": facts}})
    assert f"providerCatalogue.azureOpenAI-us.{'.'.join(place)}.{sku}: write {write}" in str(error.value)


@pytest.mark.parametrize("name", ["llm.corp", "llm.corp:8443", "gateway", "bedrock-aws-us-gov", "azureOpenAI-us"])
def test_the_catalogue_takes_hosts_and_the_blocks_of_every_cloud(name: str) -> None:
    known = {"preferenceModels": ["a*"], "closes": "2027-01-06"}
    facts = catalogue_of(render(WITHOUT_DEFINITIONS | {"providerCatalogue": {name: known}})).of(name)
    assert (facts.preference_models, str(facts.closes)) == (["a*"], "2027-01-06")
