"""The runbook has an entry for each alert and each reason, and for nothing else."""

import re
from collections import Counter

import pytest

from finetune_api.reasons import Reason
from tests.unit.docs.pages import ROOT

PAGE = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
RULES = (ROOT / "helm/finetune-operator/templates/prometheusrule.yaml").read_text(encoding="utf-8")
ALERTS = re.findall(r"- alert: (\w+)", RULES)


def entries() -> dict[str, str]:
    """Texts below the headings of the third rank."""
    parts = re.split(r"^### (\w+)\n", PAGE.partition("## Reasons")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_its_meaning_a_place_to_look_at_and_something_to_do(alert: str) -> None:
    assert re.findall(r"^- \*\*(.+?):\*\* \S", entries()[alert], re.MULTILINE) == ["Means", "Look at", "Do"]


def test_no_entry_is_of_an_alert_that_does_not_exist() -> None:
    assert list(entries()) == ALERTS


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_its_entry(alert: str) -> None:
    rule = RULES.partition(f"- alert: {alert}\n")[2].partition("- alert:")[0]
    assert f"docs/runbook.md#{alert.lower()}" in rule


def test_every_reason_is_in_one_row_with_a_place_to_look_at() -> None:
    rows = re.findall(r"^\| ((?:`\w+` ?)+)\| (.+) \|$", PAGE.partition("## Reasons")[2], re.MULTILINE)
    named = Counter(reason for cells, _ in rows for reason in re.findall(r"`(\w+)`", cells))
    assert named == Counter(reason.value for reason in Reason)


def test_every_metric_that_the_runbook_names_is_there() -> None:
    metrics = (ROOT / "operator/finetune_operator/runtime/metrics.py").read_text()
    for name in set(re.findall(r"`(finetune_\w+)`", PAGE)):
        assert f'"{name.removesuffix("_total")}"' in metrics, name
