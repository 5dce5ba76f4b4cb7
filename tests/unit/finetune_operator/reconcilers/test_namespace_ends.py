"""A namespace that is deleted with all that is in it, at any time and in any order: nothing hangs, nothing is left.

With the operator there, or absent meanwhile: what it holds by finalizers waits for it, and goes when it is back.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, NAMESPACES, Resource
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, azure, rows, with_azure_job

__all__ = ["start"]

OWN = (FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS)
ORDERS = (OWN, (*OWN[1:], OWN[0]), OWN[::-1])
"""Each kind is the first once, and the last once."""


async def nothing(cluster: AzureCluster) -> None:
    """Its data are being checked."""


async def submitted(cluster: AzureCluster) -> None:
    await cluster.check(b"\xef\xbb\xbf" + rows())
    await cluster.settle()


async def at_work(cluster: AzureCluster) -> None:
    await submitted(cluster)
    await cluster.pass_time(60)


async def being_deployed(cluster: AzureCluster) -> None:
    await submitted(cluster)
    await cluster.pass_time(3600)


async def served(cluster: AzureCluster) -> None:
    await submitted(cluster)
    for _ in range(60):
        await cluster.pass_time(120)


PHASES = (nothing, submitted, at_work, being_deployed, served)


async def end_namespace(cluster: AzureCluster, order: tuple[Resource, ...]) -> None:
    """As the namespace controller does, kind by kind; what else is in it goes with its owners."""
    found = cluster.kube.objects[NAMESPACES, "", "team-a"]
    cluster.kube.put(NAMESPACES, {**found, "status": {"phase": "Terminating"}})
    for resource in order:
        for kind, namespace, name in list(cluster.kube.objects):
            if kind is resource and namespace == "team-a":
                await cluster.kube.delete(kind, name, namespace)
    for kind, namespace, name in list(cluster.kube.objects):
        if kind not in OWN and namespace == "team-a":
            cluster.kube.drop(kind, name, namespace)


@pytest.mark.alike
@pytest.mark.parametrize("absent", [False, True], ids=["operator there", "operator absent"])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: " ".join(one.kind for one in order))
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
async def test_a_namespace_goes_with_all_that_it_has_at_the_provider(
    start: Any, phase: Callable[[AzureCluster], Awaitable[None]], order: tuple[Resource, ...], absent: bool
) -> None:
    provider = azure()
    cluster = await with_azure_job(provider, start(provider))
    template = {"deployment": {"template": {"azureOpenAI": {"sku": "Standard"}}}, "deletionPolicy": "Delete"}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    await cluster.settle()
    await phase(cluster)
    await end_namespace(cluster, order)
    if absent:
        cluster.kube.events.clear()
        provider.advance(7200)
        await cluster.accounts.close()
        cluster.restart()
        await cluster.observer.resync()
    await cluster.settle()
    for _ in range(30):
        await cluster.pass_time(120)
    assert [at for at in cluster.kube.objects if at[1] == "team-a"] == []
    left = [one.kind for one in provider.resources() if one.state != "fine-tune-results"]
    # What has succeeded while nobody could stop it was paid for: it costs nothing where it is, and is told of.
    retained = ["model"] if absent and phase in {submitted, at_work} else []
    assert left == retained, "nothing runs, is stored or billed there for nobody"
    assert (("FineTuneJob", "Warning", "Retained") in cluster.told) is bool(retained)
