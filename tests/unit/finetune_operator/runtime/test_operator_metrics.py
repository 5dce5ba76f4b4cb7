"""What Prometheus reads is what is measured, and no more."""

from prometheus_client import generate_latest

from finetune_operator.runtime import metrics


def test_no_metric_has_a_second_one_with_its_time_of_creation() -> None:
    metrics.REPORTS.labels("202").inc(0)
    text = generate_latest(metrics.REGISTRY).decode()
    assert 'finetune_reports_total{code="202"}' in text
    assert "_created" not in text
