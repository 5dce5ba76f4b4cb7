"""The runbook has an entry for each alert and each reason, and for nothing else."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from finetune_api.reasons import Reason
from finetune_operator.decide.ignored_fields import EVENT
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
    named = set(re.findall(r"`(finetune_\w+)`", PAGE))
    assert named
    for name in named:
        assert f'"{name.removesuffix("_total")}"' in metrics, name


def event_reasons() -> Iterator[str]:
    """Texts that stand in the code for the reason of an Event: behind its type, in a call or in a tuple."""
    for path in (ROOT / "operator/finetune_operator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else ()
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            yield from (str(after) for kind, after in pairwise(texts) if kind in ("Normal", "Warning") and after)


def test_every_reason_of_an_event_is_explained() -> None:
    page = (ROOT / "docs/reference/reasons.md").read_text(encoding="utf-8").partition("## Events\n")[2]
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \|(?: [^|]+ \|){2}$", page.partition("\n## ")[0], re.MULTILINE)
    own = {*event_reasons(), EVENT} - {"Warning"} - {reason.value for reason in Reason}  # the other type of Events
    assert len(own) > 5
    assert sorted(rows) == sorted(own)
