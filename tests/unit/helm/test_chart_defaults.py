"""The chart's defaults: told in its README, and asked for where an older chart's values lack them."""

import json
from typing import Any

import pytest

from tests.unit.helm.charts import CHART, ChartError, Values, render
from tests.unit.helm.values_table import README, rows, written

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(
    ("values", "told"),
    [({"checkImage": None}, True), ({"metrics": {"dashboard": None}}, True), ({"replicas": -1}, False)],
    ids=json.dumps,
)
def test_who_reuses_the_values_of_an_older_chart_is_told_which_flag_takes_the_new_ones(
    values: Values, told: bool
) -> None:
    with pytest.raises(ChartError) as error:
        render(values)
    assert ("--reset-then-reuse-values takes them" in str(error.value)) is told
    assert "allOf" not in str(error.value), "no words of the schema's own"


def test_what_is_asked_for_by_name_is_what_the_hint_goes_by() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert required(schema) == schema["definitions"]["complete"]


def required(schema: dict[str, Any]) -> dict[str, Any]:
    """What a schema requires, and nothing else of it."""
    own = {"required": schema["required"]} if "required" in schema else {}
    below = {name: required(part) for name, part in schema.get("properties", {}).items()}
    asked = {name: part for name, part in below.items() if part}
    return own | ({"properties": asked} if asked else {})


def test_the_charts_readme_has_a_row_for_every_value_with_its_default() -> None:
    assert README.read_text(encoding="utf-8") == written(), "run make chart-values"
    listed = {row.path for row in rows()}
    settings = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]["properties"]
    assert {f"settings.{name}" for name in settings} <= listed
