"""The chart against a real API server: taken as it is, installed, upgraded, uninstalled, with the rights it says."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import config
from kubernetes.client import AuthorizationV1Api

from finetune_api.manifest import Manifest
from finetune_api.names import PROVIDER_FINALIZER
from tests.cluster import binaries
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.contract import openapi
from tests.contract.conftest import ROOT, Server
from tests.contract.manifests import JOB, LOCAL, MODEL
from tests.unit.helm.charts import CASES, CHART, EVERYTHING, only, render

pytestmark = pytest.mark.cluster

MONITORING = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
NAMESPACE = "finetune-system"
INSTALL_GUIDE = ROOT / "docs/guides/install.md"


WITHOUT_DEFINITIONS = ("--set", "crds.install=false")
"""Where the question is another one: they are nine tenths of what helm renders and sends."""

UNREAD = "--disable-openapi-validation"
"""Helm need not read all schemas of the server, most of its work: the server looks at every object of every case."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """An API server that knows the Prometheus operator's kinds and has the namespaces of all cases."""
    with Cluster(f"chart-{os.getpid()}", nodes=0, controllers=False) as cluster:
        server = Server(cluster)
        names = {row[1] for row in CASES.values()} | {"team-a", "1", NAMESPACE}
        for name in names:
            server.store({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        server.kubectl("apply", "--server-side", *(f"--filename={path}" for path in monitoring_definitions()))
        server.cluster.wait_for_definitions()
        yield server


def monitoring_definitions() -> list[Path]:
    """Definitions of ServiceMonitor, PodMonitor and PrometheusRule, from the Prometheus operator's own module."""
    command = [binaries.go_command(), "mod", "download", "-json", MONITORING]
    answer = subprocess.run(command, cwd=Path("/"), capture_output=True, text=True, check=True)
    folder = Path(json.loads(answer.stdout)["Dir"]) / "example/prometheus-operator-crd"
    return [
        folder / f"monitoring.coreos.com_{kind}.yaml" for kind in ("servicemonitors", "podmonitors", "prometheusrules")
    ]


@pytest.fixture(scope="module")
def taken() -> set[str]:
    """Specs of definitions that the server has taken: a second of processor time for the four of them, in each case."""
    return set()


def untried(objects: list[Manifest], taken: set[str]) -> list[Manifest]:
    """Without definitions whose spec was taken in another case, but for one: their metadata is of one template."""
    specs = {id(one): json.dumps(one["spec"]) for one in objects if one["kind"] == "CustomResourceDefinition"}
    known = sorted((len(spec), key) for key, spec in specs.items() if spec in taken)
    taken.update(specs.values())
    left_out = {key for _, key in known[1:]}
    return [one for one in objects if id(one) not in left_out]


@pytest.mark.parametrize("case", CASES)
def test_the_server_takes_every_object_of_every_case(server: Server, taken: set[str], case: str) -> None:
    release, namespace, values = CASES[case]
    for item in untried(render(values, release, namespace), taken):
        server.accept(item)


def test_the_server_refuses_a_field_that_it_does_not_know(server: Server) -> None:
    deployment = only(render({}), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert 'unknown field "spec.template.spec.containers[0].livenesProbe"' in server.refusal(deployment)


def test_kubeconform_finds_no_field_that_the_server_does_not_know(server: Server, tmp_path: Path) -> None:
    schemas, manifests = tmp_path / "schemas", tmp_path / "manifests"
    schemas.mkdir()
    manifests.mkdir()
    openapi.write_schemas(json.loads(server.kubectl("get", "--raw", "/openapi/v2")), schemas)
    cases = ("defaults", "everything on", "some namespaces", "everything off")
    for case in cases:
        release, namespace, values = CASES[case]
        for number, manifest in enumerate(render(values, release, namespace)):
            (manifests / f"{case}-{number}.json").write_text(json.dumps(manifest))
    answer = kubeconform(schemas, manifests)
    assert answer["summary"]["valid"] == len(list(manifests.iterdir()))
    assert {key: answer["summary"][key] for key in ("invalid", "errors", "skipped")} == {
        "invalid": 0, "errors": 0, "skipped": 0,
    }, answer["resources"]  # fmt: skip


def test_kubeconform_does_find_what_is_wrong(server: Server, tmp_path: Path) -> None:
    openapi.write_schemas(json.loads(server.kubectl("get", "--raw", "/openapi/v2")), tmp_path)
    deployment = only(render({}), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    (tmp_path / "manifest.yaml").write_text(json.dumps(deployment))
    answer = kubeconform(tmp_path, tmp_path / "manifest.yaml")
    assert answer["summary"]["invalid"] == 1
    assert "livenesProbe" in answer["resources"][0]["msg"]


def kubeconform(schemas: Path, manifests: Path) -> Manifest:
    program = binaries.program("kubeconform", module="kubeconform")
    command = [program, "-strict", "-summary", "-output", "json", "-schema-location", schemas / openapi.LOCATION]
    done = subprocess.run([*command, manifests], capture_output=True, text=True, check=False)
    answer: Manifest = json.loads(done.stdout)
    return answer


def test_the_pod_is_admitted_where_the_restricted_standard_is_enforced(server: Server) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted", "labels": labels}}
    server.store(namespace)
    server.store(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "restricted"}}
    )
    template = only(render({}), "Deployment")["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": "restricted"},
        "spec": template["spec"] | {"serviceAccountName": "default"},
    }
    server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


@pytest.fixture(scope="module")
def installed(server: Server) -> Server:
    server.cluster.helm("install", "finetune-operator", str(CHART), "--namespace", NAMESPACE)
    server.cluster.wait_for_definitions()
    return server


ALLOWED = [
    ("get", "finetune.dev/llmconnections", None),
    ("patch", "finetune.dev/llmconnections/status", None),
    ("watch", "namespaces", None),
    ("create", "authentication.k8s.io/tokenreviews", None),
    ("delete", "finetune.dev/finetunejobs", "team-a"),
    ("patch", "finetune.dev/finetunejobs/status", "team-a"),
    ("create", "finetune.dev/finetunedmodels", "team-a"),
    ("patch", "finetune.dev/modeldeployments", "team-a"),
    ("create", "batch/jobs", "team-a"),
    ("create", "apps/deployments", "team-a"),
    ("patch", "services", "team-a"),
    ("create", "policy/poddisruptionbudgets", "team-a"),
    ("get", "pods/log", "team-a"),
    ("create", "events.k8s.io/events", "team-a"),
    ("list", "events.k8s.io/events", "team-a"),
    ("get", "secrets", NAMESPACE),
    ("patch", "secrets:finetune-operator-tls", NAMESPACE),
    ("patch", "coordination.k8s.io/leases:finetune-operator", NAMESPACE),
    ("patch", "pods", NAMESPACE),
]
REFUSED = [
    ("get", "secrets", "team-a"),
    ("list", "secrets", NAMESPACE),
    ("patch", "secrets:openai", NAMESPACE),
    ("delete", "secrets:finetune-operator-tls", NAMESPACE),
    ("patch", "coordination.k8s.io/leases:another", NAMESPACE),
    ("get", "configmaps", "team-a"),
    ("create", "pods", "team-a"),
    ("patch", "pods", "team-a"),
    ("create", "pods/exec", "team-a"),
    ("create", "serviceaccounts/token", "team-a"),
    ("create", "finetune.dev/finetunejobs", "team-a"),
    ("delete", "finetune.dev/finetunedmodels", "team-a"),
    ("create", "finetune.dev/llmconnections", None),
    ("patch", "finetune.dev/llmconnections", None),
    ("list", "apiextensions.k8s.io/customresourcedefinitions", None),
    ("create", "rbac.authorization.k8s.io/clusterroles", None),
    ("delete", "namespaces", None),
    ("get", "nodes", None),
    ("delete", "policy/poddisruptionbudgets", "team-a"),
]


@pytest.mark.parametrize(
    ("verb", "what", "namespace", "expected"),
    [*((*row, True) for row in ALLOWED), *((*row, False) for row in REFUSED)],
    ids=str,
)
def test_the_operator_may_do_this_and_not_that(
    installed: Server, verb: str, what: str, namespace: str | None, expected: bool
) -> None:
    assert may(installed, verb, what, namespace) is expected


def may(server: Server, verb: str, what: str, namespace: str | None) -> bool:
    """Whether the operator's account may do something with GROUP/RESOURCE/SUBRESOURCE:NAME."""
    path, _, name = what.partition(":")
    parts = path.split("/")
    group = parts.pop(0) if "." in parts[0] or parts[0] in {"batch", "apps", "policy"} else ""
    attributes = {"verb": verb, "group": group, "resource": parts[0], "subresource": "".join(parts[1:]), "name": name}
    if namespace:
        attributes["namespace"] = namespace
    user = f"system:serviceaccount:{NAMESPACE}:finetune-operator"
    api = AuthorizationV1Api(config.new_client_from_config(str(server.cluster.kubeconfig)))
    review = api.create_subject_access_review({"spec": {"user": user, "resourceAttributes": attributes}})
    return bool(review.status.allowed)


def test_gitops_takes_over_from_helm_by_server_side_apply_without_a_conflict(installed: Server) -> None:
    """What the API server completes in a field that is applied as a whole is written out in the chart."""
    items = [one for one in render({}, "finetune-operator", NAMESPACE) if one["kind"] != "CustomResourceDefinition"]
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    told = installed.kubectl("apply", "--server-side", "--dry-run=server", "--filename=-", stdin=objects)
    assert told.count("serverside-applied (server dry run)") == len(items)


def test_definitions_are_upgraded_with_the_chart(installed: Server) -> None:
    """The trap of Helm's crds/ folder, which is never upgraded."""
    name = "finetunejobs.finetune.dev"
    columns = installed.get("crd", name)["spec"]["versions"][0]["additionalPrinterColumns"]
    older = [{"op": "replace", "path": "/spec/versions/0/additionalPrinterColumns", "value": columns[:1]}]
    installed.kubectl("patch", "crd", name, "--type=json", f"--patch={json.dumps(older)}")
    installed.cluster.helm("upgrade", "finetune-operator", str(CHART), "--namespace", NAMESPACE, "--set", "replicas=2")
    assert installed.get("crd", name)["spec"]["versions"][0]["additionalPrinterColumns"] == columns
    assert installed.get("deployment", "finetune-operator", "-n", NAMESPACE)["spec"]["replicas"] == 2


def test_all_values_can_be_changed_at_once_and_changed_back(installed: Server, tmp_path: Path) -> None:
    """No field that Kubernetes fixes rests on a value."""
    values = tmp_path / "values.json"
    values.write_text(json.dumps(EVERYTHING))
    upgrade = ("upgrade", "finetune-operator", str(CHART), "--namespace", NAMESPACE, UNREAD)
    installed.cluster.helm(*upgrade, "--values", str(values))
    assert installed.get("deployment", "finetune-operator", "-n", NAMESPACE)["spec"]["replicas"] == 3
    installed.cluster.helm(*upgrade, "--reuse-values", "--set", "replicas=2")
    changed = installed.get("deployment", "finetune-operator", "-n", NAMESPACE)["spec"]
    assert (changed["replicas"], changed["template"]["metadata"]["labels"]["c"]) == (2, "d")
    installed.cluster.helm(*upgrade, "--reset-values")
    assert installed.get("deployment", "finetune-operator", "-n", NAMESPACE)["spec"]["replicas"] == 1


@pytest.mark.alike
@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ([], [], "some or all namespaces"),
        ([], ["team-a"], "all namespaces"),
        (["team-a"], [], "some or all namespaces"),
        (["team-a", "1"], ["1"], "namespace 1"),
        (["team-a"], ["1"], None),
    ],
)
def test_two_releases_do_not_look_after_the_same_namespaces(
    installed: Server, first: list[str], second: list[str], refused: str | None
) -> None:
    own = ("upgrade", "finetune-operator", str(CHART), "--namespace", NAMESPACE, UNREAD)
    installed.cluster.helm(*own, "--reset-values", "--set-json", f"watchNamespaces={json.dumps(first)}")
    another = (
        "install",
        "second",
        str(CHART),
        "--namespace",
        "team-a",
        "--dry-run=server",
        UNREAD,
        *WITHOUT_DEFINITIONS,
    )
    try:
        said = installed.cluster.helm(*another, "--set-json", f"watchNamespaces={json.dumps(second)}")
    except ClusterError as error:
        said = str(error)
    told = f"release finetune-operator in namespace {NAMESPACE} looks after {refused}: two operators would work on"
    assert (told in said) is (refused is not None), said


def test_uninstalling_keeps_definitions_and_objects_and_nothing_else(installed: Server) -> None:
    for manifest in (LOCAL, JOB, MODEL):
        installed.store(manifest)
    installed.cluster.helm("uninstall", "finetune-operator", "--namespace", NAMESPACE)
    assert len(installed.get("crd", "-l", "app.kubernetes.io/instance=finetune-operator")["items"]) == 4
    assert len(installed.get("finetune", "-A")["items"]) == 3
    left = "clusterroles,clusterrolebindings,roles,rolebindings,services,deployments,serviceaccounts,networkpolicies"
    assert installed.get(left, "-A", "-l", "app.kubernetes.io/instance=finetune-operator")["items"] == []


def test_installing_again_finds_everything_where_it_was(installed: Server) -> None:
    installed.cluster.helm("install", "finetune-operator", str(CHART), "--namespace", NAMESPACE)
    assert len(installed.get("finetune", "-A")["items"]) == 3
    installed.cluster.helm("uninstall", "finetune-operator", "--namespace", NAMESPACE)


def test_objects_and_definitions_go_without_sticking_once_the_operator_is_gone(installed: Server) -> None:
    """No finalizer and no hook: the admin may delete in any order.

    What is at a provider holds its object, and so its definition; the guide's patch lets it go.
    """
    name = JOB["metadata"]["name"]
    installed.patch("ftj", name, {"metadata": {"finalizers": [PROVIDER_FINALIZER]}})
    installed.kubectl("delete", "crd", "-l", "app.kubernetes.io/instance=finetune-operator", "--wait=false")
    installed.kubectl("wait", "--for=delete", "crd/modeldeployments.finetune.dev", "--timeout=120s")
    assert "deletionTimestamp" in installed.get("ftj", name)["metadata"]
    heading, row = installed.kubectl("get", "ftj", name, "-o", "wide").splitlines()
    assert re.match(r"\d+[ms]", row[heading.index("DELETING") :])
    (held,) = re.findall(r"^kubectl (get ftj,md .*)$", INSTALL_GUIDE.read_text(), re.MULTILINE)
    assert installed.kubectl(*shlex.split(held.replace(",md", ""))).startswith(f"FineTuneJob default/{name}, ")
    (patch,) = re.findall(r"`kubectl patch ftj NAME (--type merge -p '[^']*')`", INSTALL_GUIDE.read_text())
    installed.kubectl("patch", "ftj", name, *shlex.split(patch))
    installed.kubectl("wait", "--for=delete", "crd/finetunejobs.finetune.dev", "--timeout=120s")
    with pytest.raises(ClusterError, match="finetune"):
        installed.get("ftj", "-A")


def notes_of(server: Server, *flags: str) -> str:
    """What helm would tell whoever installs the chart so."""
    text = server.cluster.helm(
        "install", "odd", str(CHART), "--namespace", NAMESPACE, "--dry-run=server", UNREAD, *flags
    )
    return text.partition("NOTES:")[2]


@pytest.fixture(scope="module")
def notes(server: Server) -> str:
    """What helm tells whoever installs the chart with its own values."""
    return notes_of(server)


@pytest.mark.parametrize(
    "odd",
    [
        {
            "replicas=0": "nothing will happen to jobs",
            "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true": "scraped twice",
            "image.tag=latest": "a restart is not an upgrade",
            "crds.install=false": "at every upgrade",
            "resources=null": "first to be evicted",
            "settings.shutdownSeconds=60": "may be cut off",
            "extraEnv[0].name=HTTPS_PROXY,extraEnv[0].value=http://proxy:3128": "HTTPS_PROXY without NO_PROXY",
        },
        {
            "replicas=2,podDisruptionBudget.enabled=false": "may end all of them at once",
            f"image.tag=v1,image.digest=sha256:{'a' * 64}": "the digest wins",
            "crds.keep=false": "deletes ALL jobs",
            "extraEnv[0].name=NO_PROXY,extraEnv[0].value=10.0.0.0/8": "a range such as 10.0.0.0/8, which is read as a",
        },
    ],
    ids=["one", "another"],
)
def test_notes_warn_of_odd_values(server: Server, odd: dict[str, str]) -> None:
    text = notes_of(server, *(flag for values in odd for flag in ("--set", values)))
    warnings = [line for line in text.splitlines() if line.startswith("WARNING")]
    assert [says for says in odd.values() if not any(says in line for line in warnings)] == []
    assert len(warnings) == len(odd), "each is told of once"


def test_notes_do_not_warn_of_a_proxy_that_is_not_for_the_api_server(server: Server) -> None:
    without = "$(KUBERNETES_SERVICE_HOST),10.0.0.0/8"
    proxy = [{"name": "https_proxy", "value": "http://proxy:3128"}, {"name": "no_proxy", "value": without}]
    flags = ("--set-json", f"extraEnv={json.dumps(proxy)}")
    assert "PROXY" not in notes_of(server, *WITHOUT_DEFINITIONS, *flags)


def test_notes_tell_the_next_command_and_warn_of_nothing_by_default(notes: str) -> None:
    assert f"kubectl -n {NAMESPACE} rollout status deployment/odd-finetune-operator" in notes
    assert "kind: LLMConnection" in notes
    assert "WARNING" not in notes


def test_notes_say_where_nobody_looks(server: Server, notes: str) -> None:
    said = "This release watches only default (watchNamespaces)"
    assert said not in notes
    assert said in notes_of(server, *WITHOUT_DEFINITIONS, "--set", "watchNamespaces={default}")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "checkImage.repository and image.repository are placeholders"),
        (["image.repository=r/operator"], "checkImage.repository is a placeholder"),
        (["image.repository=r/operator", "checkImage.repository=r/check"], None),
    ],
)
def test_notes_name_the_images_that_are_placeholders(server: Server, values: list[str], says: str | None) -> None:
    flags = [flag for value in values for flag in ("--set", value)]
    notes = notes_of(server, *WITHOUT_DEFINITIONS, *flags)
    assert ("placeholder" in notes) == (says is not None)
    assert (says or "") in notes


def test_the_notes_connection_is_one_that_the_server_takes(server: Server, notes: str) -> None:
    manifest = notes.partition("<<'EOF'")[2].partition("EOF")[0]
    server.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    server.cluster.wait_for_definitions()
    server.kubectl("create", "--dry-run=server", "-f", "-", stdin=manifest)
