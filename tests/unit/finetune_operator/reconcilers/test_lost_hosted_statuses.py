"""A ModelDeployment whose status somebody empties, or puts back: nothing that is billed is forgotten."""

from copy import deepcopy
from typing import Any

import pytest

from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.azure import AzureSimulator
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.hosted import cluster, deployed, hosts, provider, tune

__all__ = ["cluster", "provider", "start"]

ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")


async def second(cluster: AzureCluster, connection: str = "openai") -> dict[str, Any]:
    """Version 1 answers, and 2 is being made; the status from when 1 alone was known."""
    await deployed(cluster)
    before = deepcopy(cluster.status(DEPLOYMENT))
    cluster.add_cloud_job("sentiment-2", connectionRef={"name": connection})
    await tune(cluster, "sentiment-2")
    await go_on(cluster, 60)
    assert [one["version"] for one in cluster.status(DEPLOYMENT)["hosted"]] == [1, 2]
    return before


@pytest.fixture
def elsewhere(cluster: AzureCluster, start: Any) -> AzureSimulator:
    """Another account, with a connection of its own, in the same time."""
    made = AzureSimulator(clock=cluster.provider.clock)
    url = start(made)
    block = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]["azureOpenAI"]
    spec = {"namespaceSelector": {}, "azureOpenAI": block | {"endpoint": url, "managementEndpoint": url}}
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "elsewhere"}, "spec": spec})
    return made


def write(cluster: AzureCluster, change: str, before: dict[str, Any]) -> None:
    now = deepcopy(cluster.status(DEPLOYMENT))
    now["hosted"] = [one for one in now["hosted"] if one["version"] == 2]
    status = {"emptied": {}, "put back": before, "without the older one": now}[change]
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status=status)


@pytest.mark.alike
@pytest.mark.parametrize("change", ["emptied", "put back", "without the older one"])
async def test_of_two_that_stand_one_stays_though_the_older_version_is_pruned(cluster, change):
    before = await second(cluster)
    model = deepcopy(cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]["status"])
    model["versions"] = [one for one in model["versions"] if one["version"] != 1]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status=model)
    write(cluster, change, before)
    await cluster.settle()
    await go_on(cluster, 1200)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], len(hosts(cluster.provider))) == ("Ready", 2, 1)


@pytest.mark.alike
@pytest.mark.parametrize("connection", ["openai", "elsewhere"])
@pytest.mark.parametrize("change", ["emptied", "put back", "without the older one"])
async def test_all_go_with_an_object_that_is_deleted_a_moment_later(cluster, elsewhere, change, connection):
    before = await second(cluster, connection)
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"mode": "Manual"}})
    write(cluster, change, before)
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 2400)
    assert (hosts(cluster.provider), hosts(elsewhere), ADDRESS in cluster.kube.objects) == ([], [], False)


async def test_a_place_that_no_record_names_and_that_cannot_be_looked_at_is_told_of_and_holds_nobody_up(
    cluster, elsewhere
):
    before = await second(cluster, "elsewhere")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"mode": "Manual"}})
    write(cluster, "put back", before)
    elsewhere.fault("deployments.list", status=503, times=1000)
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 2400)
    assert (hosts(cluster.provider), ADDRESS in cluster.kube.objects) == ([], False)
    assert cluster.told.count(("ModelDeployment", "Warning", "Retained")) == 1


@pytest.mark.parametrize("away", [False, True], ids=["all can be seen", "another one cannot"])
async def test_all_go_with_an_object_that_has_lost_its_status_and_its_model(cluster, elsewhere, away):
    await deployed(cluster)
    assert hosts(cluster.provider)
    if away:
        elsewhere.fault("deployments.list", status=503, times=1000)
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status={})
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 1200)
    assert (hosts(cluster.provider), ADDRESS in cluster.kube.objects) == ([], False)


@pytest.mark.parametrize("change", ["put back", "emptied, with the model gone"])
async def test_a_place_whose_connection_cannot_be_read_is_told_of_like_one_that_does_not_answer(
    cluster, elsewhere, change
):
    before = await second(cluster, "elsewhere")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"mode": "Manual"}})
    if change == "put back":
        write(cluster, "put back", before)
    else:
        cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
        cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status={})
    spec = cluster.kube.objects[CONNECTIONS, "", "elsewhere"]["spec"]
    cluster.kube.change(CONNECTIONS, "elsewhere", None, spec=spec | {"ofANewerRelease": 1})
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 2400)
    assert (hosts(cluster.provider), ADDRESS in cluster.kube.objects) == ([], False)
    assert hosts(elsewhere), "nobody could look there"
    told = [note for note in cluster.notes if "LLMConnection elsewhere is not known" in note]
    assert len(told) == 1
    assert "cannot read LLMConnection elsewhere" in told[0]
