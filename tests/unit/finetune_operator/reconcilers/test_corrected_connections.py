"""A job whose data were being checked for a connection that was wrong: it goes on once an admin has corrected that."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, rows, simulator

__all__ = ["start"]

NOBODY = "http://127.0.0.1:9/v1"
Misled = Callable[[str], Awaitable[CloudCluster]]
JOB = (FINE_TUNE_JOBS, "team-a", "sentiment-1")


@pytest.fixture
async def misled(start: Any) -> Misled:
    """Makes clusters whose connection leads to a wrong address, and a job whose pod wants to bring its data there."""

    async def begin(address: str) -> CloudCluster:
        provider = simulator()
        cluster = CloudCluster(provider, start(provider))
        lead(cluster, address)
        cluster.add_cloud_job()
        await cluster.settle()
        cluster.run_pod()
        await cluster.settle()
        return cluster

    return begin


def lead(cluster: CloudCluster, address: str) -> None:
    """What an admin's `kubectl edit` of the connection does."""
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    block = {**spec["openAI"], "baseURL": address}
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, "openAI": block})


async def test_a_job_whose_data_could_be_brought_nowhere_goes_where_the_corrected_address_leads(misled: Misled) -> None:
    cluster = await misled(NOBODY)
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows())
    await cluster.settle()
    assert (refused.value.status, cluster.status()["failure"]["reason"]) == (503, "ProviderUnavailable")
    assert not cluster.kube.objects[JOB]["metadata"].get("finalizers"), "nothing is there that it could wait for"
    lead(cluster, f"{cluster.url}/v1")
    await cluster.settle()
    assert (cluster.status()["provider"]["attempt"], cluster.status().get("failure")) == (2, None)
    cluster.lose_pods(and_jobs=False)  # it ends, as it is told to
    await cluster.pass_time(30)
    await cluster.check(attempt=2)
    await cluster.settle()
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert (cluster.status()["phase"], cluster.provider.count("fine_tuning.jobs.create")) == ("Succeeded", 1)


async def test_a_check_that_was_begun_for_another_address_is_made_anew_and_says_why(misled: Misled) -> None:
    """Its rules, and the price in its estimate, are those of where the connection led."""
    cluster = await misled(NOBODY)
    lead(cluster, f"{cluster.url}/v1")
    await cluster.settle()
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows())
    assert (refused.value.status, cluster.provider.count("files.create", committed=False)) == (403, 0)
    assert cluster.status()["provider"]["attempt"] == 2
