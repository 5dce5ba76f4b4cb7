"""What each value of the chart does, and which values it refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import quickstart
from finetune_api.crds import KINDS, crd
from finetune_operator.runtime.metrics import REGISTRY
from finetune_operator.runtime.settings import Settings
from tests.unit.helm.charts import (
    CASES,
    CHART,
    DIGEST,
    EVERYTHING,
    KUBE_VERSION,
    ROOT,
    WITHOUT_DEFINITIONS,
    ChartError,
    Manifest,
    Values,
    helm,
    of_kind,
    only,
    render,
)
from tests.unit.helm.values_table import undescribed

pytestmark = pytest.mark.cluster

BY_CHART = {
    "namespace", "service_name", "cluster_domain", "pod_name", "watch_namespaces", "lease_name", "tls_secret",
    "tls_dir", "log_level", "check_image", "provider_catalogue",
}  # fmt: skip
"""Settings that the chart sets by values of other names."""
FIXED = {"kubeconfig", "service_account", "report_port", "probe_port", "report_bind", "probe_bind"}
"""Settings that make no sense in a pod of the chart."""


@pytest.fixture(scope="module")
def defaults() -> list[Manifest]:
    return render({})


@pytest.fixture(scope="module")
def everything() -> list[Manifest]:
    return render(EVERYTHING)


def container(manifests: list[Manifest]) -> Manifest:
    found: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def environment(manifests: list[Manifest]) -> dict[str, str]:
    return {row["name"]: row.get("value", "by-the-kubelet") for row in container(manifests)["env"]}


@pytest.mark.parametrize("case", CASES)
def test_helm_lint_finds_nothing(case: str) -> None:
    whole = case in ("defaults", "everything on")
    values = CASES[case][2] | ({} if whole else WITHOUT_DEFINITIONS)
    assert "0 chart(s) failed" in helm("lint", "--strict", "--kube-version", "1.34.0", str(CHART), values=values)


@pytest.mark.parametrize("registry", ["", "localhost:5000/"])
@pytest.mark.parametrize("version", [":838415075678", ":1e10", ":0755", ":2026.11", ":v1", f"@{DIGEST}"])
def test_any_version_of_the_image_can_be_installed_the_way_the_guides_say(registry: str, version: str) -> None:
    image = f"{registry}finetune-operator{version}"
    text = helm(
        "template", "x", str(CHART), "--kube-version", "1.34.0", "--show-only", "templates/deployment.yaml",
        "--set", "crds.install=false", *quickstart.image_values(image),
    )  # fmt: skip
    assert yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]["image"] == image


def test_yamllint_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "rendered.yaml").write_text(
        helm("template", "x", str(CHART), "--kube-version", "1.34.0", values=EVERYTHING)
    )
    rules = (
        "{extends: default, rules: {line-length: disable, document-start: disable, comments-indentation: disable, "
        "comments: {min-spaces-from-content: 1}, braces: {max-spaces-inside: 1}, "
        "indentation: {indent-sequences: whatever}}}"
    )
    places = [tmp_path, CHART / "values.yaml", CHART / "Chart.yaml", ROOT / "helm/argocd"]
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "-d", rules, *places],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": "two"}, "replicas"),
        ({"replicas": -1}, "replicas"),
        ({"image": {"registry": "x"}}, "registry"),
        ({"image": {"digest": "sha256:abc"}}, "digest"),
        ({"image": {"pullPolicy": "always"}}, "pullPolicy"),
        ({"image": {"tag": "a:b"}}, "tag"),
        ({"image": {"repository": "https://ghcr.io/x/y"}}, "/image/repository"),
        ({"image": {"repository": "ghcr.io/x/y:1.2"}}, "/image/repository"),
        ({"checkImage": {"repository": f"ghcr.io/x/y@{DIGEST}"}}, "/checkImage/repository"),
        ({"checkImage": None}, "missing property 'checkImage'"),
        ({"metrics": {"dashboard": None}}, "at '/metrics': missing property 'dashboard'"),
        ({"checkImages": {"repository": "ghcr.io/x/y"}}, "checkImages"),
        ({"extraEnv": [{"name": "X", "value": 1}]}, "/extraEnv/0/value"),
        ({"extraEnv": [{"name": "X", "val": "y"}]}, "additional properties 'val' not allowed"),
        ({"extraEnv": [{"name": "X", "secretKeyRef": {}}]}, "additional properties 'secretKeyRef' not allowed"),
        ({"crds": {"enabled": True}}, "enabled"),
        ({"crds": {"keep": "yes"}}, "keep"),
        ({"watchNamespaces": "team-a"}, "watchNamespaces"),
        ({"watchNamespaces": ["Team_A"]}, "watchNamespaces"),
        ({"settings": {"worker": 3}}, "worker"),
        ({"settings": {"workers": 0}}, "workers"),
        ({"settings": {"reportPort": 1}}, "reportPort"),
        ({"logLevel": "debug"}, "logLevel"),
        ({"metrics": {"enabled": True}}, "enabled"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "interval"),
        ({"metrics": {"prometheusRule": {"runbookURL": "docs/runbook.md"}}}, "runbookURL"),
        ({"extraEnvFrom": [{"secret": {"name": "x"}}]}, "at '/extraEnvFrom/0': additional"),
        ({"networkPolicy": {"ingress": []}}, "ingress"),
        (
            {"networkPolicy": {"metricsFrom": [{"namespaceSelector": {}, "podSelecter": {}}]}},
            "'podSelecter' not allowed",
        ),
        ({"tolerations": [{"operator": "Exists", "efect": "NoSchedule"}]}, "at '/tolerations/0': additional"),
        ({"podDisruptionBudget": {"minAvailable": 1}}, "minAvailable"),
        ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"resources": {"limits": {"memory": 512}}}, "/resources/limits/memory"),
        ({"resources": {"limits": {"memory": "512MB"}}}, "/resources/limits/memory"),
        ({"resources": {"requests": {"ephemeral-storage": "512m"}}}, "/resources/requests/ephemeral-storage"),
        ({"resources": {"requests": {"cpu": "100Mi"}}}, "/resources/requests/cpu"),
        ({"commonLabels": {"app.kubernetes.io/managed-by": "argocd"}}, "commonLabels: app.kubernetes.io/managed-by"),
        ({"podLabels": {"app.kubernetes.io/name": "x"}}, "podLabels: app.kubernetes.io/name is a label of the chart's"),
        (
            {"metrics": {"serviceMonitor": {"enabled": True, "labels": {"app.kubernetes.io/instance": "x"}}}},
            "metrics.serviceMonitor.labels: app.kubernetes.io/instance",
        ),
        ({"extraEnv": [{"name": "FINETUNE_KUBE_QPS", "value": "9"}]}, "extraEnv: FINETUNE_KUBE_QPS: the operator's"),
        ({"serviceAccount": {"annotation": {}}}, "annotation"),
        ({"terminationGracePeriodSeconds": 0}, "terminationGracePeriodSeconds"),
        ({"fullnameOverride": "Upper"}, "fullnameOverride"),
        ({"serviceAccount": {"name": "my account"}}, "/serviceAccount/name"),
        ({"priorityClassName": "High!"}, "/priorityClassName"),
        ({"extraEnv": [{"value": "x"}]}, "extraEnv"),
        ({"extraVolumeMounts": [{"name": "ca"}]}, "mountPath"),
        ({"extraVolumes": [{"name": "ca"}]}, "/extraVolumes/0': minProperties"),
        ({"extraVolumes": [{"name": "ca", "configmap": {"name": "ca"}}]}, "'configmap' not allowed"),
        ({"extraVolumes": [{"name": "ca", "secret": {"name": "ca"}}]}, "'name' not allowed"),
        ({"clusterDomain": "corp..example"}, "clusterDomain"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name: name the account"),
        ({"reports": {"tls": {"existingSecret": "My_Secret"}}}, "/reports/tls/existingSecret"),
        ({"settings": {"leaseDurationSeconds": 5}}, "leaseRenewSeconds (10) < leaseDurationSeconds (5)"),
        ({"settings": {"leaseRenewSeconds": 15}}, "leaseRenewSeconds (15) < leaseDurationSeconds (15)"),
        ({"image": {"repository": "REGISTRY/finetune-operator"}}, "/image/repository"),
        ({"checkImage": {"repository": "ghcr.io/Team/check"}}, "/checkImage/repository"),
        ({"providerCatalogue": {"api.openai.com": {"closes": "2027-13-01"}}}, "api.openai.com/closes"),
        ({"providerCatalogue": {"azureOpenAI": {"hostingAsOf": "2027-02-30"}}}, "azureOpenAI/hostingAsOf"),
        ({"providerCatalogue": {"api.openai.com": {"preferenceModels": "gpt-*"}}}, "preferenceModels"),
        ({"providerCatalogue": {"openAI": {}}}, "providerCatalogue.openAI: there is no such entry: write the host"),
        ({"providerCatalogue": {"azure": {}}}, "providerCatalogue.azure: there is no such entry"),
        ({"providerCatalogue": {"sagemaker": {}}}, "or azureOpenAI, bedrock or sageMaker"),
        ({"providerCatalogue": {"https://api.openai.com/v1": {}}}, "write the host of the API as in baseURL"),
        ({"settings": {"leaseRetrySeconds": 8.4}}, "1.2 x leaseRetrySeconds (8.4) < leaseRenewSeconds (10)"),
    ],
    ids=json.dumps,
)
def test_a_wrong_value_is_refused_by_name(values: Values, says: str) -> None:
    with pytest.raises(ChartError) as error:
        render(values)
    assert says in str(error.value)


def test_a_label_of_values_takes_the_place_of_the_charts_own() -> None:
    """Twice in one object it would be refused by tools that read YAML strictly, and left to chance by the others."""
    same = {"app.kubernetes.io/part-of": "platform", "team": "ml"}
    monitor = {"enabled": True, "labels": {"team": "sre"}}
    given = {"commonLabels": same, "podLabels": {"team": "ops"}, "metrics": {"serviceMonitor": monitor}}
    found = render(WITHOUT_DEFINITIONS | given)
    labels = [one["metadata"]["labels"] for one in found]
    assert {one["app.kubernetes.io/part-of"] for one in labels} == {"platform"}
    pod = only(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert (pod["team"], only(found, "ServiceMonitor")["metadata"]["labels"]["team"]) == ("ops", "sre")


@pytest.mark.parametrize(
    ("value", "variable", "seconds"),
    [
        ("leaseRenewSeconds", "lease_renew_seconds", 14.5),
        ("leaseRetrySeconds", "lease_retry_seconds", 8.3),
        ("leaseDurationSeconds", "lease_duration_seconds", 11),
    ],
)
def test_lease_times_that_rise_are_taken_by_chart_and_operator(value: str, variable: str, seconds: float) -> None:
    assert Settings.model_validate({variable: seconds})
    assert render(WITHOUT_DEFINITIONS | {"settings": {value: seconds}})


def sections(values: Values, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all values that are objects or switches: what a null takes away, with whatever is below it."""
    for name, value in values.items():
        if isinstance(value, dict | bool):
            yield (*above, name)
        if isinstance(value, dict):
            yield from sections(value, (*above, name))


@pytest.mark.parametrize("path", [*sections(yaml.safe_load((CHART / "values.yaml").read_text()))], ids=".".join)
def test_a_value_that_null_takes_away_is_asked_for_by_name_or_not_needed(path: tuple[str, ...]) -> None:
    given: Any = None
    for name in reversed(path):
        given = {name: given}
    given = WITHOUT_DEFINITIONS | given
    try:
        said = helm("template", "f", str(CHART), "--kube-version", KUBE_VERSION, values=given)
    except ChartError as error:
        said = str(error)
    assert f"missing property '{path[-1]}'" in said or ("kind: Deployment" in said and "%!" not in said), said


def test_every_default_value_is_in_the_schema_and_documented() -> None:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load(text)
    assert set(schema["properties"]) == {*values, "global"}
    assert undescribed() == []


def test_the_operator_reads_every_variable_that_the_chart_sets(everything: list[Manifest]) -> None:
    own = {name: value for name, value in environment(everything).items() if name.startswith("FINETUNE_")}
    settings = Settings.from_environment(own)
    assert (settings.workers, settings.kube_qps, settings.resync_seconds) == (4, 50.5, 3600000)
    assert settings.kube_burst == 1000000, "a whole number, as pydantic reads it"
    assert (settings.cluster_domain, settings.log_level) == ("corp.example", "DEBUG")


def test_every_setting_of_the_operator_can_be_set_by_the_chart() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    offered = {re.sub("([A-Z])", r"_\1", name).lower() for name in schema["properties"]["settings"]["properties"]}
    assert offered == set(Settings.model_fields) - BY_CHART - FIXED


def test_every_setting_stands_in_values_with_its_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    shown = dict(re.findall(r"^  # (\w+): ([0-9.]+) ", (CHART / "values.yaml").read_text(), re.MULTILINE))
    names = {name: re.sub("([A-Z])", r"_\1", name).lower() for name in schema["properties"]["settings"]["properties"]}
    assert {name: float(value) for name, value in shown.items()} == {
        name: Settings.model_fields[field].default for name, field in names.items()
    }


def test_ports_and_paths_are_those_that_the_operator_opens(defaults: list[Manifest]) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(defaults)["ports"]}
    assert ports == {
        "http": Settings.model_fields["probe_port"].default,
        "reports": Settings.model_fields["report_port"].default,
    }
    assert container(defaults)["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container(defaults)["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


def test_pods_report_to_the_leader_alone(defaults: list[Manifest]) -> None:
    service = only(defaults, "Service")
    assert service["spec"]["selector"]["finetune.dev/leader"] == "true"
    assert service["spec"]["ports"] == [{"name": "reports", "port": 443, "targetPort": "reports"}]
    assert environment(defaults)["FINETUNE_SERVICE_NAME"] == service["metadata"]["name"]


def test_rights_name_the_lease_and_secret_that_the_operator_uses(defaults: list[Manifest]) -> None:
    named = {rule["resources"][0]: rule["resourceNames"][0] for rule in only(defaults, "Role")["rules"]
             if "resourceNames" in rule}  # fmt: skip
    variables = environment(defaults)
    assert named == {"leases": variables["FINETUNE_LEASE_NAME"], "secrets": variables["FINETUNE_TLS_SECRET"]}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "ghcr.io/example/finetune-operator:0.1.0"),
        ({"tag": "1.2"}, "ghcr.io/example/finetune-operator:1.2"),
        ({"repository": "r:5000/o", "tag": "1.2"}, "r:5000/o:1.2"),
        ({"tag": "1.2", "digest": DIGEST}, f"ghcr.io/example/finetune-operator@{DIGEST}"),
    ],
)
def test_a_digest_wins_over_a_tag_and_a_tag_over_the_charts_version(image: dict[str, str], expected: str) -> None:
    assert container(render(WITHOUT_DEFINITIONS | {"image": image}))["image"] == expected


@pytest.mark.parametrize(("replicas", "budgets"), [(0, 0), (1, 0), (2, 1)])
def test_a_disruption_budget_is_for_several_replicas(replicas: int, budgets: int) -> None:
    assert len(of_kind(render(WITHOUT_DEFINITIONS | {"replicas": replicas}), "PodDisruptionBudget")) == budgets


def test_definitions_in_the_chart_are_the_generated_ones_and_stay(defaults: list[Manifest]) -> None:
    found = {manifest["metadata"]["name"]: manifest for manifest in of_kind(defaults, "CustomResourceDefinition")}
    for kind in KINDS:
        wanted = crd(kind)
        installed = found.pop(wanted["metadata"]["name"])
        assert installed["spec"] == wanted["spec"]
        assert installed["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not found


def test_definitions_can_be_left_out_or_let_go() -> None:
    assert not of_kind(render({"crds": {"install": False}}), "CustomResourceDefinition")
    for definition in of_kind(render({"crds": {"keep": False}}), "CustomResourceDefinition"):
        assert "annotations" not in definition["metadata"]


def test_named_namespaces_get_rights_one_by_one() -> None:
    manifests = render(WITHOUT_DEFINITIONS | {"watchNamespaces": ["a", "b"]}, "f", "n")
    assert environment(manifests)["FINETUNE_WATCH_NAMESPACES"] == "a,b"
    bindings = {
        binding["metadata"]["namespace"]: binding["roleRef"]["name"] for binding in of_kind(manifests, "RoleBinding")
    }
    assert bindings == {
        "a": "f-finetune-operator-namespaced",
        "b": "f-finetune-operator-namespaced",
        "n": "f-finetune-operator-own",
        "default": "f-finetune-operator-events",
    }
    [cluster_wide] = of_kind(manifests, "ClusterRoleBinding")
    assert cluster_wide["roleRef"]["name"] == "f-finetune-operator-cluster"
    role = only(manifests, "ClusterRole", "-cluster")
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {
        "llmconnections", "llmconnections/status", "namespaces", "tokenreviews",
    }  # fmt: skip


def test_users_get_jobs_models_and_deployments_but_no_connections(defaults: list[Manifest]) -> None:
    aggregated = {role["metadata"]["name"]: role for role in of_kind(defaults, "ClusterRole") if aggregates(role)}
    assert set(aggregated) == {"finetune-finetune-operator-view", "finetune-finetune-operator-edit"}
    for role in aggregated.values():
        objects, scale = role["rules"]
        assert objects["resources"] == ["finetunejobs", "finetunedmodels", "modeldeployments"]
        assert scale["resources"] == ["modeldeployments/scale"]


def test_a_role_of_its_own_shows_connections_and_changes_none(defaults: list[Manifest]) -> None:
    [rule] = only(defaults, "ClusterRole", "-llmc-view")["rules"]
    assert (rule["resources"], rule["verbs"]) == (["llmconnections"], ["get", "list", "watch"])


def test_the_clusters_own_roles_can_be_left_alone() -> None:
    roles = of_kind(render(WITHOUT_DEFINITIONS | {"rbac": {"aggregate": False}}), "ClusterRole")
    assert not any(aggregates(role) for role in roles)


def aggregates(role: Manifest) -> bool:
    return any("aggregate-to" in label for label in role["metadata"]["labels"])


def test_only_pods_of_jobs_reach_the_report_server(defaults: list[Manifest]) -> None:
    reports, metrics = only(defaults, "NetworkPolicy")["spec"]["ingress"]
    assert reports["ports"] == [{"port": "reports", "protocol": "TCP"}]
    assert reports["from"] == [
        {
            "namespaceSelector": {},
            "podSelector": {"matchExpressions": [{"key": "finetune.dev/job", "operator": "Exists"}]},
        }
    ]
    assert metrics["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert only(defaults, "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress"]


def test_egress_is_closed_only_on_request(everything: list[Manifest]) -> None:
    policy = only(everything, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == [{"ports": [{"port": 6443, "protocol": "TCP"}]}]


def test_a_certificate_of_ones_own_is_mounted(everything: list[Manifest]) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container(everything)["volumeMounts"]}
    assert environment(everything)["FINETUNE_TLS_DIR"] == mounts["tls"]


def test_what_is_said_about_pods_reaches_them(everything: list[Manifest]) -> None:
    template = only(everything, "Deployment")["spec"]["template"]
    pod = template["spec"]
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["metadata"]["labels"]["c"] == "d"
    assert template["metadata"]["labels"]["team"] == "platform"
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "hostAliases"):
        assert pod[field] == EVERYTHING[field]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["matchLabelKeys"] == ["pod-template-hash"], "an upgrade's pods would flee from those they replace"


def test_a_pod_has_time_to_finish(defaults: list[Manifest]) -> None:
    grace = only(defaults, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > Settings.model_fields["shutdown_seconds"].default


def metric_names(text: str) -> set[str]:
    return set(re.findall(r"\b(?:finetune|process)_[a-z_]+\b", text))


@pytest.fixture(scope="module")
def served() -> set[str]:
    """Names under which the operator's metrics are scraped."""
    return {sample for family in REGISTRY.collect() for sample in names_of(family)}


def names_of(family: Any) -> set[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
    return {family.name + suffix for suffix in suffixes}


def test_alerts_speak_of_metrics_that_the_operator_serves(everything: list[Manifest], served: set[str]) -> None:
    [group] = only(everything, "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        used = metric_names(rule["expr"])
        assert used, rule["alert"]
        assert used <= served, rule["alert"]
        assert 'namespace="finetune-system"' in rule["expr"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_an_alert_links_to_its_entry_where_the_runbook_can_be_read() -> None:
    page = "https://git.example.com/ml/docs/runbook.md"
    for url, name, start in (("", "runbook", "docs/runbook.md"), (page, "runbook_url", page)):
        values = WITHOUT_DEFINITIONS | {"metrics": {"prometheusRule": {"enabled": True, "runbookURL": url}}}
        [group] = only(render(values), "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]:
            assert rule["annotations"][name] == f"{start}#{rule['alert'].lower()}"
            assert len(rule["annotations"].keys() & {"runbook", "runbook_url"}) == 1


def dashboard_of(manifests: list[Manifest]) -> str:
    """The dashboard's text."""
    [text] = [
        m["data"]["finetune-operator.json"]
        for m in of_kind(manifests, "ConfigMap")
        if "-providers" not in m["metadata"]["name"]
    ]
    return str(text)


def test_the_dashboard_shows_metrics_that_the_operator_serves(everything: list[Manifest], served: set[str]) -> None:
    dashboard = json.loads(dashboard_of(everything))
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert metric_names(target["expr"]) <= served, panel["title"]
            assert metric_names(target["expr"]), panel["title"]
        assert panel["description"]


def test_the_dashboard_leaves_no_metric_of_the_work_queue_out(everything: list[Manifest], served: set[str]) -> None:
    shown = metric_names(dashboard_of(everything))
    assert {name for name in served if name.startswith("finetune_queue_")} <= shown


def test_monitoring_is_off_until_it_is_asked_for(defaults: list[Manifest]) -> None:
    assert not {m["kind"] for m in defaults} & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert len(of_kind(defaults, "ConfigMap")) == 1, "the catalogue of providers"
    assert len(of_kind(defaults, "Service")) == 1


def test_the_charts_description_lists_the_kinds() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    listed = yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])
    assert {row["kind"]: row["name"] for row in listed} == {kind.kind: crd(kind)["metadata"]["name"] for kind in KINDS}
    assert chart["appVersion"] == "0.1.0"


def test_the_operator_asks_for_the_scratch_that_it_uses(defaults: list[Manifest]) -> None:
    """Where others have filled a node's disk, the kubelet first evicts pods that use more of it than they asked for."""
    (container,) = only(defaults, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["ephemeral-storage"] == "64Mi"
