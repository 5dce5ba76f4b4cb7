"""Statuses that somebody else writes as well: put right, and not as fast as the other one writes."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.manifest import Manifest
from finetune_operator.decide.conditions import timestamp
from finetune_operator.runtime.errors import Contested, Transient
from finetune_operator.runtime.kube import FINE_TUNE_JOBS
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, Cluster, with_running_job


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
