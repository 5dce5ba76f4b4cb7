"""Lists and reads that miss things now and then: what stands is neither forgotten nor made twice, and all rests."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.job_status import ProviderStatus
from finetune_operator.providers.remote.job_record import key_of
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import Flapping, standing
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, QUICK
from tests.unit.finetune_operator.reconcilers.bedrock_hosted import HOURLY
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, in_chunks, rows, simulator
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

__all__ = ["s3_endpoint", "start"]

JOB_ADDRESS = (FINE_TUNE_JOBS, "team-a", "sentiment-1")
ADDRESS = (MODEL_DEPLOYMENTS, "team-a", "sentiment")
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "azure": ("azure", PROVIDERS["azure"].template),
    "on demand": ("bedrock", {"bedrock": {"type": "OnDemand"}}),
    "throughput": ("bedrock", {"bedrock": HOURLY}),
    "sagemaker": ("sagemaker", PROVIDERS["sagemaker"].template),
}


Begin = Callable[[str], CloudCluster]


@pytest.fixture
async def begin(start: Any, s3_endpoint: str) -> Begin:
    """Makes clusters with a model that deploys what its jobs make, at a provider."""

    def begun(served: str) -> CloudCluster:
        name, template = SERVED[served]
        provider = PROVIDERS[name].simulator(s3_endpoint)
        provider.set(**QUICK[name])
        cluster = PROVIDERS[name].cluster(provider, start(provider))
        metadata = {"name": "sentiment", "namespace": "team-a"}
        cluster.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": {"deployment": {"template": template}}})
        return cluster

    return begun


async def tuned(cluster: CloudCluster, job: str, content: bytes) -> None:
    cluster.add_cloud_job(job)
    await cluster.settle()
    await cluster.check(content, job=job)
    await cluster.settle()


async def until(cluster: CloudCluster, is_so: Callable[[], bool], what: str) -> None:
    for _ in range(90):
        if is_so():
            return
        await cluster.pass_time(61)
        for key in list(cluster.delays):  # nobody waits ten minutes here
            cluster.wake(key)
        await cluster.settle()
    raise AssertionError(f"{what}: {cluster.kube.objects.get(ADDRESS, {}).get('status') or cluster.status()}")


def alone(cluster: CloudCluster, version: int) -> bool:
    status = (cluster.kube.objects.get(ADDRESS) or {}).get("status") or {}
    hosted = [one["version"] for one in status.get("hosted") or ()]
    return (status.get("phase"), status.get("servedVersion"), hosted) == ("Ready", version, [version])


@pytest.mark.alike
@pytest.mark.parametrize("reads", [False, True], ids=["lists", "lists and reads"])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("served", SERVED)
async def test_a_life_at_a_provider_that_misses_every_third_thing(begin, served, first, reads):
    cluster = begin(served)
    provider = cluster.provider
    provider.meddle = seen = Flapping(provider, 3, first, reads=reads)
    await tuned(cluster, "sentiment-1", PROVIDERS[SERVED[served][0]].content)
    await cluster.pass_time(7200)
    await until(cluster, lambda: alone(cluster, 1), "version 1")
    await tuned(cluster, "sentiment-2", PROVIDERS[SERVED[served][0]].content)
    await cluster.pass_time(7200)
    await until(cluster, lambda: alone(cluster, 2), "version 2 alone")
    assert len(standing(provider)) == 1
    for _ in range(12):
        await cluster.pass_time(700)
        assert cluster.status(DEPLOYMENT)["servedVersion"] == 2
    assert len(seen.made) == 2
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await until(cluster, lambda: ADDRESS not in cluster.kube.objects, "its end")
    assert standing(provider) == []


FAILS = {"azure": "deployment", "on demand": "deployment", "sagemaker": "endpoint"}
MAKES = {
    "azure": "deployments.create_or_update",
    "on demand": "CreateCustomModelDeployment",
    "sagemaker": "CreateEndpoint",
}


@pytest.mark.alike
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("served", FAILS)
async def test_what_has_failed_stays_failed_while_one_list_lacks_it(begin, served, first):
    cluster = begin(served)
    provider = cluster.provider
    provider.set(**{f"fail_next_{FAILS[served]}": "no room"})
    await tuned(cluster, "sentiment-1", PROVIDERS[SERVED[served][0]].content)
    await cluster.pass_time(7200)
    await until(cluster, lambda: cluster.status(DEPLOYMENT)["phase"] == "Failed", "its failure")
    asked, before = provider.count(MAKES[served], committed=False), cluster.status(DEPLOYMENT)["conditions"]
    provider.meddle = Flapping(provider, 3, first, reads=False)
    for _ in range(9):
        await cluster.pass_time(20)
        cluster.wake(DEPLOYMENT)
        await cluster.settle()
        status = cluster.status(DEPLOYMENT)
        assert (status["phase"], status["conditions"]) == ("Failed", before)
    assert provider.count(MAKES[served], committed=False) == asked


@pytest.mark.alike
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("served", SERVED)
async def test_what_answers_is_told_to_while_one_list_lacks_it_and_a_new_one_is_made(begin, served, first):
    cluster = begin(served)
    await tuned(cluster, "sentiment-1", PROVIDERS[SERVED[served][0]].content)
    await cluster.pass_time(7200)
    await until(cluster, lambda: alone(cluster, 1), "version 1")
    endpoint = cluster.status(DEPLOYMENT)["endpoint"]
    await tuned(cluster, "sentiment-2", PROVIDERS[SERVED[served][0]].content)
    cluster.provider.meddle = Flapping(cluster.provider, 3, first, reads=False)
    await cluster.pass_time(3600)
    looks = 0
    while cluster.status(DEPLOYMENT)["servedVersion"] == 1:
        assert cluster.status(DEPLOYMENT)["endpoint"] == endpoint
        await cluster.pass_time(20)
        cluster.wake(DEPLOYMENT)
        await cluster.settle()
        looks += 1
    assert (looks > 3, cluster.status(DEPLOYMENT)["servedVersion"]) == (True, 2)


@pytest.mark.parametrize("first", [0, 1, 2])
async def test_a_file_that_was_brought_twice_goes_though_one_list_lacks_it(start, first):
    provider = simulator()
    cluster = CloudCluster(provider, start(provider))
    provider.meddle = Flapping(provider, 3, first, reads=False)
    cluster.add_cloud_job()
    await cluster.settle()
    cluster.run_pod()
    await cluster.settle()
    account = cluster.accounts.of("openai")
    name = f"{key_of(cluster.kube.objects[JOB_ADDRESS], ProviderStatus()).file_prefix}1-train-first.jsonl"
    await account.call(lambda api: api.upload(name, len(rows()), in_chunks(rows())))  # its answer was lost
    await cluster.check()
    await cluster.settle()
    await cluster.pass_time(3600)
    for _ in range(10):
        await cluster.pass_time(61)
    assert cluster.status()["phase"] == "Succeeded"
    assert [one for one in provider.left() if one.state == "fine-tune"] == []


@pytest.mark.parametrize("first", [0, 1, 2])
async def test_the_results_of_a_job_go_with_its_model_though_one_list_lacks_the_job(start, first):
    provider = simulator()
    cluster = CloudCluster(provider, start(provider))
    spec = {"deletionPolicy": "Delete", "deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await tuned(cluster, "sentiment-1", rows())
    await cluster.pass_time(3600)
    assert {one.state for one in provider.left() if one.kind == "file"} == {"fine-tune-results"}
    provider.meddle = Flapping(provider, 3, first, reads=False)
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert ((FINE_TUNED_MODELS, "team-a", "sentiment") in cluster.kube.objects, provider.left()) == (False, [])


async def test_a_look_at_the_files_that_fails_is_no_create_whose_outcome_is_unknown(start):
    """Two minutes would be waited for a job that nobody has asked for."""
    provider = simulator()
    cluster = CloudCluster(provider, start(provider))
    cluster.add_cloud_job()
    await cluster.settle()
    await cluster.check()
    provider.fault("files.retrieve", status=503)
    await cluster.settle()
    await cluster.wait(61)
    assert provider.count("fine_tuning.jobs.create") == 1
