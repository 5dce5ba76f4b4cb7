"""The example's NetworkPolicy lets through what pods need, by labels and ports that chart and operator give them."""

from typing import Any

import yaml

from finetune_api.names import JOB_LABEL
from finetune_operator.desired.pod import labels
from finetune_operator.desired.serving import PORT
from tests.unit.helm.charts import ROOT, Manifest, render

POLICY: Manifest = yaml.safe_load((ROOT / "examples/network-policy.yaml").read_text(encoding="utf-8"))["spec"]
SEVERAL_NODES = [{"podSelector": {"matchExpressions": [{"key": JOB_LABEL, "operator": "Exists"}]}}]


def operators_pods() -> Manifest:
    found: list[Manifest] = [one for one in render({}) if one["kind"] == "Deployment"]
    template: Manifest = found[0]["spec"]["template"]
    return template


def test_it_is_for_all_pods_that_the_operator_makes_and_for_no_others() -> None:
    assert POLICY["podSelector"] == {"matchLabels": labels()}
    assert POLICY["policyTypes"] == ["Ingress", "Egress"]


def test_reports_reach_the_port_that_the_operators_pods_have_and_not_the_services() -> None:
    template = operators_pods()
    rules = [
        rule for rule in POLICY["egress"] if "namespaceSelector" in rule["to"][0] and "podSelector" in rule["to"][0]
    ]
    (rule,) = rules
    wanted: dict[str, Any] = rule["to"][0]["podSelector"]["matchLabels"]
    assert wanted.items() <= template["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert rule["ports"] == [{"port": ports["reports"]}]


def test_servers_are_asked_and_pods_of_several_nodes_reach_each_other() -> None:
    assert {"ports": [{"port": PORT}]} in POLICY["ingress"]
    assert {"from": SEVERAL_NODES} in POLICY["ingress"]
    assert {"to": SEVERAL_NODES} in POLICY["egress"]
