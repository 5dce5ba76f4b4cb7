"""A model at a simulated OpenAI is measured: the pod's own program, the operator's own server, the provider's SDK."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import httpx2
import openai
import pytest

from finetune_api.asking import ChatRequest, RequestingAttempt
from finetune_api.catalogue import Catalogue
from finetune_api.job_status import TokenUsage
from finetune_api.trainer import MeasureJob
from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import CONNECTIONS, EVENTS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS, PODS
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.simulators.conftest import start
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.decide.given import stamp
from tests.unit.finetune_operator.reconcilers.cloud import KEY, simulator
from tests.unit.finetune_operator.reconcilers.evaluation import DATASET, ROWS, MeasuredCluster, lines, priced
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL
from tests.unit.finetune_operator.reconcilers.test_contested_statuses import keep_out_of_statuses

__all__ = ["start"]

CHAT = "chat.completions.create"
QUESTION = ChatRequest.model_validate(
    {"model": "tuned", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
)


@pytest.fixture
def provider() -> OpenAISimulator:
    return simulator()


@pytest.fixture
async def begin(provider: Any, start: Any, tmp_path: Any, monkeypatch: Any) -> Callable[..., Any]:
    """Makes a cluster whose job's model is made and waits to be measured."""

    async def begun(**fields: Any) -> MeasuredCluster:
        cluster = MeasuredCluster(provider, start(provider), tmp_path)
        await cluster.begin(monkeypatch, **fields)
        return cluster

    return begun


async def test_a_tuned_model_is_compared_with_its_base_model(provider, begin):
    cluster = await begin()
    assert cluster.status()["phase"] == "Evaluating"
    assert cluster.condition("Ready")["status"] == "False"
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects, "a version has its evaluation"
    last = await cluster.measure()
    assert last.phase == "Measured"
    status = cluster.status()
    found = status["evaluation"]
    assert (found["tuned"]["exactMatch"], found["baselines"]["zeroShot"]["exactMatch"]) == (1.0, 0.0)
    assert (found["verdict"], found["rows"]) == ("Better", ROWS)
    assert "loss" not in found["tuned"]
    assert "not available from a provider" in found["missing"]
    assert found["tokensPerAnswer"]["tuned"] > 0
    assert (status["phase"], status["modelVersion"]) == ("Succeeded", 1)
    assert cluster.condition("Evaluated")["status"] == "True"
    assert status["progress"]["answers"] == status["progress"]["totalAnswers"] == 2 * ROWS
    assert status["progress"]["step"] == 3, "what is known of the training stays"
    assert cluster.status(MODEL)["versions"][0]["evaluation"]["verdict"] == "Better"
    assert provider.count(CHAT) == 2 * ROWS
    assert cluster.evaluation["tuned"]["answers"] == cluster.evaluation["base"]["answers"] == ROWS


async def test_questions_that_come_while_a_job_is_looked_at_do_not_have_it_looked_at_for_ever(begin, monkeypatch):
    cluster = await begin()
    cluster.start_pod()
    await cluster.settle()
    told = {"step": 3, "totalSteps": 3, "answers": 1, "totalAnswers": 2 * ROWS, "updatedAt": stamp(60)}
    cluster.reports.accept(cluster.report("Evaluating", progress=told))
    looks = count(1)
    monkeypatch.setattr(cluster.answers, "asked", lambda _: (TokenUsage(answers=next(looks)), None))
    before = cluster.kube.asked("patch_status", "finetunejobs")
    await cluster.settle()
    assert cluster.status()["progress"]["answers"] == 1
    assert cluster.kube.asked("patch_status", "finetunejobs") == before + 1


async def test_what_was_asked_is_part_of_the_bill(provider, begin):
    cluster = await begin()
    cost = cluster.status()["cost"]
    assert (cost["estimated"], cost["evaluation"]) == ("0.02", "0.01")
    assert "evaluation of 12 rows" in cost["basis"]
    await cluster.measure()
    asked = cluster.evaluation
    assert asked["tuned"]["promptTokens"] > 0
    assert Decimal(cluster.status()["cost"]["actual"]) == provider.cost().quantize(Decimal("0.01"))


async def test_a_version_that_is_no_better_does_not_become_active(begin):
    cluster = await begin()
    await cluster.measure()
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"activation": "IfBetter"})
    cluster.add_cloud_job("sentiment-2", dataset=DATASET)
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)
    job = cluster.start_pod(job="sentiment-2")
    await cluster.settle()
    last = await cluster.ask(job)
    cluster.finish_pod(last, job="sentiment-2")
    await cluster.settle()
    versions = cluster.status(MODEL)["versions"]
    assert [one["version"] for one in versions] == [1, 2]
    assert versions[1]["evaluation"]["baselines"]["activeVersion"]["verdict"] == "NoDifference"
    assert cluster.status(MODEL)["activeVersion"] == 1


async def test_a_provider_that_stumbles_costs_no_answer(provider, begin):
    cluster = await begin()
    provider.fault(CHAT, status=429, code="rate_limit_exceeded", headers={"Retry-After": "2"}, skip=3, times=2)
    provider.fault(CHAT, status=500, skip=8)
    provider.fault(CHAT, outcome="cut", skip=12)
    await cluster.measure()
    assert cluster.status()["evaluation"]["verdict"] == "Better"
    assert (cluster.evaluation["failures"], provider.count(CHAT)) == (0, 2 * ROWS)
    lost = 2  # of the answers that were cut off or answered with 500, nobody knows whether they are billed
    assert cluster.evaluation["tuned"]["answers"] + cluster.evaluation["base"]["answers"] == 2 * ROWS + lost


async def test_what_was_answered_is_not_asked_again_where_there_is_a_place_for_it(
    provider, begin, tmp_path, monkeypatch
):
    monkeypatch.setattr("finetune_trainer.evaluation.operator_way.PATIENCE_SECONDS", 0.0)
    cluster = await begin(evaluation={"output": {"uri": "pvc://reports/tweets"}})
    provider.fault(CHAT, status=503, skip=ROWS + 5, times=50)
    first = await cluster.measure()
    assert (first.phase, first.failure.reason) == ("Failed", "ProviderUnavailable")
    assert (cluster.status()["phase"], cluster.evaluation["tries"]) == ("Evaluating", 2)
    assert cluster.condition("Reconciling")["reason"] == "Retrying"
    provider.faults.clear()
    await cluster.begin_anew()
    await cluster.wait(61)
    await cluster.measure(2)
    assert cluster.status()["evaluation"]["verdict"] == "Better"
    assert provider.count(CHAT) == 2 * ROWS
    assert cluster.evaluation["tuned"]["answers"] == ROWS
    (folder,) = (tmp_path / "reports" / "tweets").iterdir()
    assert [path.name for path in folder.iterdir()] == ["report"]
    assert len(lines(folder / "report" / "evaluation.jsonl")) == ROWS
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "not available from a provider" in page
    assert "question 3" in page


async def test_an_operator_that_is_new_at_every_step_measures_once(provider, begin):
    cluster = await begin()
    await cluster.begin_anew()
    job = cluster.start_pod()
    await cluster.begin_anew()
    last = await cluster.ask(here(cluster, job))
    await cluster.begin_anew()
    cluster.finish_pod(last)
    await cluster.begin_anew()
    assert (cluster.status()["phase"], cluster.status()["evaluation"]["verdict"]) == ("Succeeded", "Better")
    assert cluster.evaluation["tries"] == 1
    assert provider.count(CHAT) == 2 * ROWS
    assert len(cluster.status(MODEL)["versions"]) == 1


async def test_a_model_that_cannot_be_measured_is_a_version_all_the_same(provider, begin, monkeypatch):
    monkeypatch.setattr("finetune_trainer.evaluation.operator_way.PATIENCE_SECONDS", 0.0)
    cluster = await begin()
    provider.fault(CHAT, status=429, code="insufficient_quota", times=1000)
    for number, wait in ((1, 61), (2, 601), (3, 0)):
        last = await cluster.measure(number)
        assert last.failure.reason == "QuotaExceeded"
        await cluster.wait(wait)
    status = cluster.status()
    assert (status["phase"], status["modelVersion"]) == ("Succeeded", 1)
    told = cluster.condition("Evaluated")
    assert (told["status"], told["reason"]) == ("False", "QuotaExceeded")
    assert "failure" not in status
    assert "evaluation" not in cluster.status(MODEL)["versions"][0]
    assert ("FineTuneJob", "Warning", "QuotaExceeded") in cluster.told
    assert (JOBS, "team-a", "sentiment-1-1-eval4") not in cluster.kube.objects


async def test_nothing_of_the_rows_is_said_anywhere(provider, begin, caplog):
    caplog.set_level("DEBUG", "finetune_operator")
    cluster = await begin()
    provider.fault(CHAT, status=400, code="content_filter", message="question 3 is not allowed", times=2)
    await cluster.measure()
    assert "rows were not answered" in cluster.status()["evaluation"]["missing"]
    said = str([cluster.kube.objects, cluster.told]) + caplog.text
    assert not [f"{word} {n}" for word in ("question", "answer") for n in range(ROWS) if f"{word} {n}" in said]


UNASKED = {
    "a model that the job does not compare with": ({}, {"model": "activeVersion"}),
    "a base model that is not a baseline": ({"evaluation": {"baselines": [{"activeVersion": {}}]}}, {"model": "base"}),
}


@pytest.mark.parametrize("name", UNASKED)
async def test_only_models_of_the_job_are_asked(provider, begin, name):
    fields, asked = UNASKED[name]
    cluster = await begin(**fields)
    job = cluster.start_pod()
    await cluster.settle()
    refusal = await refused(cluster, job, **asked)
    assert (refusal.status, refusal.sentence.partition(":")[0]) == (404, "ModelNotFound")
    assert provider.count(CHAT, committed=False) == 0


async def test_a_job_asks_no_more_often_than_it_has_rows_for(provider, begin):
    cluster = await begin()
    job = cluster.start_pod()
    await cluster.settle()
    allowed = 2 * ROWS + 3 + 8  # one in eight may be lost, and eight
    for _ in range(allowed):
        cluster.now += timedelta(seconds=1)
        await cluster.answers.accept(asker(job), QUESTION)
    refusal = await refused(cluster, job)
    assert (refusal.status, provider.count(CHAT)) == (409, allowed)
    cluster.reports.accept(cluster.report("Evaluating", progress={"step": 3, "totalSteps": 3, "answers": 1}))
    await cluster.settle()
    await cluster.begin_anew()
    assert (await refused(cluster, job)).status == 409, "a new process has found the count"


async def test_a_question_that_reached_nobody_is_not_counted(provider, begin, monkeypatch):
    """It may be asked again at once; one whose answer was lost may be billed."""
    cluster = await begin()
    job = cluster.start_pod()
    await cluster.settle()
    provider.fault(CHAT, outcome="cut", after_commit=True)
    assert (await refused(cluster, job)).status == 503
    cluster.now += timedelta(seconds=6)

    async def unreached(*_: Any) -> Any:
        raise openai.APITimeoutError(httpx2.Request("POST", "http://nobody")) from httpx2.ConnectTimeout("no")

    monkeypatch.setattr("finetune_operator.providers.openai.models.OpenAIModels._complete", unreached)
    refusal = await refused(cluster, job)
    assert (refusal.status, "does not answer in time" in refusal.sentence) == (503, True)
    tuned, _ = cluster.answers.asked(job.uid)
    assert tuned.answers == 1


async def test_status_says_why_no_question_is_answered_once_that_has_lasted(begin):
    cluster = await begin()
    job = cluster.start_pod()
    await cluster.settle()
    cluster.set_key("sk-revoked")
    for seconds, reason in ((61, None), (30, None), (31, "CredentialsInvalid")):
        cluster.now += timedelta(seconds=seconds)
        assert (await refused(cluster, job)).status == 503
        await cluster.settle()
        assert (cluster.status().get("failure") or {}).get("reason") == reason
    assert (cluster.status()["phase"], cluster.condition("Stalled")["status"]) == ("Evaluating", "True")
    cluster.set_key(KEY)
    cluster.now += timedelta(seconds=61)
    await cluster.answers.accept(asker(job), QUESTION)
    await cluster.settle()
    assert (cluster.status().get("failure"), cluster.condition("Stalled")["status"]) == (None, "False")


async def test_a_job_whose_status_tells_of_other_trouble_is_not_looked_at_with_each_answer(begin):
    cluster = await begin()
    job = cluster.start_pod()
    await cluster.settle()
    said = {"failure": {"reason": "ProviderUnavailable", "message": "polling is refused"}}
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status=cluster.status() | said)
    cluster.hear()
    looks = []
    for _ in range(3):
        cluster.queue.clear()
        await cluster.answers.accept(asker(job), QUESTION)
        looks.append(len(cluster.queue))
    assert looks == [1, 0, 0]


async def test_the_next_pod_does_not_begin_in_the_trouble_of_the_one_before(begin):
    cluster = await begin()
    job = cluster.start_pod()
    await cluster.settle()
    cluster.set_key("sk-revoked")
    for _ in range(2):
        cluster.now += timedelta(seconds=61)
        await refused(cluster, job)
    assert cluster.answers.silence(job.uid) is not None
    cluster.answers.begin(job.uid)
    await refused(cluster, job)
    assert cluster.answers.silence(job.uid) is None


async def test_questions_wait_for_each_other_and_none_is_sent_away(provider, begin):
    cluster = await begin()
    job = cluster.start_pod()
    await cluster.settle()
    replies = await asyncio.gather(*(cluster.answers.accept(asker(job), QUESTION) for _ in range(16)))
    assert ({reply.text for reply in replies}, provider.count(CHAT)) == ({"x"}, 16)


@pytest.mark.parametrize("tells", [True, False], ids=["by usage", "by the texts' length"])
async def test_answers_end_with_the_budget(provider, begin, tells):
    """Of a service that tells no usage, too: what nobody counts would read as free."""
    provider.set(tell_usage=tells)
    cluster = await begin(budget={"maxCost": "0.05"})
    cluster.catalogue = priced(cluster.url.removeprefix("http://"), tuned={"input": "5000", "output": "5000"})
    job = cluster.start_pod()
    await cluster.settle()
    last = await cluster.ask(job)
    assert (last.phase, last.failure.reason) == ("Failed", "BudgetExceeded")
    cluster.finish_pod(last, 1)
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    assert cluster.condition("Evaluated")["reason"] == "BudgetExceeded"
    assert 0 < provider.count(CHAT) < ROWS


async def test_within_a_budget_nothing_is_asked_whose_price_is_not_known_any_more(provider, begin):
    cluster = await begin(budget={"maxCost": "0.05"})
    cluster.catalogue = Catalogue()
    job = cluster.start_pod()
    await cluster.settle()
    last = await cluster.ask(job)
    assert (last.phase, last.failure.reason, provider.count(CHAT)) == ("Failed", "PriceUnknown", 0)


@pytest.mark.parametrize("fields", [{}, {"budget": {"maxCost": "5"}}], ids=["without a budget", "within a budget"])
async def test_questions_wait_for_a_connection_that_cannot_be_read(begin, fields):
    cluster = await begin(**fields)
    cluster.catalogue = priced(cluster.url.removeprefix("http://"), tuned={"input": "1", "output": "1"})
    job = cluster.start_pod()
    await cluster.settle()
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    cluster.kube.change(CONNECTIONS, "openai", None, spec=spec | {"ofANewerRelease": 1})
    await cluster.settle()
    with pytest.raises(Refusal) as refused:
        await cluster.answers.accept(asker(job), QUESTION)
    assert (refused.value.status, "cannot read LLMConnection openai" in refused.value.sentence) == (503, True)
    cluster.kube.change(CONNECTIONS, "openai", None, spec=spec)
    await cluster.settle()
    assert (await cluster.answers.accept(asker(job), QUESTION)).text


async def test_only_the_pod_of_the_evaluation_asks(begin):
    cluster = await begin()
    job = cluster.start_pod(component="check")
    await cluster.settle()
    identity = next(iter(cluster.identities.values()))
    assert cluster.answers.authorise(identity, asker(job)) == "the token's pod measures no model"
    job = cluster.start_pod()
    await cluster.settle()
    identity = next(reversed(cluster.identities.values()))
    assert cluster.answers.authorise(identity, asker(job)) is None
    other = asker(job).model_copy(update={"attempt": 2})
    assert cluster.answers.authorise(identity, other) == "the token's pod runs another attempt"
    last = await cluster.ask(job)
    cluster.finish_pod(last)
    await cluster.settle()
    assert cluster.answers.authorise(identity, asker(job)) == "the job has ended"
    assert (await refused(cluster, job)).status == 403


async def test_a_suspended_evaluation_goes_on_with_a_new_pod(provider, begin):
    cluster = await begin()
    cluster.start_pod()
    await cluster.settle()
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.evaluation["tries"]) == ("Suspended", 2)
    assert (JOBS, "team-a", "sentiment-1-1-eval1") not in cluster.kube.objects
    cluster.kube.drop(PODS, "sentiment-1-1-eval1-x")
    cluster.change_job(suspend=False)
    await cluster.settle()
    await cluster.measure(2)
    assert cluster.status()["phase"] == "Succeeded"
    assert provider.count(CHAT) == 2 * ROWS


async def test_pods_that_a_webhook_takes_out_of_the_count_do_not_go_on_asking_what_is_paid_for(begin, monkeypatch):
    cluster = await begin()
    keep_out_of_statuses(cluster, FINE_TUNE_JOBS, "provider.evaluation.failures", monkeypatch)
    cluster.start_pod()
    cluster.finish_pod(None, 137)
    for _ in range(3):
        with suppress(Forbidden):
            await cluster.pass_time(600)
    asking = [name for kind, _, name in cluster.kube.objects if kind is JOBS and "eval" in name]
    assert asking == ["sentiment-1-1-eval1"]


@pytest.mark.parametrize("counted", ["count/jobs.batch", "count/pods"])
async def test_what_has_ended_before_does_not_keep_the_pod_that_asks_out_of_a_quota(begin, counted):
    """A deployment may be billed while it waits: the check and the pod before are there to be looked at only."""
    cluster = await begin()
    cluster.start_pod()
    cluster.finish_pod(None, 75)
    said = f"is forbidden: exceeded quota: q, requested: {counted}=1, used: {counted}=2, limited: {counted}=2"
    if counted == "count/jobs.batch":
        cluster.kube.refusals["create", "jobs"] = Forbidden(403, "Forbidden", f'jobs.batch "a" {said}')
    await cluster.settle()
    await cluster.pass_time(60)
    if counted == "count/pods":
        uid = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1-eval2"]["metadata"]["uid"]
        body = {"metadata": {"name": "a", "namespace": "team-a"}, "reason": "FailedCreate", "regarding": {"uid": uid}}
        cluster.kube.put(EVENTS, {**body, "note": f'Error creating: pods "a" {said}'})
        await cluster.pass_time(60)
    assert cluster.status()["failure"]["reason"] == "PodRejected"
    left = {name for resource, _, name in cluster.kube.objects if resource is JOBS}
    assert left == ({"sentiment-1-1-eval2"} if counted == "count/pods" else set())
    cluster.kube.refusals.clear()
    await cluster.pass_time(60)
    await cluster.measure(2)
    assert cluster.status()["phase"] == "Succeeded"


async def test_an_evaluation_whose_connection_is_gone_waits_for_it(begin):
    cluster = await begin()
    cluster.change_job(suspend=True)
    await cluster.settle()
    cluster.kube.drop(CONNECTIONS, "openai", None)
    cluster.change_job(suspend=False)
    await cluster.settle()
    assert cluster.status()["phase"] == "Evaluating"
    assert cluster.status()["failure"]["reason"] == "ConnectionNotFound"
    assert "spec.connectionRef" in cluster.status()["failure"]["message"]
    cluster.connect()
    await cluster.pass_time(60)
    await cluster.measure(2)
    assert (cluster.status()["phase"], cluster.status().get("failure")) == ("Succeeded", None)


async def test_a_job_that_is_deleted_ends_its_evaluation(begin):
    cluster = await begin()
    job = cluster.start_pod()
    await cluster.settle()
    await cluster.answers.accept(asker(job), QUESTION)
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert cluster.answers.asked(job.uid) == (None, None), "what was counted of it is forgotten"
    assert (JOBS, "team-a", "sentiment-1-1-eval1") not in cluster.kube.objects
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects


def here(cluster: MeasuredCluster, job: MeasureJob) -> MeasureJob:
    """The Service leads to the process that leads by now."""
    return MeasureJob.model_validate_json(
        re.sub(r"localhost:\d+", f"localhost:{cluster.port}", job.model_dump_json(by_alias=True, exclude_none=True))
    )


def asker(job: MeasureJob) -> RequestingAttempt:
    return RequestingAttempt(namespace=job.namespace, name=job.name, uid=job.uid, attempt=job.attempt)


async def refused(cluster: MeasuredCluster, job: MeasureJob, **asked: Any) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        await cluster.answers.accept(asker(job), QUESTION.model_copy(update=asked))
    return refusal.value
