"""A FineTuneJob's whole life at a simulated OpenAI, over its real SDK."""

from copy import deepcopy

import pytest

from finetune_api.names import ABANDON_ANNOTATION, PROVIDER_FINALIZER
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, merge, timestamp
from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.providers.calls.errors import TryLater
from finetune_operator.providers.remote.serving import CloudServing
from finetune_operator.runtime.errors import LeadershipLost
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS, MODEL_DEPLOYMENTS, SECRETS
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.simulators.conftest import start
from tests.simulators.openai import Failure
from tests.unit.finetune_operator.reconcilers.cloud import (
    MINI,
    begin,
    provider,
    rows,
    with_cloud_job,
    with_submitted_job,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB, MODEL

__all__ = ["begin", "provider", "start"]

CREATE = "fine_tuning.jobs.create"


async def test_a_job_becomes_a_version_that_is_served(provider, begin):
    cluster = await begin(with_cloud_job)
    await cluster.check()
    assert cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["finalizers"] == [
        PROVIDER_FINALIZER
    ]
    await cluster.settle()
    status = cluster.status()
    assert (status["phase"], status["provider"]["jobID"][:6]) == ("Queued", "ftjob-")
    assert (status["cost"]["estimated"], status["cost"]["currency"]) == ("0.01", "USD")
    await cluster.poll()
    assert cluster.condition("Reconciling")["message"] == "the provider checks the files"
    await cluster.pass_time(182)
    status = cluster.status()
    assert (status["phase"], status["progress"]["step"] > 0) == ("Running", True)
    assert status["progress"]["totalSteps"] == 3
    await cluster.pass_time(3600)
    status = cluster.status()
    assert (status["phase"], status["modelVersion"]) == ("Succeeded", 1)
    assert [point["step"] for point in status["loss"]["train"]] == [1, 2, 3]
    assert status["trainLoss"] == status["loss"]["train"][-1]["value"]
    assert status["cost"]["actual"] == f"{provider.cost():.2f}"
    version = cluster.status(MODEL)["versions"][0]
    assert version["artifact"] == {"providerModelID": status["result"]["artifact"]["providerModelID"]}
    assert "loraRank" not in version
    deployment = cluster.status(DEPLOYMENT)
    assert (deployment["phase"], deployment["servedVersion"], deployment["engine"]) == ("Ready", 1, "OpenAI")
    assert deployment["cost"]["display"] == "by tokens"
    model = version["artifact"]["providerModelID"]
    assert deployment["endpoint"] == {"url": f"{cluster.url}/v1", "model": model, "api": "OpenAI"}


async def test_what_slept_at_another_provider_is_awake_where_nothing_has_to_stand(begin):
    """Its spec is another one since: without `idle`, as this provider demands."""
    cluster = await begin(with_submitted_job)
    await cluster.pass_time(3600)
    stopped = Fact("Idle", "True", Reason.IDLE, "so it was stopped")
    before = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["status"]
    conditions = [c.wire() for c in merge(None, [stopped], generation=1, now=cluster.now)]
    slept = {
        "asleep": {"since": "2026-11-21T12:00:00Z", "generation": 0},
        "usage": {"lastRequestAt": "2026-11-21T10:00:00Z"},
        "conditions": [*before["conditions"], *conditions],
    }
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status={**before, **slept})
    await cluster.settle()
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], {"asleep", "usage"} & set(status)) == ("Ready", 1, set())
    assert cluster.condition("Idle", DEPLOYMENT)["status"] == "False"


async def test_a_job_that_has_ended_leaves_its_model_and_nothing_else(provider, begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    assert {resource.kind for resource in provider.left()} <= {"model", "job", "checkpoint", "file"}
    assert [r for r in provider.left() if r.kind == "file" and "results" not in r.state] == []
    metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    assert not metadata.get("finalizers")


async def test_an_operator_that_is_new_at_every_step_makes_one_job(provider, begin):
    cluster = await begin(with_cloud_job)

    async def restart() -> None:
        await cluster.aclose()
        cluster.restart()
        await cluster.observer.resync()
        await cluster.settle()
        await cluster.poll()

    await restart()
    await cluster.check()
    await restart()
    await restart()
    await cluster.pass_time(3600)
    await restart()
    assert cluster.status()["phase"] == "Succeeded"
    assert provider.count(CREATE) == 1
    assert len(cluster.status(MODEL)["versions"]) == 1


@pytest.mark.parametrize("outcome", ["answer", "cut", "page", "empty"])
async def test_a_job_whose_creation_was_not_answered_is_found_again(provider, begin, outcome):
    cluster = await begin(with_cloud_job)
    provider.fault(CREATE, after_commit=True, outcome=outcome)
    provider.set(list_lag_seconds=60)
    await cluster.check()
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["failure"]["reason"]) == ("Queued", "ProviderUnavailable")
    for _ in range(12):
        await cluster.pass_time(30)
    assert cluster.status()["provider"]["jobID"].startswith("ftjob-")
    assert provider.count(CREATE) == 1
    assert "failure" not in cluster.status()


async def test_a_job_that_was_never_made_is_asked_for_again_when_that_is_certain(provider, begin):
    cluster = await begin(with_cloud_job)
    provider.fault(CREATE, status=503)
    await cluster.check()
    await cluster.settle()
    await cluster.pass_time(60)
    assert provider.count(CREATE, committed=False) == 1, "it may still show"
    for _ in range(4):
        await cluster.pass_time(40)
    assert provider.count(CREATE) == 1
    assert cluster.status()["provider"]["jobID"].startswith("ftjob-")


async def test_a_replica_that_does_not_lead_any_more_makes_no_job(provider, begin):
    cluster = await begin(with_cloud_job)
    await cluster.check()
    cluster.leads = False
    with pytest.raises(LeadershipLost):
        await cluster.settle()
    assert provider.count(CREATE, committed=False) == 0


async def test_a_replica_that_loses_its_lease_between_two_calls_makes_no_job(provider, begin):
    """The files are looked at before the job is asked for: the replica may be frozen there, or wait for its turn."""
    cluster = await begin(with_cloud_job)
    await cluster.check()

    async def freeze(operation, carry_out):
        cluster.leads = cluster.leads and not operation.startswith("files.")
        return carry_out()

    provider.meddle = freeze
    with pytest.raises(LeadershipLost):
        await cluster.settle()
    assert provider.count(CREATE, committed=False) == 0


async def test_of_two_jobs_the_oldest_is_kept_and_the_other_cancelled(provider, begin):
    cluster = await begin(with_cloud_job)
    await cluster.check()
    await cluster.settle()
    job = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    sdk = (await cluster.accounts.of("openai").client.api())._sdk
    first = await sdk.fine_tuning.jobs.retrieve(cluster.status()["provider"]["jobID"])
    provider.advance(5)
    second = await sdk.fine_tuning.jobs.create(model=MINI, training_file=first.training_file, metadata=first.metadata)
    status = deepcopy(cluster.status())
    del status["provider"]["jobID"]
    cluster.kube.put(FINE_TUNE_JOBS, {**job, "status": status})
    await cluster.settle()
    assert cluster.status()["provider"]["jobID"] == first.id
    assert (await sdk.fine_tuning.jobs.retrieve(second.id)).status == "cancelled"
    assert ("FineTuneJob", "Warning", "Duplicate") in cluster.told


async def test_a_budget_below_the_estimate_is_refused_before_any_job(provider, begin):
    cluster = await begin(with_cloud_job, budget={"maxCost": "0.001"})
    await cluster.check()
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert failure["reason"] == "BudgetExceeded"
    assert "0.01 USD" in failure["message"]
    assert "maxCost 0.001" in failure["message"]
    assert provider.count(CREATE, committed=False) == 0


async def test_a_budget_without_a_known_price_is_refused_before_a_pod_is_made(begin):
    cluster = await begin(with_cloud_job, budget={"maxCost": "5", "currency": "EUR"})
    failure = cluster.status()["failure"]
    assert failure["reason"] == "PriceUnknown"
    assert f"providerCatalogue, under {cluster.url.removeprefix('http://')}, and" in failure["nextStep"]
    assert JOBS not in {resource for resource, _, _ in cluster.kube.objects}


ENDINGS = {
    "closed": ({"settings": {"fine_tuning_closed": True}}, "FineTuningClosed"),
    "fails": ({"settings": {"fail_next_job": Failure(after_seconds=2)}}, "ProviderFailed"),
    "a bad request": ({"fault": {"operation": CREATE, "status": 400, "code": "bad"}}, "ProviderRefused"),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_each_end_at_the_provider_has_its_reason_and_next_step(provider, begin, name):
    given, reason = ENDINGS[name]
    provider.set(**given.get("settings", {}))
    if "fault" in given:
        provider.fault(**given["fault"])
    cluster = await begin()
    await cluster.pass_time(3600)
    failure = cluster.status()["failure"]
    assert (cluster.status()["phase"], failure["reason"]) == ("Failed", reason)
    assert failure["nextStep"]
    assert not cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"].get("finalizers")


OBSTACLES = {  # the first list tells whose account it is, the second that the address is right
    "a limit": ({"operation": CREATE, "status": 429, "headers": {"Retry-After": "7"}}, "RateLimited"),
    "a quota": ({"operation": CREATE, "status": 429, "code": "insufficient_quota"}, "QuotaExceeded"),
    "a look-up without answer": (
        {"operation": "fine_tuning.jobs.list", "status": 500, "skip": 2},
        "ProviderUnavailable",
    ),
    "a proxy's page": ({"operation": "fine_tuning.jobs.list", "outcome": "page", "skip": 2}, "ProviderUnavailable"),
}


@pytest.mark.parametrize("name", OBSTACLES)
async def test_an_obstacle_is_said_and_passes(provider, begin, name):
    fault, reason = OBSTACLES[name]
    provider.fault(**fault)
    cluster = await begin()
    assert cluster.status()["failure"]["reason"] == reason
    assert cluster.status()["failure"]["nextStep"]
    await cluster.pass_time(301)
    await cluster.pass_time(301)
    assert "failure" not in cluster.status()
    assert provider.count(CREATE) == 1


@pytest.mark.parametrize("outcome", ["page", "empty"])
@pytest.mark.parametrize("operation", ["fine_tuning.jobs.list", "fine_tuning.jobs.list_events"])
async def test_answers_that_nobody_can_read_end_no_polling(provider, begin, operation, outcome):
    cluster = await begin()
    provider.fault(operation, outcome=outcome, times=3)
    for _ in range(3):
        await cluster.pass_time(30)
    await cluster.pass_time(3600)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_revoked_key_stalls_a_running_job_and_a_new_one_lets_it_go_on(provider, begin):
    cluster = await begin()
    await cluster.poll()
    provider.set(revoked_keys=frozenset({"sk-simulated"}), keys=frozenset({"sk-simulated", "sk-new"}))
    await cluster.pass_time(10)
    assert cluster.status()["failure"]["reason"] == "CredentialsInvalid"
    assert cluster.condition("Stalled")["status"] == "True"
    assert "sk-" not in str(cluster.status())
    cluster.set_key("sk-new")
    await cluster.pass_time(61)
    await cluster.pass_time(3600)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_missing_secret_is_named(begin):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    cluster.set_key("")
    await cluster.wait(61)
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows())
    assert (refused.value.status, "SecretNotFound" in refused.value.sentence) == (503, True)
    assert "finetune/openai" in refused.value.sentence


async def test_a_job_that_is_deleted_behind_our_back_says_so(begin):
    cluster = await begin()
    await cluster.poll()
    cluster.kube.change(
        FINE_TUNE_JOBS,
        "sentiment-1",
        status={**cluster.status(), "provider": {**cluster.status()["provider"], "jobID": "ftjob-gone"}},
    )
    await cluster.settle()
    await cluster.pass_time(121)  # up to then it may not be shown yet
    assert cluster.status()["failure"]["reason"] == "DeletedAtProvider"


async def test_suspending_cancels_and_resuming_starts_anew(provider, begin):
    cluster = await begin()
    await cluster.pass_time(182)
    first = cluster.status()["provider"]["jobID"]
    assert cluster.status()["loss"]["train"]
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["provider"]["attempt"]) == ("Suspended", 2)
    assert "checkpoint" not in cluster.condition("Suspended")["message"]
    sdk = (await cluster.accounts.of("openai").client.api())._sdk
    assert (await sdk.fine_tuning.jobs.retrieve(first)).status == "cancelled"
    cluster.change_job(suspend=False)
    await cluster.settle()
    await cluster.check(attempt=2)
    await cluster.settle()
    assert provider.count(CREATE) == 2
    told = {"loss", "trainLoss", "evalLoss", "progress"} & cluster.status().keys()
    assert not told, "they are of a model that nobody has"


async def test_suspending_a_job_that_has_just_succeeded_keeps_its_model(provider, begin):
    cluster = await begin()
    await cluster.pass_time(181)
    provider.advance(3600)
    cluster.change_job(suspend=True)
    await cluster.settle()
    await cluster.poll()
    await cluster.wait(10)
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert all(kind != "Warning" for _, kind, _ in cluster.told), "a success that came first is no failure"


async def test_a_job_whose_creation_may_still_show_is_not_let_go_before_it_is_certain(provider, begin):
    cluster = await begin(with_cloud_job)
    provider.fault(CREATE, after_commit=True)
    provider.set(list_lag_seconds=60)
    await cluster.check()
    await cluster.settle()
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") in cluster.kube.objects
    for _ in range(4):
        await cluster.pass_time(61)
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
    assert provider.cost() == 0


async def test_a_job_without_credentials_can_be_let_go(provider, begin):
    cluster = await begin()
    provider.set(revoked_keys=frozenset({"sk-simulated"}))
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert ABANDON_ANNOTATION in cluster.condition("Stalled")["message"]
    job = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]
    annotated = job["metadata"] | {"annotations": {ABANDON_ANNOTATION: "true"}}
    cluster.kube.put(FINE_TUNE_JOBS, {**job, "metadata": annotated})
    await cluster.settle()
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
    assert ("FineTuneJob", "Warning", "Abandoned") in cluster.told


async def test_a_deadline_cancels_the_job(provider, begin):
    cluster = await begin(activeDeadlineSeconds=600)
    provider.set(step_seconds=1000)
    await cluster.pass_time(300)
    await cluster.pass_time(301)
    assert cluster.status()["failure"]["reason"] == "DeadlineExceeded"
    sdk = (await cluster.accounts.of("openai").client.api())._sdk
    assert (await sdk.fine_tuning.jobs.retrieve(cluster.status()["provider"]["jobID"])).status == "cancelled"


async def test_fields_without_meaning_at_the_provider_are_refused_before_a_pod_is_made(begin):
    cluster = await begin(with_cloud_job, method="Full", hyperparameters={"learningRate": 1e-4, "epochs": 1.5})
    failure = cluster.status()["failure"]
    assert failure["reason"] == "SpecInvalid"
    for field in ("spec.method", "spec.hyperparameters.learningRate", "spec.hyperparameters.epochs"):
        assert field in failure["message"]
    assert not [key for key in cluster.kube.objects if key[0] is JOBS]


async def test_a_new_version_serves_and_history_deletes_the_old_model_with_its_results(provider, begin):
    cluster = await begin()
    cluster.kube.put(
        FINE_TUNED_MODELS,
        {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"historyLimit": 1}},
    )
    await cluster.pass_time(3600)
    first = cluster.status(DEPLOYMENT)["endpoint"]["model"]
    [results] = [one.name for one in provider.left() if one.kind == "file"]
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)
    await cluster.pass_time(600)
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 2
    assert [v["version"] for v in cluster.status(MODEL)["versions"]] == [2]
    models = {resource.name for resource in provider.left() if resource.kind == "model"}
    assert first not in models
    assert cluster.status(DEPLOYMENT)["endpoint"]["model"] in models
    [file] = [one.name for one in provider.left() if one.kind == "file"]
    assert file != results


async def test_the_operator_asks_little_while_a_job_runs(provider, begin):
    cluster = await begin()
    await cluster.pass_time(181)
    before = len(provider.calls)
    cluster.kube.requests.clear()
    for _ in range(3):
        await cluster.poll()
        await cluster.reconcile(JOB)
    assert [call.operation for call in provider.calls[before:]].count("fine_tuning.jobs.list") == 3
    assert cluster.kube.asked("patch_status", "finetunejobs") == 0


async def test_no_secret_is_in_any_status_event_or_log(provider, begin, caplog):
    caplog.set_level("DEBUG")
    canary = "sk-canary-0123456789abcdefghij"
    provider.set(keys=frozenset({canary}))
    cluster = await begin(with_cloud_job)
    cluster.set_key(canary)
    await cluster.wait(61)
    await cluster.check()
    await cluster.settle()
    provider.set(revoked_keys=frozenset({canary}))
    await cluster.pass_time(40)
    seen = [str(obj) for (resource, _, _), obj in cluster.kube.objects.items() if resource is not SECRETS]
    assert canary not in " ".join([*seen, str(cluster.told), caplog.text])
    assert "canary" not in " ".join(seen)


async def test_a_deployment_whose_secret_comes_a_little_later_fails_only_after_a_minute(begin, monkeypatch):
    cluster = await begin()
    await cluster.pass_time(3600)

    async def observe(*_):
        return Serving("Failing", 1, 0, TryLater(Reason.SECRET_NOT_FOUND, "no Secret").failure())

    monkeypatch.setattr(CloudServing, "observe", observe)
    found = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]
    metadata = found["metadata"] | {"creationTimestamp": timestamp(cluster.now)}
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", metadata=metadata)
    for seconds, stalled in ((30, "False"), (600, "True")):
        await cluster.pass_time(seconds)
        assert cluster.condition("Stalled", DEPLOYMENT)["status"] == stalled
        assert "no Secret" in cluster.condition("Ready", DEPLOYMENT)["message"]
