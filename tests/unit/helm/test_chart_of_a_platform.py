"""What platform teams add to the operator's pod and to its alerts reaches them."""

import pytest

from finetune_api.manifest import Manifest
from tests.unit.helm.charts import EVERYTHING, WITHOUT_DEFINITIONS, ChartError, only, render

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def everything() -> list[Manifest]:
    return render(EVERYTHING | WITHOUT_DEFINITIONS)


def test_variables_come_from_secrets_and_a_reloader_finds_the_deployment(everything: list[Manifest]) -> None:
    deployment = only(everything, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == EVERYTHING["extraEnvFrom"]
    assert deployment["metadata"]["annotations"] == EVERYTHING["deploymentAnnotations"]


def test_every_alert_has_the_labels_by_which_it_is_routed_and_its_own_severity(everything: list[Manifest]) -> None:
    (group,) = only(everything, "PrometheusRule")["spec"]["groups"]
    labels = [rule["labels"] for rule in group["rules"]]
    assert all(one["team"] == "ml" and one["severity"] in ("critical", "warning", "info") for one in labels)


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("severity", "alertLabels: severity is each alert's own"),
        ("my-team", "at '/metrics/prometheusRule/alertLabels'"),
    ],
)
def test_a_label_that_an_alert_cannot_have_is_refused_by_name(label: str, says: str) -> None:
    rule = {"enabled": True, "alertLabels": {label: "x"}}
    with pytest.raises(ChartError) as error:
        render(WITHOUT_DEFINITIONS | {"metrics": {"prometheusRule": rule}})
    assert says in str(error.value)
