"""A provider, or a proxy before it, that answers oddly in mid-life: nothing is made twice, lost or taken for gone."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.deployment import Endpoint
from finetune_api.job import Adopt
from finetune_api.job_status import ArtifactRef, ProviderStatus
from finetune_operator.providers.openai import wire
from finetune_operator.runtime.kube import CONNECTIONS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, provider, rows, with_cloud_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL

__all__ = ["begin", "provider", "start"]

CREATE, RETRIEVE, LIST = "fine_tuning.jobs.create", "fine_tuning.jobs.retrieve", "fine_tuning.jobs.list"
CONTENT, DELETE_FILE = "files.content", "files.delete"


async def succeed(cluster: CloudCluster) -> None:
    await cluster.pass_time(3600)
    for _ in range(3):
        await cluster.pass_time(61)
    assert cluster.status()["phase"] == "Succeeded", cluster.status()


@pytest.mark.alike
@pytest.mark.parametrize("status", [401, 404])
@pytest.mark.parametrize("operation", [LIST, RETRIEVE])
async def test_a_proxys_page_is_no_word_of_the_provider(provider, begin, operation, status):
    """A portal's 404 is not that the job is gone, and its 401 not that the key is bad."""
    cluster = await begin()
    if operation == RETRIEVE:
        provider.set(list_lag_seconds=10_000)
    provider.fault(operation, outcome="page", page_status=status, times=2)
    await cluster.pass_time(20)
    assert cluster.status()["failure"]["reason"] == "ProviderUnavailable"
    assert f"a web page and status {status}" in cluster.status()["failure"]["message"]
    await cluster.pass_time(20)
    await succeed(cluster)
    assert provider.count(CREATE) == 1


async def test_a_model_whose_provider_is_behind_a_portal_is_not_gone(provider, begin):
    cluster = await begin()
    await succeed(cluster)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    provider.fault("models.retrieve", outcome="page", page_status=404, times=10)
    await cluster.pass_time(700)
    assert (cluster.status(DEPLOYMENT)["phase"], cluster.status(DEPLOYMENT)["servedVersion"]) == ("Ready", 1)


async def test_a_job_that_was_just_made_and_is_not_shown_yet_is_not_gone(provider, begin):
    provider.set(list_lag_seconds=100)
    provider.fault(RETRIEVE, status=404, code="not_found", times=3)
    cluster = await begin()
    for _ in range(3):
        await cluster.pass_time(20)
        assert cluster.status()["phase"] == "Queued", cluster.status()
    await succeed(cluster)
    assert provider.count(CREATE) == 1


async def test_a_results_file_that_cannot_be_read_costs_neither_the_model_nor_the_losses(provider, begin):
    cluster = await begin()
    provider.fault(CONTENT, status=404, code="not_found", times=1)
    provider.fault(CONTENT, status=500, times=10)
    await succeed(cluster)
    assert cluster.status()["loss"]["train"]
    assert cluster.status(MODEL)["versions"][0]["trainLoss"]


async def test_a_file_that_may_not_be_deleted_yet_holds_up_nobody_else(provider, begin):
    cluster = await begin()
    provider.fault(DELETE_FILE, status=409, code="file_in_use", message="the file is in use", times=2)
    await cluster.pass_time(3600)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(rows(13), job="sentiment-2")
    await cluster.settle()
    assert provider.count(CREATE) == 2, "the gate is open"
    assert "under way (409)" in cluster.condition("Cleaned")["message"]
    for _ in range(4):
        await cluster.pass_time(61)
    assert cluster.condition("Cleaned")["status"] == "True"


async def test_a_service_that_refuses_the_filter_by_labels_is_looked_through_without_it(provider, begin):
    cluster = await begin(with_cloud_job)
    provider.fault(LIST, status=400, code="unknown_parameter", message="metadata: extra fields not permitted")
    provider.fault(CREATE, after_commit=True)
    await cluster.check()
    await cluster.settle()
    provider.fault(LIST, status=400, code="unknown_parameter", message="metadata: extra fields not permitted")
    for _ in range(6):
        await cluster.pass_time(30)
    assert (provider.count(CREATE), cluster.status()["provider"]["jobID"][:6]) == (1, "ftjob-")


async def test_a_pause_until_a_date_is_kept(provider, begin):
    cluster = await begin(with_cloud_job)
    until = datetime.fromtimestamp(provider.clock.now + 600, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    provider.fault(CREATE, status=429, code="rate_limit_exceeded", headers={"Retry-After": until})
    await cluster.check()
    await cluster.settle()
    after = datetime.fromisoformat(cluster.status()["provider"]["retryAfter"])
    assert 590 <= (after - cluster.now).total_seconds() <= 601


async def test_an_operator_whose_clock_is_hours_ahead_finds_what_it_has_made(provider, begin):
    cluster = await begin(with_cloud_job)
    provider.clock.now -= 6 * 3600
    provider.fault(CREATE, after_commit=True, outcome="cut")
    await cluster.check()
    await cluster.settle()
    for _ in range(6):
        await cluster.pass_time(30)
    assert provider.count(CREATE) == 1


async def test_a_job_that_goes_back_to_the_queue_goes_on(provider, begin):
    provider.set(step_seconds=100)
    cluster = await begin()
    while cluster.status()["phase"] != "Running":
        await cluster.pass_time(10)
    provider.set(unlisted_status="queued")
    await cluster.pass_time(10)
    told = cluster.status()
    provider.set(unlisted_status=None)
    await succeed(cluster)
    assert (told["phase"], cluster.status()["provider"]["attempt"]) == ("Queued", 1)


async def test_a_connection_that_is_deleted_and_made_again_in_mid_life_goes_on(provider, begin):
    cluster = await begin()
    found = cluster.kube.objects[CONNECTIONS, "", "openai"]
    cluster.kube.drop(CONNECTIONS, "openai", None)
    await cluster.pass_time(61)
    assert cluster.status()["failure"]["reason"] == "ConnectionNotFound"
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": found["spec"]})
    await cluster.settle()
    await succeed(cluster)
    assert provider.count(CREATE) == 1


async def test_a_connection_that_is_gone_leaves_no_client_behind_and_its_jobs_say_so(begin):
    cluster = await begin()
    await cluster.pass_time(20)
    for number in range(3):
        name = f"other-{number}"
        spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
        cluster.kube.put(CONNECTIONS, {"metadata": {"name": name}, "spec": spec})
        await cluster.settle()
        cluster.kube.drop(CONNECTIONS, name, None)
        await cluster.settle()
    cluster.kube.drop(CONNECTIONS, "openai", None)
    await cluster.settle()
    assert not any(account.client._built for account in cluster.accounts._accounts.values())
    assert cluster.accounts._accounts.keys() <= {"openai"}, "for the job that is still there"
    await cluster.poll()
    assert cluster.status()["failure"]["reason"] == "ConnectionNotFound"


async def test_a_name_that_is_longer_than_any_ends_no_look(provider, begin, monkeypatch, caplog):
    job = wire.job

    def long_named(shown: Any) -> Any:
        found = job(shown)
        return replace(found, model="m" * 5000) if found.model else found

    cluster = await begin()
    with monkeypatch.context() as patched:
        patched.setattr(wire, "job", long_named)
        await cluster.pass_time(3600)
        await cluster.pass_time(61)
        assert cluster.status()["failure"]["reason"] == "ProviderUnavailable"
    assert [record for record in caplog.records if record.exc_info] == []
    assert provider.count(CREATE) == 1


@pytest.mark.parametrize("letters", [300, 1011])
def test_status_has_room_for_the_longest_name_of_a_job_and_a_model(letters):
    name = "arn:aws:bedrock:" + "a" * (letters - 16)
    assert ProviderStatus(job_id=name).job_id == name
    assert ArtifactRef(provider_model_id=name).provider_model_id == name
    assert Endpoint(url="https://a", model=name).model == name
    assert Adopt(job_id=name).job_id == name


async def test_a_job_whose_own_answer_is_none_holds_up_no_other_one(provider, begin, monkeypatch, caplog):
    cluster = await begin()
    odd = cluster.status()["provider"]["jobID"]
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(rows(13), job="sentiment-2")
    await cluster.settle()
    provider.set(list_lag_seconds=1e6)  # each is asked for by its name
    job = wire.job

    def broken(shown: Any) -> Any:
        return job({} if shown.get("id") == odd else shown)

    with monkeypatch.context() as patched:
        patched.setattr(wire, "job", broken)
        for _ in range(3):
            await cluster.pass_time(3600)
        assert cluster.status(JOB._replace(name="sentiment-2"))["phase"] == "Succeeded"
        assert cluster.status()["failure"]["reason"] == "ProviderUnavailable"
    await succeed(cluster)
    assert provider.count(CREATE) == 2
    assert [record for record in caplog.records if record.exc_info] == []
