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


SLIPS: dict[str, tuple[Any, str]] = {
    "a negative price": ({"models": {"gpt-*": {"training": PRICE | {"perMillionTokens": "-3"}}}}, "perMillionTokens"),
    "a price that is no text": ({"models": {"gpt-*": {"training": PRICE | {"perMillionTokens": 3}}}}, "models.gpt-*"),
    "no number": ({"models": {"gpt-*": {"training": PRICE | {"perMillionTokens": "NaN"}}}}, "perMillionTokens"),
    "an absurd one": ({"models": {"gpt-*": {"training": PRICE | {"perMillionTokens": "9" * 25}}}}, "perMillionTokens"),
    "a misspelt field": ({"models": {}, "close": "2027-01-06"}, "close"),
    "no day": ({"closes": "in January"}, "closes"),
    "a price without its day": ({"models": {"gpt-*": {"training": {"perMillionTokens": "3"}}}}, "asOf"),
    "a list": ([], "the entry itself"),
    "nothing": (None, "the entry itself"),
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
    assert "under api.openai.com, which cannot be read as it is (" in wrong.where
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


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"provider": {}}', b'{"providers": []}'])
def test_a_file_that_is_no_catalogue_changes_nothing(content: bytes, path: Path) -> None:
    file = CatalogueFile(path)
    written(path, content)
    assert price(file.read().of("api.openai.com")) is None
    written(path, {"providers": {"api.openai.com": GOOD}})
    assert price(file.read().of("api.openai.com")) == "3.00"
    written(path, content)
    assert price(file.read().of("api.openai.com")) == "3.00"


def test_a_slip_with_very_many_fields_is_told_in_a_few(path: Path) -> None:
    written(path, {"providers": {"h": {"models": {f"m{n}": {"training": {}} for n in range(500)}}}})
    assert len(CatalogueFile(path).read().of("h").where) < 500
