"""Files that a pod brings to a simulated OpenAI: whose they are, sent once, and whole or not at all."""

from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import pytest

from finetune_api.job_status import FineTuneJobStatus
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, SECRETS
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.simulators.conftest import start
from tests.unit.finetune_operator.decide.given import kstatus
from tests.unit.finetune_operator.reconcilers.cloud import KEY, begin, provider, rows, with_cloud_job

__all__ = ["begin", "provider", "start"]


async def test_files_of_somebody_else_are_not_tuned_on(provider, begin):
    cluster = await begin(with_cloud_job)
    cluster.add_cloud_job("other")
    await cluster.settle()
    cluster.run_pod(job="other")
    await cluster.settle()
    stolen = await cluster.send(rows(), job="other")
    cluster.run_pod()
    cluster.end_pod(0, cluster.checked([stolen]))
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "ProviderRefused"
    assert "not of this job" in cluster.status()["failure"]["message"]
    assert provider.count("fine_tuning.jobs.create", committed=False) == 0


async def test_a_file_whose_answer_was_lost_is_not_sent_twice(provider, begin):
    cluster = await begin(with_cloud_job)
    first = await cluster.send(rows())
    assert await cluster.send(rows()) == first
    assert provider.count("files.create") == 1


async def test_validation_goes_along_as_a_file_of_its_own_and_gives_the_second_curve(provider, begin):
    uris = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in ("train", "validation")}
    cluster = await begin(with_cloud_job, dataset=uris)
    cluster.run_pod()
    await cluster.settle()
    files = [await cluster.send(rows()), await cluster.send(rows(10), split="validation")]
    cluster.end_pod(0, cluster.checked(files))
    await cluster.settle()
    (job,) = provider.jobs.jobs.values()
    assert [job.request[file] for file in ("training_file", "validation_file")] == [file.id for file in files]
    await cluster.pass_time(3600)
    status = cluster.status()
    assert (status["phase"], bool(status["loss"]["train"])) == ("Succeeded", True)
    assert status["evalLoss"] == status["loss"]["validation"][-1]["value"]


@pytest.mark.parametrize(("brought", "lacking"), [("train", "validation"), ("validation", "train")])
async def test_a_pod_that_leaves_out_a_file_of_the_spec_has_no_job_made_without_it(provider, begin, brought, lacking):
    """As one of an older release might, which does not know of it; a pod of the right one makes up for it."""
    cluster = await begin(with_cloud_job, dataset={split: {"uri": "pvc://d/a.jsonl"} for split in (brought, lacking)})
    cluster.run_pod()
    await cluster.settle()
    cluster.end_pod(0, cluster.checked([await cluster.send(rows(), split=brought)]))
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert (cluster.status()["phase"], failure["reason"]) == ("Failed", "TrainerCrashed")
    assert f"nothing of spec.dataset.{lacking}:" in failure["message"]
    assert ("checkImage" in failure["nextStep"], "spec.retryNonce" in failure["nextStep"]) == (True, True)
    assert (provider.count("fine_tuning.jobs.create", committed=False), provider.left()) == (0, [])
    cluster.change_job(retryNonce="1")
    await cluster.settle()
    cluster.run_pod(attempt=2)
    await cluster.settle()
    files = [await cluster.send(rows(), split=split, attempt=2) for split in ("train", "validation")]
    cluster.end_pod(0, cluster.checked(files, attempt=2), attempt=2)
    await cluster.settle()
    assert provider.count("fine_tuning.jobs.create") == 1


@pytest.mark.parametrize(
    "content", [rows() + b"x", rows()[:-1], rows()[:-1] + b" "], ids=["longer", "shorter", "other"]
)
async def test_a_body_that_is_not_what_it_says_never_reaches_the_provider_whole(provider, begin, content):
    cluster = await begin(with_cloud_job)
    target = cluster.target(rows())

    async def body() -> AsyncIterator[bytes]:
        yield content

    with pytest.raises(Refusal) as refused:
        await cluster.uploads.accept(target, len(rows()), body())
    assert refused.value.status == 400
    assert provider.count("files.create") == 0


async def test_files_are_taken_of_the_present_attempt_only(begin):
    cluster = await begin()
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows(13))
    assert (refused.value.status, "attempt" in refused.value.sentence) == (403, True)


IN_THE_WAY: dict[str, tuple[dict[str, Any], str, str]] = {
    "a key that is not good": ({"keys": frozenset({"another"})}, "CredentialsInvalid", "Failed"),
    "no answer": ({}, "ProviderUnavailable", "InProgress"),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
async def test_what_keeps_data_from_their_provider_is_told_while_the_pod_waits(provider, begin, name):
    settings, reason, state = IN_THE_WAY[name]
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status().get("failure")) == ("Validating", None)
    if settings:
        provider.set(**settings)
    else:
        provider.fault("files.*", status=503)
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows())
    await cluster.settle()
    status = cluster.status()
    assert (refused.value.status, status["phase"], status["failure"]["reason"]) == (503, "Validating", reason)
    assert kstatus(FineTuneJobStatus.model_validate(status)) == state
    provider.set(keys=frozenset({KEY}))
    await cluster.wait(60)
    file = await cluster.send(rows())
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status().get("failure")) == ("Queued", None)


@pytest.mark.parametrize("unread", [False, True], ids=["is gone", "cannot be read"])
async def test_data_wait_for_a_connection_that_is_away_as_everything_does(begin, unread):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    connection = deepcopy(cluster.kube.objects[CONNECTIONS, "", "openai"])
    if unread:
        cluster.kube.change(CONNECTIONS, "openai", None, spec=connection["spec"] | {"ofANewerRelease": 1})
    else:
        cluster.kube.drop(CONNECTIONS, "openai", namespace=None)
    await cluster.settle()
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows())
    word = "this release of the operator cannot read" if unread else "does not exist"
    assert (refused.value.status, word in refused.value.sentence) == (503, True), "the pod comes again"
    assert not cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"].get("finalizers")
    if unread:
        cluster.kube.change(CONNECTIONS, "openai", None, spec=connection["spec"])
    else:
        cluster.kube.put(CONNECTIONS, connection)
    await cluster.settle()
    await cluster.wait(60)
    file = await cluster.send(rows())
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status().get("failure")) == ("Queued", None)


async def test_a_job_whose_data_are_not_taken_can_be_suspended(provider, begin):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    provider.set(keys=frozenset({"another"}))
    with pytest.raises(Refusal):
        await cluster.send(rows())
    await cluster.settle()
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert cluster.status()["phase"] == "Suspended"


async def test_that_the_connections_secret_is_missing_is_told_of_data_that_wait_for_it(begin):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    cluster.kube.drop(SECRETS, "openai", "finetune")
    await cluster.wait(3600)
    with pytest.raises(Refusal, match="SecretNotFound"):
        await cluster.send(rows())
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "SecretNotFound"
    cluster.set_key(KEY)
    await cluster.wait(60)
    cluster.end_pod(0, cluster.checked([await cluster.send(rows())]))
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status().get("failure")) == ("Queued", None)
