"""A server with several replicas is not drained at once, unless somebody else sees to that."""

from typing import Any

import pytest

from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import DEPLOYMENTS, DISRUPTION_BUDGETS, FINE_TUNED_MODELS
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster
from tests.unit.finetune_operator.reconcilers.test_refused_writes import refuse, with_running_job

BUDGET = (DISRUPTION_BUDGETS, "team-a", "sentiment")


async def served_by(replicas: int, theirs: dict[str, Any] | None = None, refused: bool = False) -> Cluster:
    cluster = await with_running_job()
    spec = {"deployment": {"template": {"huggingFace": {"replicas": replicas}}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    if theirs is not None:
        cluster.kube.put(DISRUPTION_BUDGETS, {"metadata": {"namespace": "team-a"} | theirs.pop("metadata"), **theirs})
    if refused:
        refuse(cluster, "apply", "poddisruptionbudgets", Forbidden(403, "Forbidden", "no"))
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert (DEPLOYMENTS, "team-a", "sentiment") in cluster.kube.objects
    return cluster


async def test_a_drain_ends_one_of_several_pods_at_a_time() -> None:
    cluster = await served_by(2)
    server, budget = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"], cluster.kube.objects[BUDGET]
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": server["spec"]["selector"],
    }
    assert budget["metadata"]["ownerReferences"] == server["metadata"]["ownerReferences"] != []


async def test_a_single_pod_has_no_budget_because_nothing_else_answers_meanwhile() -> None:
    assert BUDGET not in (await served_by(1)).kube.objects


@pytest.mark.parametrize(
    ("name", "selector", "made"),
    [
        ("all", {}, False),
        ("sentiment", {"matchLabels": {"finetune.dev/deployment": "sentiment"}}, False),
        ("every", {"matchExpressions": [{"key": "finetune.dev/model", "operator": "Exists"}]}, False),
        ("long", {"matchExpressions": [{"key": f"a{at}", "operator": "DoesNotExist"} for at in range(17)]}, False),
        ("other", {"matchLabels": {"app": "other"}}, True),
        ("none", None, True),
        ("sentiment", {"matchLabels": {"app": "other"}}, False),
    ],
)
async def test_pods_that_have_somebody_elses_budget_get_no_second_one(name: str, selector: Any, made: bool) -> None:
    """Kubernetes evicts no pod that has two."""
    cluster = await served_by(2, {"metadata": {"name": name}, "spec": {"maxUnavailable": "50%", "selector": selector}})
    assert (cluster.kube.objects.get(BUDGET, {}).get("spec", {}).get("maxUnavailable") == 1) == made


async def test_a_budget_that_may_not_be_made_is_told_and_the_server_is_there() -> None:
    cluster = await served_by(2, refused=True)
    assert BUDGET not in cluster.kube.objects
    assert ("ModelDeployment", "Warning", "WriteRefused") in cluster.told
    assert any("a drain may end all pods at once" in note for note in cluster.notes)
