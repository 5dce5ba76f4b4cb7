"""Statuses that somebody else writes as well: put right, and not as fast as the other one writes."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from copy import deepcopy
from datetime import timedelta
from decimal import Decimal
from functools import reduce
from typing import Any

import pytest

from finetune_api.manifest import Manifest
from finetune_api.trainer import Report
from finetune_operator.decide.conditions import timestamp
from finetune_operator.runtime.errors import Contested, Forbidden, Transient
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, Resource
from tests.simulators.conftest import start
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, begin, provider, with_cloud_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, MODEL, Cluster, with_running_job

__all__ = ["begin", "provider", "start"]


def overwrite(cluster: Cluster, said: str) -> None:
    """Another operator has its own opinion."""
    status = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["status"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=status | {"phase": said})


async def contest(cluster: Cluster, times: int) -> None:
    for _ in range(times):
        overwrite(cluster, "Pending")
        with suppress(Contested):
            await cluster.settle()


async def test_a_status_that_somebody_else_writes_is_put_right() -> None:
    cluster = await with_running_job()
    for _ in range(3):
        overwrite(cluster, "Pending")
        await cluster.settle()
        assert cluster.status()["phase"] == "Validating"


async def test_a_rival_is_not_answered_as_fast_as_it_writes() -> None:
    cluster = await with_running_job()
    before = cluster.kube.asked("patch_status", "finetunejobs")
    await contest(cluster, 50)
    assert cluster.kube.asked("patch_status", "finetunejobs") - before <= 6
    with suppress(Contested):
        await cluster.wait(60)
    cluster.wake(JOB)
    await cluster.settle()
    assert cluster.status()["phase"] == "Validating", "once the rival has gone it is put right"


async def test_a_write_whose_answer_was_lost_is_no_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await with_running_job()
    write, lost = cluster.kube.patch_status, [False]

    async def unheard(*args: Any) -> Manifest:
        written = await write(*args)
        if lost.pop() if lost else False:
            raise Transient(0, "", "the connection was cut")
        return written

    monkeypatch.setattr(cluster.kube, "patch_status", unheard)
    for step in range(20):
        lost.append(True)
        report = {"step": step, "totalSteps": 100, "updatedAt": timestamp(cluster.now)}
        cluster.reports.accept(cluster.report("Running", progress=report))
        with pytest.raises(Transient, match="cut"):
            await cluster.settle()
        cluster.now += timedelta(seconds=5)
        report = {"step": step, "totalSteps": 100, "updatedAt": timestamp(cluster.now)}
        cluster.reports.accept(cluster.report("Evaluating" if step % 2 else "Running", progress=report))
        await cluster.settle()
        cluster.now += timedelta(seconds=5)
    assert cluster.status()["phase"] == "Evaluating"


def keep_out_of_statuses(cluster: Cluster, resource: Resource, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutating webhook of the cluster; of a field within another one the path."""
    write, (*path, last) = cluster.kube.patch_status, field.split(".")

    async def mutated(kind: Resource, name: str, namespace: str, status: Manifest, version: str) -> Manifest:
        kept = deepcopy(status)
        if kind is resource:
            reduce(lambda part, key: part.get(key) or {}, path, kept).pop(last, None)
        return await write(kind, name, namespace, kept, version)

    monkeypatch.setattr(cluster.kube, "patch_status", mutated)


async def test_a_model_whose_versions_a_webhook_takes_out_counts_no_further_and_its_job_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = await with_running_job()
    with monkeypatch.context() as while_it_is_there:
        keep_out_of_statuses(cluster, FINE_TUNED_MODELS, "versions", while_it_is_there)
        cluster.end_pod(0, cluster.result())
        for _ in range(50):
            with suppress(Forbidden):
                await cluster.settle()
            cluster.wake(MODEL)
        assert cluster.kube.asked("patch_status", "finetunedmodels") <= 8, "each time it is put back as it was"
        assert cluster.status(MODEL).get("latestVersion") is None
        assert "keeps other values of status.versions" in cluster.condition("Stalled")["message"]
    await cluster.wait(60)
    cluster.wake(MODEL)
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status(MODEL)["latestVersion"]) == ("Succeeded", 1)


async def test_attempts_that_a_webhook_takes_out_of_the_count_do_not_go_on_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = await with_running_job()
    keep_out_of_statuses(cluster, FINE_TUNE_JOBS, "provider.retries", monkeypatch)
    cluster.end_pod(137)
    for _ in range(50):
        with suppress(Forbidden):
            await cluster.wait(0)
        cluster.wake(JOB)
    assert cluster.kube.asked("create", "jobs") == 1
    assert ("FineTuneJob", "Warning", "WriteRefused") in cluster.told
    monkeypatch.undo()
    await cluster.wait(60)
    await cluster.wait(60)
    assert (cluster.kube.asked("create", "jobs"), cluster.status()["provider"]["retries"]) == (2, 1)


async def test_nothing_is_asked_of_a_provider_whose_record_a_webhook_takes_out(
    provider: OpenAISimulator, begin: Callable[..., Awaitable[CloudCluster]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that lags would not show the job at the next look, and nothing would tell that it was asked for."""
    cluster = await begin(with_cloud_job)
    provider.set(list_lag_seconds=90)
    keep_out_of_statuses(cluster, FINE_TUNE_JOBS, "provider.askedAt", monkeypatch)
    await cluster.check()
    await cluster.settle()
    assert provider.count("fine_tuning.jobs.create") == 0
    assert "keeps other values of status.provider" in cluster.condition("Stalled")["message"]
    monkeypatch.undo()
    await cluster.wait(60)
    assert provider.count("fine_tuning.jobs.create") == 1


async def test_an_end_that_a_webhook_takes_out_is_not_written_as_fast_as_the_server_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = await with_running_job()
    keep_out_of_statuses(cluster, FINE_TUNE_JOBS, "conditions", monkeypatch)
    before = cluster.kube.asked("patch_status", "finetunejobs")
    cluster.end_pod(2)
    for _ in range(50):
        with suppress(Forbidden):
            await cluster.settle()
        cluster.wake(JOB)
    assert cluster.status()["phase"] == "Failed"
    assert cluster.kube.asked("patch_status", "finetunejobs") - before <= 8


async def test_what_a_webhook_makes_of_a_status_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await with_running_job()
    keep_out_of_statuses(cluster, FINE_TUNE_JOBS, "conditions", monkeypatch)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    assert ("FineTuneJob", "Warning", "WriteRefused") in cluster.told


async def test_a_large_number_that_the_server_writes_with_other_digits_is_no_webhooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The perplexity of a tuned model that learnt nonsense: the API server has floats below 1e21 without exponent."""
    cluster = await with_running_job()
    write, large = cluster.kube.patch_status, 2.3538526683701997e17

    async def in_digits(*args: Any) -> Manifest:
        stored = json.dumps(await write(*args)).replace(str(large), f"{Decimal(str(large)):f}")
        written: Manifest = json.loads(stored)
        return written

    monkeypatch.setattr(cluster.kube, "patch_status", in_digits)
    last = cluster.result().wire()
    last["result"]["trainLoss"] = large
    cluster.end_pod(0, Report.model_validate(last))
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status(MODEL)["latestVersion"]) == ("Succeeded", 1)
    assert "WriteRefused" not in {reason for _, _, reason in cluster.told}
