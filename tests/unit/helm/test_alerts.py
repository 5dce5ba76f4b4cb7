"""promtool plays time series to the chart's alerts: each is raised by what it is for, and by nothing less."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.manifest import Manifest
from tests.cluster import binaries
from tests.unit.helm.charts import only, render

CASES = Path(__file__).with_name("alerts.yaml")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not binaries.is_built("promtool"), reason="promtool is not built, which takes minutes: make test-alerts"
    ),
]


@pytest.fixture(scope="module")
def groups() -> list[Manifest]:
    values = {"metrics": {"prometheusRule": {"enabled": True}}}
    rule = only(render(values), "PrometheusRule")
    found: list[Manifest] = rule["spec"]["groups"]
    return found


def alerts(groups: list[Manifest]) -> dict[str, Manifest]:
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def annotated(case: Manifest, rules: dict[str, Manifest]) -> Manifest:
    """The case with the rule's texts as what is expected of them; promtool compares those too."""
    for check in case["alert_rule_test"]:
        for expected in check["exp_alerts"]:
            texts, labels = rules[check["alertname"]]["annotations"], expected["exp_labels"]
            expected["exp_annotations"] = {name: filled(str(text), labels) for name, text in texts.items()}
    return case


def filled(text: str, labels: Manifest) -> str:
    """A rule's text with the alert's labels, as Prometheus writes it."""
    return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: str(labels.get(found[1], "")), text)


def test_alerts_are_raised_by_what_they_are_for(groups: list[Manifest], tmp_path: Path) -> None:
    cases: dict[str, Any] = yaml.safe_load(CASES.read_text())
    cases["tests"] = [annotated(case, alerts(groups)) for case in cases["tests"]]
    cases["rule_files"] = ["rules.yaml"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    promtool = binaries.program("promtool", "promtool")
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "cases.yaml"]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_raised_by_some_case(groups: list[Manifest]) -> None:
    cases = yaml.safe_load(CASES.read_text())["tests"]
    raised = {check["alertname"] for case in cases for check in case["alert_rule_test"] if check["exp_alerts"]}
    assert raised == set(alerts(groups))
