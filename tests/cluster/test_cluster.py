"""The throw-away cluster keeps its promises: what runs on it, clusters apart, and that `down` gives everything back."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, ClusterError, base_image, cgroups, network, processes, shell
from tests.cluster.node import cgroup_of
from tests.cluster.paths import REPOSITORY
from tests.cluster.pause_image import PAUSE_IMAGE

pytestmark = pytest.mark.cluster

Manifest = dict[str, Any]
NAMESPACE = "selftest"
# A Service answers a moment after its pod is ready, so a client of it asks again, as clients of Services do.
FETCH = """
import time, urllib.request
def status(url):
    for attempt in range(40):
        try:
            return urllib.request.urlopen(url, timeout=5).status
        except OSError as error:
            print(error, file=__import__("sys").stderr)
            time.sleep(0.25)
print([status(f"http://{{name}}/") for name in {names}])
"""


@pytest.fixture(scope="module")
def image() -> str:
    return base_image()


@pytest.fixture(scope="module")
def cluster(image: str) -> Iterator[Cluster]:
    with Cluster("selftest", nodes=2) as up:
        up.load_image(image)
        up.apply(namespace(NAMESPACE))
        yield up


def test_up_leaves_a_running_cluster_as_it_is(cluster: Cluster) -> None:
    before = processes.running(str(cluster.folder))
    Cluster(cluster.name, nodes=2).up()
    assert processes.running(str(cluster.folder)).keys() >= before.keys()


def test_a_restricted_job_completes_and_its_log_can_be_read(cluster: Cluster, image: str) -> None:
    cluster.apply(job("hello", pod(image, "print('hello from', __import__('os').getuid())")))
    wait_complete(cluster, "hello")
    assert cluster.kubectl("logs", "-n", NAMESPACE, "job/hello").strip() == "hello from 65532"


def test_a_pod_that_is_not_restricted_is_refused(cluster: Cluster, image: str) -> None:
    loose = {"containers": [{"name": "main", "image": image}]}
    with pytest.raises(ClusterError, match='violates PodSecurity "restricted'):
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta("loose"), "spec": loose})


def test_a_node_that_has_lost_its_pause_image_gets_it_back(cluster: Cluster, image: str) -> None:
    cluster.node(1).runtime("remove", PAUSE_IMAGE)
    assert PAUSE_IMAGE not in cluster.node(1).runtime("images").split()
    cluster.apply(job("without-pause", pod(image, "print('here')", node=cluster.node(1).name)))
    wait_complete(cluster, "without-pause")


def test_a_service_answers_by_name_from_another_pod_and_by_address_from_the_host(cluster: Cluster, image: str) -> None:
    serve(cluster, image, "web")
    cluster.apply(job("client", pod(image, FETCH.format(names=["web", "web.selftest.svc"]))))
    wait_complete(cluster, "client")
    assert cluster.kubectl("logs", "-n", NAMESPACE, "job/client").splitlines()[-1] == "[200, 200]"
    address = cluster.get("service", "web", "-n", NAMESPACE)["spec"]["clusterIP"]
    assert urllib.request.urlopen(f"http://{address}/", timeout=10).status == 200


def test_exec_and_port_forward_reach_a_pod(cluster: Cluster, image: str) -> None:
    serve(cluster, image, "forwarded")
    assert cluster.kubectl("exec", "-n", NAMESPACE, "forwarded", "--", "id", "-u").strip() == "65532"
    forward = cluster.popen("port-forward", "-n", NAMESPACE, "service/forwarded", ":80", stdout=subprocess.PIPE)
    try:
        assert forward.stdout is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        assert port is not None
        assert urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/", timeout=10).status == 200
    finally:
        forward.kill()
        forward.wait()


def test_names_and_addresses_outside_the_cluster_fail_at_once(cluster: Cluster, image: str) -> None:
    code = """
        import socket, time
        start = time.monotonic()
        name, address = ("huggingface.co", 443), ("192.0.2.77", 443)
        for call in (lambda: socket.getaddrinfo(*name), lambda: socket.create_connection(address, 30)):
            try:
                call()
            except OSError as error:
                print(type(error).__name__)
        print(time.monotonic() - start < 5)
    """
    cluster.apply(job("outside", pod(image, code)))
    wait_complete(cluster, "outside")
    assert cluster.kubectl("logs", "-n", NAMESPACE, "job/outside").split() == ["gaierror", "OSError", "True"]


def test_a_claim_gets_a_volume_that_pods_share_and_that_goes_with_it(cluster: Cluster, image: str) -> None:
    cluster.apply(claim("shared"))
    cluster.apply(job("write", pod(image, "open('/data/x', 'w').write('kept')", claim="shared")))
    wait_complete(cluster, "write")
    cluster.apply(job("read", pod(image, "print(open('/data/x').read())", claim="shared")))
    wait_complete(cluster, "read")
    assert cluster.kubectl("logs", "-n", NAMESPACE, "job/read").strip() == "kept"
    [folder] = [path.parent for path in (cluster.folder / "volumes").rglob("x")]
    cluster.kubectl("delete", "job", "write", "read", "-n", NAMESPACE, "--wait")
    cluster.kubectl("delete", "pvc", "shared", "-n", NAMESPACE, "--wait")
    processes.wait_until(lambda: not folder.exists(), "volume to be deleted", timeout=30)


def test_a_pod_over_its_memory_limit_is_reported_as_out_of_memory(cluster: Cluster, image: str) -> None:
    hungry = job("hungry", pod(image, "x = bytearray(200 << 20)", limits={"memory": "64Mi"}))
    cluster.apply(hungry)
    cluster.kubectl("wait", "-n", NAMESPACE, "--for=condition=Failed", "job/hungry", "--timeout=120s")
    [dead] = cluster.get("pods", "-n", NAMESPACE, "-l", "job-name=hungry")["items"]
    terminated = dead["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["reason"], terminated["exitCode"]) == ("OOMKilled", 137)


def test_helm_talks_to_the_cluster_and_keeps_its_files_there(cluster: Cluster, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\n")
    (chart / "templates" / "map.yaml").write_text(
        json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tiny"}})
    )
    cluster.helm("install", "tiny", str(chart), "--namespace", NAMESPACE, "--wait")
    assert (
        cluster.get("configmap", "tiny", "-n", NAMESPACE)["metadata"]["labels"]["app.kubernetes.io/managed-by"]
        == "Helm"
    )


def test_pods_on_two_nodes_reach_each_other(cluster: Cluster, image: str) -> None:
    serve(cluster, image, "far", node=cluster.node(2).name)
    cluster.apply(job("near", pod(image, FETCH.format(names=["far"]), node=cluster.node(1).name)))
    wait_complete(cluster, "near")
    assert cluster.kubectl("logs", "-n", NAMESPACE, "job/near").splitlines()[-1] == "[200]"


@pytest.fixture(scope="module")
def lost_node(cluster: Cluster) -> str:
    """Its plug has been pulled; the cluster takes a quarter of a minute to notice, which other tests use."""
    cluster.node(2).kill()
    return cluster.node(2).name


@pytest.mark.usefixtures("lost_node")
def test_a_second_cluster_shares_nothing_with_the_first_and_down_gives_back_all_that_up_took(
    cluster: Cluster, image: str
) -> None:
    second, first = Cluster("selftest-second"), processes.running(str(cluster.folder))
    before = footprint(second)
    with second:
        assert network.bridge_of(second.folder) != network.bridge_of(cluster.folder)
        assert second.addresses.block != cluster.addresses.block
        second.apply(namespace(NAMESPACE), claim("data"))
        second.apply(job("user", pod(image, "open('/data/x', 'w')", claim="data")))
        wait_complete(second, "user")
        with pytest.raises(ClusterError, match="NotFound"):
            cluster.get("job", "user", "-n", NAMESPACE)
        used = footprint(second)
        assert used["interfaces"], "the probe must see what a running cluster has"
        assert used["processes"]
        assert used["control groups"]
        assert used["files"]
    assert footprint(second) == before
    assert processes.running(str(cluster.folder)).keys() >= first.keys()
    serve(cluster, image, "still-here", node=cluster.node(1).name)


def test_an_up_that_is_killed_leaves_nothing_that_the_next_command_does_not_clear() -> None:
    killed = Cluster("selftest-killed")
    before = footprint(killed)
    command = [sys.executable, "-m", "tests.cluster", "up", "--name", killed.name]
    up = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert up.stderr is not None
    for line in up.stderr:
        if "starting node" in line:
            up.send_signal(signal.SIGKILL)
    up.wait()
    up.stderr.close()
    assert footprint(killed)["processes"], "the killed command must have left processes behind"
    killed.down()
    assert footprint(killed) == before


@pytest.mark.slow
def test_a_lost_node_is_noticed_and_comes_back(cluster: Cluster, lost_node: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready=Unknown", f"node/{lost_node}", "--timeout=120s")
    cluster.restart_node(2)
    cluster.kubectl("wait", "--for=condition=Ready", f"node/{lost_node}", "--timeout=120s")
    assert cluster.is_up()


def footprint(cluster: Cluster) -> dict[str, Any]:
    """All that carries a cluster's name on this machine, and the host's iptables rules, which no cluster touches."""
    bridge = network.bridge_of(cluster.folder)
    links = json.loads(shell.run("ip", "-json", "link", "show"))
    routes = json.loads(shell.run("ip", "-json", "-4", "route", "show", "table", "all"))
    rules = shell.run("iptables-save") if shutil.which("iptables-save") else ""
    return {
        "interfaces": [link["ifname"] for link in links if link["ifname"].startswith(bridge)],
        "routes": [route for route in routes if route.get("dev") == bridge],
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if f"/{cluster.name}/" in line],
        "processes": sorted(processes.running(str(cluster.folder)).values()),
        "control groups": [
            str(path) for depth in ("", "*/") for path in cgroups.ROOT.glob(depth + cgroup_of(cluster.folder))
        ],
        "iptables": [line for line in rules.splitlines() if line.startswith("-")],
        "files": cluster.folder.exists(),
        "image store": (cluster.folder.parents[1] / "containerd" / cluster.name).exists(),
    }


def namespace(name: str) -> Manifest:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def claim(name: str) -> Manifest:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta(name), "spec": spec}


def meta(name: str) -> Manifest:
    return {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}


def pod(
    image: str,
    code: str,
    *,
    claim: str | None = None,
    limits: Manifest | None = None,
    node: str | None = None,
    probe: Manifest | None = None,
) -> Manifest:
    """A pod's spec as the `restricted` standard wants it, running Python code."""
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    container: Manifest = {
        "name": "main",
        "image": image,
        "command": ["python3", "-u", "-c", "import textwrap, sys; exec(textwrap.dedent(sys.argv[1]))", code],
        "workingDir": "/usr/share",
        "resources": {"limits": limits or {}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}] if claim else [],
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
    }  # fmt: skip
    if probe:
        container["readinessProbe"] = {"httpGet": probe, "periodSeconds": 1}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
        **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
    }


def job(name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta(name),
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }


def serve(cluster: Cluster, image: str, name: str, node: str | None = None) -> None:
    """A pod that answers HTTP behind a Service on port 80; returns when it is ready."""
    code = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
    spec = pod(image, code, node=node, probe={"path": "/", "port": 8000})
    ports = [{"port": 80, "targetPort": 8000}]
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta(name), "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta(name),
            "spec": {"selector": {"app": name}, "ports": ports},
        },
    )
    cluster.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", f"pod/{name}", "--timeout=120s")


def wait_complete(cluster: Cluster, name: str) -> None:
    """Return when a Job is Complete; when it fails, fail at once with its pods' log."""

    def ended() -> bool:
        found = cluster.read(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{name}")
        assert found is not None
        conditions = found["status"].get("conditions", [])
        if any(condition["type"] == "Failed" for condition in conditions):
            pytest.fail(f"job {name} failed:\n{cluster.kubectl('logs', '-n', NAMESPACE, f'job/{name}')}")
        return any(condition["type"] == "Complete" for condition in conditions)

    processes.wait_until(ended, f"job {name}", timeout=180)
