"""What Prometheus reads is what is measured, and no more."""

import pytest
from prometheus_client import generate_latest

from finetune_operator.runtime import metrics


def test_no_metric_has_a_second_one_with_its_time_of_creation() -> None:
    metrics.REPORTS.labels("202").inc(0)
    text = generate_latest(metrics.REGISTRY).decode()
    assert 'finetune_reports_total{code="202"}' in text
    assert "_created" not in text


def test_a_deployment_whose_price_nobody_knows_has_none_and_is_told_of_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = metrics.DeploymentRow("team-a", "sentiment", billed_while_idle=True, cost_per_hour=None, currency="")
    monkeypatch.setattr(metrics.DEPLOYMENTS, "rows", lambda: [row])
    text = generate_latest(metrics.REGISTRY).decode()
    labels = '{deployment="sentiment",deployment_namespace="team-a"}'
    assert f"finetune_deployment_billed_while_idle{labels} 1.0" in text
    assert "\nfinetune_deployment_cost_per_hour{" not in text
