"""The catalogue of prices as people edit it: a slip in it costs what it is about, and is told where it matters."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from finetune_api.catalogue import ProviderFacts
from finetune_operator.providers.catalogue import CatalogueFile

PRICE = {"perMillionTokens": "3.00", "asOf": "2026-11-01"}
GOOD = {"models": {"gpt-*": {"training": PRICE}}, "closes": "2027-01-06"}


def written(path: Path, content: Any) -> None:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    seen = path.stat()
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "providers.json"


def price(facts: ProviderFacts) -> str | None:
    known = facts.model("gpt-5").training
    return known and known.per_million_tokens


@pytest.mark.parametrize("written_as", ["Standard", "standard", "STANDARD"])
def test_the_price_of_a_sku_is_found_however_its_name_is_written(written_as: str) -> None:
    here, day = {"hosting": {written_as: "1.70"}, "hostingAsOf": "2026-11-01"}, "2026-11-01"
    for entry in (here, {"models": {"gpt-*": here}}, {"hosting": {"Standard": "9"}, "models": {"gpt-*": here}}):
        facts = ProviderFacts.model_validate(entry)
        assert (facts.price_per_hour("gpt-5", "Standard"), str(facts.price_is_of("gpt-5", "Standard"))) == ("1.70", day)
    assert ProviderFacts.model_validate(here).price_per_hour("gpt-5", "GlobalStandard") is None


SLIPS: dict[str, tuple[Any, str]] = {
    "a negative price": ({"models": {"gpt-*": {"training": PRICE | {"perMillionTokens": "-3"}}}}, "perMillionTokens"),
    "a price that is not text": ({"models": {"gpt-*": {"training": PRICE | {"perMillionTokens": 3}}}}, "models.gpt-*"),
    "no number": ({"models": {"gpt-*": {"training": PRICE | {"perMillionTokens": "NaN"}}}}, "perMillionTokens"),
    "an absurd one": ({"models": {"gpt-*": {"training": PRICE | {"perMillionTokens": "9" * 25}}}}, "perMillionTokens"),
    "a currency as nobody writes it": (
        {"models": {"gpt-*": {"training": PRICE | {"currency": "usd"}}}},
        "models.gpt-*.training.currency: String should match pattern '^[A-Z]{3}$'",
    ),
    "a misspelt field": ({"models": {}, "close": "2027-01-06"}, "close"),
    "no day": ({"closes": "in January"}, "closes"),
    "a price without its day": ({"models": {"gpt-*": {"training": {"perMillionTokens": "3"}}}}, "asOf"),
    "no such day": ({"closes": "2027-13-01"}, "closes: Input should be a valid date"),
    "an hour's price that is not text": (
        {"hosting": {"Standard": 1.7}},
        "hosting.Standard: Input should be a valid string",
    ),
    "one SKU's price twice": (
        {"hosting": {"Standard": "1.70", "standard": "2.00"}},
        "hosting: Value error, Standard and standard are one SKU: leave one of them",
    ),
    "a misspelt day": ({"closse": "2027-01-01"}, "closse: Extra inputs are not permitted"),
    "a list": ([], "Input should be a valid dictionary"),
    "nothing": (None, "Input should be a valid dictionary"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_in_one_entry_leaves_the_others_known_and_says_where_it_is(
    name: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slip, field = SLIPS[name]
    written(path, {"providers": {"api.openai.com": slip, "other.example.com": GOOD}})
    file = CatalogueFile(path)
    with caplog.at_level(logging.WARNING):
        wrong, right = file.read().of("api.openai.com"), file.read().of("other.example.com")
    assert (price(wrong), wrong.closes, price(right)) == (None, None, "3.00")
    assert wrong.where.startswith("the chart's providerCatalogue, under api.openai.com, which cannot be read: ")
    assert field in wrong.where
    assert right.where == "the chart's providerCatalogue, under other.example.com"
    assert [field in record.getMessage() for record in caplog.records] == [True]  # once for each change


def test_what_was_known_of_an_entry_is_no_price_any_more_once_somebody_has_broken_it(path: Path) -> None:
    """As after a restart of the operator, which knows no earlier one."""
    file = CatalogueFile(path)
    written(path, {"providers": {"api.openai.com": GOOD}})
    assert price(file.read().of("api.openai.com")) == "3.00"
    written(path, {"providers": {"api.openai.com": GOOD | {"closes": "soon"}}})
    assert price(file.read().of("api.openai.com")) is None
    written(path, {"providers": {"api.openai.com": GOOD}})
    assert price(file.read().of("api.openai.com")) == "3.00"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Invalid JSON: EOF while parsing"),
        (b"{", "Invalid JSON: EOF while parsing"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b'{"provider": {}}', "provider: Extra inputs are not permitted"),
        (b'{"providers": []}', "providers: Input should be an object"),
    ],
)
def test_a_file_that_is_no_catalogue_is_told_and_changes_nothing(content: bytes, said: str, path: Path) -> None:
    file = CatalogueFile(path)
    written(path, content)
    assert price(file.read().of("api.openai.com")) is None
    written(path, {"providers": {"api.openai.com": GOOD}})
    assert price(file.read().of("api.openai.com")) == "3.00"
    written(path, content)
    for _ in range(2):  # an unchanged file is not read again
        facts = file.read().of("api.openai.com")
        assert (price(facts), f"which cannot be read: {said}" in facts.where) == ("3.00", True), facts.where
    written(path, {"providers": {"api.openai.com": GOOD}})
    assert "cannot be read" not in file.read().of("api.openai.com").where


def test_a_file_that_is_away_for_a_while_is_told_until_it_is_back(path: Path) -> None:
    file = CatalogueFile(path)
    written(path, {"providers": {"api.openai.com": GOOD}})
    assert price(file.read().of("api.openai.com")) == "3.00"
    away = path.rename(path.with_suffix(".away"))
    facts = file.read().of("api.openai.com")
    assert (price(facts), "which cannot be read: No such file" in facts.where) == ("3.00", True)
    away.rename(path)
    assert "cannot be read" not in file.read().of("api.openai.com").where


def test_without_a_file_nothing_is_known() -> None:
    assert CatalogueFile(None).read().of("llm.corp").where == "the chart's providerCatalogue, under llm.corp"


def test_a_slip_with_very_many_fields_is_told_in_a_few(path: Path) -> None:
    written(path, {"providers": {"h": {"models": {f"m{n}": {"training": {}} for n in range(500)}}}})
    assert len(CatalogueFile(path).read().of("h").where) < 500
