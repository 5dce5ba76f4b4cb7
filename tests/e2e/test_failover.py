"""The operator itself: its leader dies, history is kept short, and objects go even when it is not there.

Early: what the operator's pods say of all that comes later is still there at the end, for test_whole_run.
"""

import json

from tests.cluster import Cluster
from tests.e2e.conftest import CHART
from tests.e2e.site import Site, eventually

NAMESPACE = "finetune-system"
LEADER = "finetune.dev/leader=true"


def leaders(cluster: Cluster) -> list[str]:
    """Names of the operator's pods that bear the leader's label and run."""
    pods = cluster.get("-n", NAMESPACE, "pods", "-l", LEADER)["items"]
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def operators(cluster: Cluster) -> list[str]:
    """Names of the operator's pods that are to stay."""
    pods = cluster.get("-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=finetune-operator")["items"]
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def test_the_leader_dies_and_the_job_goes_on_once(site: Site) -> None:
    site.model("colours", deployment={"mode": "Manual"}, historyLimit=1)
    (leader,) = leaders(site.cluster)
    site.job("orphaned")
    site.wait("job", "orphaned", lambda s: s.get("phase") in {"Validating", "Running"}, "to start", 120)
    site.cluster.kubectl("-n", NAMESPACE, "delete", "pod", leader, "--grace-period=0", "--force")
    status = site.succeeded("orphaned")
    assert status["provider"]["attempt"] == 1
    assert [version["version"] for version in site.status("model", "colours")["versions"]] == [1]
    (follower,) = leaders(site.cluster)
    assert follower != leader


def test_an_upgrade_of_the_chart_in_the_middle_of_a_job_disturbs_nothing(site: Site) -> None:
    before = set(operators(site.cluster))
    site.job("newer")
    site.wait("job", "newer", lambda s: s.get("phase") in {"Validating", "Running"}, "to start", 120)
    site.cluster.helm(
        "upgrade", "finetune-operator", str(CHART), "--namespace", NAMESPACE, "--reuse-values",
        "--set", "podAnnotations.upgrade=yes", "--wait", "--timeout", "300s",
    )  # fmt: skip
    status = site.succeeded("newer")
    assert (status["provider"]["attempt"], status["provider"].get("retries", 0)) == (1, 0)
    assert status["modelVersion"] == 2
    eventually(lambda: len(leaders(site.cluster)) == 1, "one leader", 120)
    assert not before & set(operators(site.cluster))


def test_weights_beyond_the_history_limit_are_deleted(site: Site) -> None:
    site.wait("model", "colours", lambda s: [v["version"] for v in s.get("versions", [])] == [2], "to forget one", 90)
    assert [path.parent.parent.name.partition("-")[0] for path in site.models.rglob("adapter_config.json")] == ["newer"]
    assert site.status("model", "colours")["latestVersion"] == 2


def test_the_operator_tells_its_health_and_no_secret(site: Site) -> None:
    (leader,) = leaders(site.cluster)
    answer = site.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{leader}:8080/proxy/metrics")
    assert 'finetune_objects{kind="FineTuneJob",phase="Succeeded"}' in answer
    assert "finetune_queue_oldest_seconds" in answer
    logs = site.cluster.kubectl("-n", NAMESPACE, "logs", leader)
    assert all(json.loads(line)["message"] for line in logs.splitlines())
    assert "eyJ" not in logs


def test_objects_go_while_the_operator_is_away(site: Site) -> None:
    site.patch("model", "colours", {"deployment": {"mode": "Automatic"}})
    eventually(lambda: site.pods("finetune.dev/deployment=colours"), "its server", 120)
    scale = ("-n", NAMESPACE, "scale", "deployment/finetune-operator")
    site.cluster.kubectl(*scale, "--replicas=0")
    try:
        for kind, name in (("job", "orphaned"), ("job", "newer"), ("model", "colours")):
            site.delete(kind, name)
        eventually(lambda: not site.pods("finetune.dev/deployment=colours"), "the server to go", 120)
        assert not site.cluster.get("-n", site.name, "modeldeployments,deployments,jobs,services")["items"]
    finally:
        site.cluster.kubectl(*scale, "--replicas=2")
        site.cluster.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/finetune-operator", "--timeout=300s")
