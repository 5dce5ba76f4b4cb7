"""The catalogue's file: read again when it changes, and what is said while it cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.providers.catalogue import CatalogueFile


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def providers(**facts: Any) -> str:
    return json.dumps({"providers": {"llm.corp": facts}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (providers(closes="2027-13-01"), "providers.llm.corp.closes: Input should be a valid date"),
        (providers(hosting={"Standard": 1.7}), "providers.llm.corp.hosting.Standard: Input should be a valid string"),
        (providers(closse="2027-01-01"), "providers.llm.corp.closse: Extra inputs are not permitted"),
        ("{", "Invalid JSON: EOF while parsing"),
    ],
)
def test_a_catalogue_that_cannot_be_read_says_by_which_field_to_those_who_miss_a_price(
    tmp_path: Path, text: str, said: str
) -> None:
    facts = CatalogueFile(written(tmp_path / "providers.json", text)).read().of("llm.corp")
    assert facts.where.startswith(f"the chart's providerCatalogue, which cannot be read: {said}")


def test_what_was_read_before_counts_until_it_can_be_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "providers.json", providers(closes="2027-01-01"))
    file = CatalogueFile(path)
    assert file.read().of("llm.corp").where == "the chart's providerCatalogue, under llm.corp"
    written(path, providers(closes="soon"))
    for _ in range(2):  # an unchanged file is not read again
        facts = file.read().of("llm.corp")
        assert (str(facts.closes), "cannot be read: providers.llm.corp.closes" in facts.where) == ("2027-01-01", True)
    written(path, providers(closes="2027-02-01", hosting={}))
    facts = file.read().of("llm.corp")
    assert (str(facts.closes), facts.problem) == ("2027-02-01", "")
    path.unlink()
    assert "No such file" in file.read().of("llm.corp").where


def test_without_a_file_nothing_is_known() -> None:
    assert CatalogueFile(None).read().of("llm.corp").where == "the chart's providerCatalogue, under llm.corp"
