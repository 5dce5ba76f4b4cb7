"""The tests' own wait for definitions is not fooled by those that were created a moment ago."""

from typing import Any

import pytest

from tests.cluster.cluster import are_established

ESTABLISHED = {"conditions": [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]}


@pytest.mark.parametrize(
    ("statuses", "established"),
    [
        ([ESTABLISHED, ESTABLISHED], True),
        ([ESTABLISHED, {"conditions": None}], False),
        ([ESTABLISHED, {"conditions": [{"type": "Established", "status": "False"}]}], False),
        ([{}], False),
        ([], False),
    ],
)
def test_definitions_are_established_when_each_of_them_says_so(
    statuses: list[dict[str, Any]], established: bool
) -> None:
    assert are_established({"items": [{"status": status} for status in statuses]}) is established
