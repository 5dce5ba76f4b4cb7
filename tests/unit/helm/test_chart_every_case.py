"""What holds of the chart's objects whatever the values are."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from finetune_api.manifest import Manifest
from tests.unit.helm.charts import CASES, of_kind, only, render

pytestmark = pytest.mark.cluster

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

every_case = pytest.mark.parametrize("case", CASES)


@cache
def rendered(case: str) -> list[Manifest]:
    release, namespace, values = CASES[case]
    return render(values, release, namespace)


def rules(case: str, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for role in of_kind(rendered(case), kind):
        for rule in role["rules"]:
            yield role["metadata"]["name"], rule


@every_case
def test_names_are_unique_dns_labels(case: str) -> None:
    named = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in rendered(case)]
    assert len(set(named)) == len(named)
    for kind, _, name in named:
        assert kind == "CustomResourceDefinition" or DNS_LABEL.fullmatch(name), f"{kind} {name}"


@every_case
def test_namespaced_objects_say_where_they_belong(case: str) -> None:
    _, namespace, values = CASES[case]
    watched = values.get("watchNamespaces", ())
    allowed = {namespace, *watched, *(["default"] if watched else [])}  # where Events of connections are
    for manifest in rendered(case):
        if manifest["kind"] in CLUSTER_WIDE:
            assert "namespace" not in manifest["metadata"]
        else:
            assert manifest["metadata"]["namespace"] in allowed


@every_case
def test_labels_and_annotations_are_text_that_kubernetes_takes(case: str) -> None:
    for manifest in rendered(case):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == CASES[case][0]
        assert all(LABEL_VALUE.fullmatch(value) for value in labels.values()), labels
        assert all(isinstance(value, str) for value in manifest["metadata"].get("annotations", {}).values())


@every_case
def test_whatever_selects_pods_selects_the_operators(case: str) -> None:
    manifests = rendered(case)
    pod = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    leader = pod | {"finetune.dev/leader": "true"}
    selectors = [m["spec"]["selector"] for m in of_kind(manifests, "Service")]
    selectors += [m["spec"]["selector"]["matchLabels"] for k in ("Deployment", "PodDisruptionBudget", "PodMonitor")
                  for m in of_kind(manifests, k)]  # fmt: skip
    selectors += [m["spec"]["podSelector"]["matchLabels"] for m in of_kind(manifests, "NetworkPolicy")]
    assert all(selector.items() <= leader.items() for selector in selectors)


@every_case
def test_no_right_is_a_wildcard(case: str) -> None:
    for kind in ("Role", "ClusterRole"):
        for name, rule in rules(case, kind):
            parts = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not any("*" in part for part in parts), name
            assert all(rule[key] for key in ("apiGroups", "resources", "verbs")), name
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), name


@every_case
def test_secrets_are_out_of_reach_but_in_the_own_namespace(case: str) -> None:
    for name, rule in rules(case, "ClusterRole"):
        assert "secrets" not in rule["resources"], name
        assert not {"pods/exec", "serviceaccounts/token", "pods/ephemeralcontainers"} & set(rule["resources"]), name
    for name, rule in rules(case, "Role"):
        if "secrets" in rule["resources"]:
            assert not {"list", "watch", "delete", "deletecollection"} & set(rule["verbs"]), name
            assert "resourceNames" in rule or set(rule["verbs"]) == {"get", "create"}, name
    for role in of_kind(rendered(case), "Role"):
        reached = {resource for rule in role["rules"] for resource in rule["resources"]}
        assert role["metadata"]["namespace"] == CASES[case][1] or reached == {"events"}


def test_events_of_connections_may_be_written_whichever_namespaces_are_looked_after() -> None:
    """They have no namespace, so that theirs is `default`."""
    role = only(render({"watchNamespaces": ["a"]}, "f", "n"), "Role", "-events")
    assert role["metadata"]["namespace"] == "default"
    assert role["rules"] == [{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]}]
    for enough in ([], ["default"]):
        manifests = render({"watchNamespaces": enough}, "f", "n")
        assert not [one for one in of_kind(manifests, "Role") if one["metadata"]["name"].endswith("-events")]


@every_case
def test_only_the_operator_gets_the_operators_rights(case: str) -> None:
    manifests = rendered(case)
    account = only(manifests, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    expected = [{"kind": "ServiceAccount", "name": account, "namespace": CASES[case][1]}]
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for binding in of_kind(manifests, kind):
            assert binding["subjects"] == expected
            assert binding["roleRef"]["name"] in {
                role["metadata"]["name"] for role in of_kind(manifests, binding["roleRef"]["kind"])
            }


@every_case
def test_pods_meet_the_restricted_standard(case: str) -> None:
    pod = only(rendered(case), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
    assert all(set(volume) <= {"name", "configMap", "emptyDir", "secret"} for volume in pod["volumes"])


@every_case
def test_an_upgrade_changes_no_selector(case: str) -> None:
    """apps/v1 refuses it: nothing in a selector may come from the version or from values that people change."""
    selector = only(rendered(case), "Deployment")["spec"]["selector"]["matchLabels"]
    assert set(selector) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
