"""A cloud job whose status is emptied, and of which something else is wanted: nothing is paid for twice or in vain."""

from collections.abc import Awaitable, Callable
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, At
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB

__all__ = ["s3_endpoint", "start"]

ADDRESS = (FINE_TUNE_JOBS, "team-a", "sentiment-1")


Begin = Callable[..., Awaitable[CloudCluster]]


CASES = [*((name, "emptied and without pods") for name in PROVIDERS), ("openai", "emptied"), ("sagemaker", "put back")]


@pytest.fixture(params=CASES, ids=[", ".join(case) for case in CASES])
def case(request: Any) -> tuple[str, str]:
    return request.param


@pytest.fixture
def at(case: tuple[str, str]) -> At:
    return PROVIDERS[case[0]]


@pytest.fixture
def change(case: tuple[str, str]) -> str:
    return case[1]


@pytest.fixture
async def unanswered(at: At, s3_endpoint: str, start: Any) -> CloudCluster:
    """A cluster whose provider has made a job, and has not said so."""
    provider = at.simulator(s3_endpoint)
    cluster = at.begin(provider, start(provider))
    provider.fault(at.create, after_commit=True, outcome="cut")
    await at.submit(cluster)
    assert "jobID" not in cluster.status()["provider"]
    return cluster


@pytest.fixture
async def begin(at: At, s3_endpoint: str, start: Any) -> Begin:
    """Makes a cluster whose provider has made a job."""

    async def begun(**fields: Any) -> CloudCluster:
        provider = at.simulator(s3_endpoint)
        cluster = at.begin(provider, start(provider), **fields)
        await at.submit(cluster)
        return cluster

    return begun


def lose(cluster: CloudCluster, change: str) -> None:
    """The status, emptied or from before the job was asked for; what was made on the cluster may be gone too."""
    old = deepcopy(cluster.status())
    old["phase"] = "Validating"
    old["provider"] = {key: old["provider"][key] for key in ("name", "attempt", "place")} | {"jobID": "sentiment-1-1"}
    if change != "emptied":
        cluster.lose_pods(and_jobs=True)
    cluster.forget(old if change == "put back" else {})


@pytest.mark.alike
async def test_one_that_has_succeeded_meanwhile_is_a_version_though_it_is_suspended(at: At, begin: Begin, change: str):
    cluster = await begin()
    cluster.provider.advance(7200)
    lose(cluster, change)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await go_on(cluster, 300)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    cluster.change_job(suspend=False)
    await cluster.settle()
    await go_on(cluster, 300)
    assert (cluster.provider.count(at.create), cluster.status()["provider"]["attempt"]) == (1, 1)


async def test_one_that_is_at_work_is_stopped_when_it_is_suspended(at: At, begin: Begin, change: str):
    cluster = await begin()
    await cluster.pass_time(60)
    lose(cluster, change)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await go_on(cluster, 600)
    assert (at.states(cluster.provider), cluster.status()["phase"]) == ([at.stopped], "Suspended")
    assert cluster.status()["provider"]["attempt"] == 2
    assert ("cost" in cluster.status()) is (change == "put back")  # what was expected of it is lost with the status
    assert cluster.provider.count(at.create) == 1


@pytest.mark.alike
async def test_one_that_has_succeeded_meanwhile_is_told_of_when_it_is_deleted(begin: Begin, change: str):
    cluster = await begin()
    cluster.provider.advance(7200)
    lose(cluster, change)
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await go_on(cluster, 300)
    assert ADDRESS not in cluster.kube.objects
    assert ("FineTuneJob", "Warning", "Retained") in cluster.told


@pytest.mark.alike
async def test_its_deadline_counts_from_when_its_provider_was_asked(begin: Begin, change: str):
    cluster = await begin(activeDeadlineSeconds=900)
    cluster.provider.advance(60)
    cluster.now += timedelta(seconds=60)
    asked = cluster.status()["provider"]["askedAt"]
    lose(cluster, change)
    cluster.wake(JOB)
    await cluster.settle()
    await go_on(cluster, 120, step=20)
    assert cluster.status()["provider"]["askedAt"] == asked


@pytest.mark.alike
async def test_a_new_retry_nonce_pays_for_nothing_beside_it(at: At, begin: Begin, change: str):
    cluster = await begin()
    await cluster.pass_time(60)
    lose(cluster, change)
    cluster.change_job(retryNonce="again")
    await cluster.settle()
    await go_on(cluster, 7200, step=600)
    assert (cluster.status()["phase"], cluster.provider.count(at.create)) == ("Succeeded", 1)
    assert cluster.status()["observedRetryNonce"] == "again"


@pytest.mark.alike
@pytest.mark.parametrize("case", [(name, "") for name in PROVIDERS], ids=list(PROVIDERS), indirect=True)
@pytest.mark.parametrize("hours", [0, 2], ids=["works", "has succeeded"])
async def test_one_whose_create_was_not_answered_is_known_before_it_is_suspended(
    at: At, unanswered: CloudCluster, hours: int
):
    cluster = unanswered
    cluster.provider.advance(hours * 3600)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await go_on(cluster, 600)
    assert (cluster.status()["phase"], cluster.status()["provider"]["attempt"]) == (
        ("Succeeded", 1) if hours else ("Suspended", 2)
    )
    assert "cost" in cluster.status()
    assert cluster.provider.count(at.create) == 1
