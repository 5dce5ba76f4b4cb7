"""Which pod may report for which job, and what is kept of reports."""

import pytest

from finetune_api.trainer import Report
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, JOBS, PODS, TokenIdentity
from finetune_operator.runtime.report_server.route import Outlived
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, Cluster, with_running_job


def identity(cluster: Cluster, **fields: str | None) -> TokenIdentity:
    pod = cluster.kube.objects[PODS, "team-a", "sentiment-1-1-x"]["metadata"]
    known = {"namespace": "team-a", "pod_name": pod["name"], "pod_uid": pod["uid"]}
    return TokenIdentity(username="system:serviceaccount:team-a:default", uid="sa", **(known | fields))


async def test_a_jobs_own_pod_may_report() -> None:
    cluster = await with_running_job()
    assert cluster.reports.authorise(identity(cluster), cluster.report("Running")) is None


@pytest.mark.parametrize(
    ("who", "what", "why"),
    [
        ({"pod_name": None, "pod_uid": None}, {}, "not bound to a pod"),
        ({"namespace": "team-b"}, {}, "not bound to a pod of the job's namespace"),
        ({"namespace": None}, {}, "not bound to a pod of the job's namespace"),
        ({}, {"namespace": "team-b"}, "not bound to a pod of the job's namespace"),
        ({"pod_name": "another"}, {}, "not a training pod"),
        ({"pod_uid": "of-an-earlier-pod"}, {}, "not a training pod"),
        ({"pod_uid": None}, {}, "not a training pod"),
        ({}, {"name": "sentiment-2"}, "another job"),
        ({}, {"uid": "of-an-earlier-job"}, "another job"),
        ({}, {"attempt": 2}, "another attempt"),
    ],
)
async def test_nobody_else_may(who: dict[str, str | None], what: dict[str, object], why: str) -> None:
    cluster = await with_running_job()
    told = Report.model_validate(cluster.report("Running").wire() | what)
    refusal = cluster.reports.authorise(identity(cluster, **who), told)
    assert refusal is not None
    assert why in refusal
    assert not isinstance(refusal, Outlived), "what the operator has not seen yet may come"


async def test_a_pod_whose_job_was_deleted_or_replaced_by_another_of_its_name_has_outlived_it() -> None:
    cluster = await with_running_job()
    who, told = identity(cluster), cluster.report("Running")
    cluster.store.remove(JOBS, "team-a", "sentiment-1-1")
    refusal = cluster.reports.authorise(who, told)
    assert refusal == "the Job of the token's pod is gone"
    assert isinstance(refusal, Outlived)


async def test_a_job_that_is_gone_or_has_ended_takes_no_reports_any_more() -> None:
    cluster = await with_running_job()
    who, told = identity(cluster), cluster.report("Running")
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={"completionTime": "2026-11-21T12:00:00Z"})
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)
    for why in ("the job has ended", "the job does not exist"):
        refusal = cluster.reports.authorise(who, told)
        assert (refusal, isinstance(refusal, Outlived)) == (why, True)
        cluster.store.remove(FINE_TUNE_JOBS, "team-a", "sentiment-1")


async def test_a_report_wakes_its_job_and_is_given_out_for_its_attempt_only() -> None:
    cluster = await with_running_job()
    told = cluster.report("Evaluating")
    cluster.reports.accept(told)
    assert cluster.queue == [JOB]
    assert cluster.reports.last(told.uid, 1) == told
    assert cluster.reports.last(told.uid, 2) is None
    assert cluster.reports.last("another", 1) is None


async def test_a_late_report_of_an_earlier_attempt_does_not_replace_a_newer_one() -> None:
    cluster = await with_running_job()
    newer = cluster.report("Running", attempt=2)
    cluster.reports.accept(newer)
    cluster.reports.accept(cluster.report("Running", attempt=1))
    assert cluster.reports.last(newer.uid, 2) == newer


async def test_reports_of_ended_jobs_are_not_kept() -> None:
    cluster = await with_running_job()
    told = cluster.report("Running")
    cluster.reports.accept(told)
    cluster.end_pod(65)
    await cluster.settle()
    assert cluster.reports.last(told.uid, 1) is None


async def test_of_a_job_that_ends_without_a_report_nothing_is_remembered() -> None:
    cluster = await with_running_job()
    job = ("team-a", "sentiment-1", cluster.report("Running").uid)
    asked = cluster.reports.last_heard_at(*job)
    cluster.end_pod(65)
    await cluster.wait(60)
    assert cluster.reports.last_heard_at(*job) == cluster.now > asked


async def test_reports_of_jobs_that_were_deleted_are_not_kept_and_those_of_the_next_of_that_name_are() -> None:
    cluster = await with_running_job()
    first = cluster.report("Running")
    cluster.reports.accept(first)
    second = first.model_copy(update={"uid": "of-the-next-one"})
    cluster.reports.accept(second)
    cluster.reports.forget(first.uid)
    assert cluster.reports.last(second.uid, 1) == second
    cluster.reports.forget_named("team-a", "sentiment-1")
    cluster.reports.forget_named("team-a", "unknown")
    assert cluster.reports.last(second.uid, 1) is None


async def test_a_trainer_that_says_nothing_for_long_is_told_of_and_left_alone() -> None:
    cluster = await with_running_job()
    cluster.reports.accept(cluster.report("Running"))
    await cluster.settle()
    await cluster.wait(900)
    assert cluster.status()["failure"]["reason"] == "TrainerSilent"
    assert ("FineTuneJob", "Warning", "TrainerSilent") in cluster.told
    assert (JOBS, "team-a", "sentiment-1-1") in cluster.kube.objects
    cluster.restart()
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "TrainerSilent", "nobody has heard it since"
    cluster.reports.accept(cluster.report("Running", progress={"step": 1, "totalSteps": 2}))
    await cluster.settle()
    assert ("failure" in cluster.status(), cluster.condition("Stalled")["status"]) == (False, "False")
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
