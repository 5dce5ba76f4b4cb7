"""Services with OpenAI's API that leave parts of it out, show things late, or have another clock and order."""

import pytest

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, provider, with_cloud_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

__all__ = ["begin", "provider", "start"]

CREATE, RETRIEVE, CANCEL = "fine_tuning.jobs.create", "fine_tuning.jobs.retrieve", "fine_tuning.jobs.cancel"
RECORDS = ("fine_tuning.jobs.list_events", "fine_tuning.jobs.checkpoints.list", "files.content")
ALWAYS = 10_000
ADDRESS = (FINE_TUNE_JOBS, "team-a", "sentiment-1")


async def live(cluster: CloudCluster, seconds: float = 3600) -> None:
    for _ in range(int(seconds / 60)):
        await cluster.pass_time(60)


@pytest.mark.alike
@pytest.mark.parametrize("status", [400, 403, 404, 405, 500, 501])
async def test_a_job_whose_losses_nobody_tells_succeeds_all_the_same(provider, begin, status):
    for operation in RECORDS:
        provider.fault(operation, status=status, times=ALWAYS)
    provider.set(step_seconds=30)
    cluster = await begin()
    await cluster.pass_time(200)
    assert (cluster.status()["phase"], cluster.status().get("failure")) == ("Running", None)
    await cluster.pass_time(3600)
    await live(cluster, 900)
    assert cluster.status()["phase"] == "Succeeded", cluster.status()
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"


async def test_one_jobs_losses_that_cannot_be_read_hold_up_no_other_job(provider, begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    provider.fault(RECORDS[0], status=500, times=ALWAYS)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(200)
    assert cluster.accounts.of("openai").poller.trouble is None


LOOK_UPS = {
    "labels are dropped": {"drop_metadata": True},
    "the oldest come first": {"list_oldest_first": True, "ignore_metadata_filter": True},
    "neither order nor filter nor labels": {
        "list_oldest_first": True,
        "ignore_metadata_filter": True,
        "drop_metadata": True,
    },
}


@pytest.mark.alike
@pytest.mark.parametrize("name", LOOK_UPS)
@pytest.mark.parametrize("days_behind", [0, 300])
async def test_a_job_whose_creation_was_not_answered_is_found_again(provider, begin, name, days_behind):
    provider.set(**LOOK_UPS[name])
    cluster = await begin(with_cloud_job)
    provider.clock.now -= days_behind * 86400
    provider.fault(CREATE, after_commit=True, outcome="cut")
    await cluster.check()
    await cluster.settle()
    for _ in range(8):
        await cluster.pass_time(30)
    assert (provider.count(CREATE), cluster.status()["provider"]["jobID"][:6]) == (1, "ftjob-")


MODELS = {
    "none by name": (404, None),
    "names are not paths": (405, None),
    "none at all": (404, 404),
    "no list": (405, 501),
}


@pytest.mark.alike
@pytest.mark.parametrize("name", MODELS)
async def test_a_model_is_found_wherever_a_service_shows_it(provider, begin, name):
    by_name, listed = MODELS[name]
    provider.fault("models.retrieve", status=by_name, times=ALWAYS)
    if listed is not None:
        provider.fault("models.list", status=listed, times=ALWAYS)
    cluster = await begin()
    await cluster.pass_time(3600)
    await live(cluster, 180)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready", cluster.status(DEPLOYMENT)
    assert provider.count("chat.completions.create") == (1 if listed else 0)


async def test_a_service_that_lists_no_files_has_them_deleted_by_their_names(provider, begin):
    provider.fault("files.list", status=405, times=ALWAYS)
    cluster = await begin()
    await cluster.pass_time(3600)
    await live(cluster, 180)
    assert cluster.status()["phase"] == "Succeeded"
    assert provider.count("files.delete") == 1


@pytest.mark.parametrize("operation", ["files.retrieve", CREATE])
async def test_a_file_that_is_not_known_everywhere_yet_is_waited_for(provider, begin, operation):
    provider.fault(operation, status=404, code="not_found", times=3)
    cluster = await begin()
    assert cluster.status()["failure"]["reason"] == "ProviderUnavailable"
    for _ in range(5):
        await cluster.pass_time(15)
    await cluster.pass_time(3600)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 1)


async def test_a_job_that_does_not_show_yet_is_cancelled_once_it_does(provider, begin):
    cluster = await begin()
    for operation in (RETRIEVE, CANCEL):
        provider.fault(operation, status=404, code="not_found", times=2)
    await cluster.kube.delete(FINE_TUNE_JOBS, "sentiment-1", "team-a")
    await cluster.settle()
    assert ADDRESS in cluster.kube.objects, "it may be on its way"
    await live(cluster, 300)
    assert ADDRESS not in cluster.kube.objects
    assert provider.left() == []


async def test_a_job_that_was_seen_and_hides_for_a_moment_is_not_gone(provider, begin):
    cluster = await begin()
    await cluster.pass_time(20)
    provider.set(list_lag_seconds=1000)
    provider.fault(RETRIEVE, status=404, code="not_found", times=2)
    for _ in range(2):
        await cluster.pass_time(20)
        assert cluster.status()["phase"] == "Queued", cluster.status()
    await cluster.pass_time(3600)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_deletion_that_a_proxy_has_answered_is_made_again(provider, begin):
    cluster = await begin()
    model = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"deletionPolicy": "Delete"}}
    cluster.kube.put(FINE_TUNED_MODELS, model)
    provider.fault("files.delete", outcome="empty", times=3)
    provider.fault("models.delete", outcome="empty")
    await cluster.pass_time(3600)
    await live(cluster, 300)
    assert cluster.status()["phase"] == "Succeeded"
    await cluster.kube.delete(FINE_TUNED_MODELS, "sentiment", "team-a")
    await cluster.settle()
    await live(cluster, 600)
    assert provider.left() == []


async def test_a_file_that_does_not_show_a_moment_after_it_was_brought_there_is_waited_for_without_an_alarm(
    provider, begin
):
    """It may be one that an operator has deleted which ended before it could say so."""
    cluster = await begin()
    provider.fault("files.list", status=405, times=ALWAYS)
    provider.fault("files.retrieve", status=404, code="not_found", times=ALWAYS)
    await cluster.kube.delete(FINE_TUNE_JOBS, "sentiment-1", "team-a")
    await cluster.settle()
    assert ADDRESS in cluster.kube.objects
    assert cluster.condition("Cleaned") == {}
    await live(cluster, 300)
    assert ADDRESS not in cluster.kube.objects
