"""A watch is cut, and tells nothing of a deletion: what goes with its owner is not made again for somebody who is gone.

What is made for a moment begins to work: a server is started, and at a provider it is billed.
"""

import pytest

from finetune_operator.runtime.kube import DEPLOYMENTS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, SERVICES, Resource
from tests.unit.finetune_operator.reconcilers.fake_cluster import Cluster
from tests.unit.finetune_operator.reconcilers.test_contested_children import PUT_RIGHT, serving

OWNED = [
    pytest.param(FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, id="a model's deployment"),
    pytest.param(MODEL_DEPLOYMENTS, DEPLOYMENTS, id="a deployment's server"),
    pytest.param(MODEL_DEPLOYMENTS, SERVICES, id="a deployment's Service"),
]


async def restart(cluster: Cluster) -> None:
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    cluster.told.clear()


def goes_unheard(cluster: Cluster, owner: Resource, child: Resource) -> None:
    """With its model, which would have it made again; then the garbage collector takes the child: a watch tells."""
    for gone in {FINE_TUNED_MODELS, owner}:
        del cluster.kube.objects[gone, "team-a", "sentiment"]
    cluster.kube.drop(child, "sentiment")


@pytest.mark.parametrize("restarted", [False, True], ids=["made by this process", "found by this process"])
@pytest.mark.parametrize(("owner", "child"), OWNED)
async def test_nothing_is_made_again_for_an_owner_that_is_gone(
    owner: Resource, child: Resource, restarted: bool
) -> None:
    cluster = await serving()
    if restarted:
        await restart(cluster)
    goes_unheard(cluster, owner, child)
    applied = cluster.kube.asked("apply", child.plural)
    await cluster.wait(90)
    assert cluster.kube.asked("apply", child.plural) == applied
    assert PUT_RIGHT not in cluster.told


@pytest.mark.parametrize(("owner", "child"), OWNED)
async def test_nothing_is_made_again_for_an_owner_that_is_being_deleted(owner: Resource, child: Resource) -> None:
    cluster = await serving()
    cluster.kube.objects[owner, "team-a", "sentiment"]["metadata"]["deletionTimestamp"] = "2026-11-29T12:00:00Z"
    cluster.kube.drop(child, "sentiment")
    applied = cluster.kube.asked("apply", child.plural)
    await cluster.settle()
    assert cluster.kube.asked("apply", child.plural) == applied


@pytest.mark.parametrize(("owner", "child"), OWNED)
async def test_what_was_found_and_then_deleted_by_somebody_is_made_again_and_told(
    owner: Resource, child: Resource
) -> None:
    cluster = await serving()
    await restart(cluster)
    cluster.kube.drop(child, "sentiment")
    await cluster.settle()
    assert (child, "team-a", "sentiment") in cluster.kube.objects
    assert cluster.told.count((owner.kind, "Warning", "PutRight")) == 1
