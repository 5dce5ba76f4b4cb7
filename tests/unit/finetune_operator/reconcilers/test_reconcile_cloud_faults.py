"""Faults at a provider that nobody would think of: what a person sees of them, and that they pass or end."""

from typing import Any

import httpx2
import pytest

from finetune_operator.providers.calls.failed_calls import unanswered
from finetune_operator.providers.openai.api import OpenAIApi
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, JOBS, NAMESPACES, PODS, SECRETS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import KEY, CloudCluster, begin, provider, rows, with_cloud_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, JOB

__all__ = ["begin", "provider", "start"]

CREATE = "fine_tuning.jobs.create"
OWN_KEY = "a-company's own 0815 key"
"""Of no shape that any list of patterns has."""


def seen(cluster: CloudCluster, caplog: Any) -> str:
    """All that anybody may read."""
    objects = [str(obj) for (resource, _, _), obj in cluster.kube.objects.items() if resource is not SECRETS]
    return " ".join([*objects, str(cluster.told), caplog.text])


@pytest.mark.parametrize("status", [400, 403, 429])
async def test_a_provider_that_repeats_the_key_has_it_repeated_nowhere(provider, begin, caplog, status):
    caplog.set_level("DEBUG", "finetune_operator")
    provider.set(keys=frozenset({OWN_KEY}))
    cluster = await begin(with_cloud_job)
    cluster.set_key(OWN_KEY)
    await cluster.wait(61)
    said = f"the key {OWN_KEY} is\x1b[31m not good for that\x00"
    provider.fault(CREATE, status=status, code="insufficient_quota" if status == 429 else "no", message=said)
    await cluster.check()
    await cluster.settle()
    message = cluster.status()["failure"]["message"]
    assert ("not good for that" in message, "\x1b" in message, "{" in message) == (True, False, False)
    assert OWN_KEY not in seen(cluster, caplog)


async def test_a_job_that_a_service_gives_no_time_to_is_found_again(provider, begin, monkeypatch):
    """Else the look-up would miss it, and it would be made a second time."""
    cluster = await begin(with_cloud_job)
    monkeypatch.setattr("finetune_operator.providers.openai.wire.parse_time", lambda _: None)
    provider.fault(CREATE, after_commit=True)
    await cluster.check()
    await cluster.settle()
    for _ in range(8):
        await cluster.pass_time(30)
    assert provider.count(CREATE) == 1
    assert cluster.status()["provider"]["jobID"].startswith("ftjob-")


async def test_a_defect_of_ours_does_not_end_the_watch(begin, monkeypatch):
    cluster = await begin()

    def broken(_: Any) -> Any:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr("finetune_operator.providers.openai.wire.metrics_of_events", broken)
        await cluster.pass_time(181)
        assert cluster.status()["failure"]["reason"] == "ProviderUnavailable"
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_provider_that_was_not_reached_is_asked_again_without_waiting_for_what_may_show(
    provider, begin, monkeypatch
):
    cluster = await begin(with_cloud_job)
    left = [httpx2.ConnectError("nobody listens")]
    create = OpenAIApi.create

    async def once_unreached(self: OpenAIApi, request: Any) -> Any:
        if left:
            raise unanswered(left.pop(), "somewhere")
        return await create(self, request)

    monkeypatch.setattr(OpenAIApi, "create", once_unreached)
    await cluster.check()
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "ProviderUnavailable"
    assert "askedAt" not in cluster.status()["provider"]
    await cluster.wait(61)
    assert provider.count(CREATE) == 1


async def test_a_secret_that_is_renewed_while_a_job_runs_is_used_from_then_on(provider, begin):
    cluster = await begin()
    await cluster.poll()
    provider.set(keys=frozenset({"sk-simulated", "sk-renewed-0123456789"}))
    cluster.set_key("sk-renewed-0123456789")
    await cluster.pass_time(61)
    provider.set(revoked_keys=frozenset({"sk-simulated"}))
    await cluster.pass_time(3600)
    assert (cluster.status()["phase"], "failure" in cluster.status()) == ("Succeeded", False)


async def test_a_key_of_another_organization_is_told_and_no_job_is_taken_for_deleted(provider, begin, monkeypatch):
    cluster = await begin()
    await cluster.pass_time(181)
    assert cluster.status()["phase"] == "Running"
    provider.set(step_seconds=600)
    with monkeypatch.context() as other:
        other.setattr(provider.jobs, "jobs", {})
        other.setattr(provider.files, "_files", {})
        for _ in range(3):
            await cluster.pass_time(61)
        stalled = cluster.condition("Stalled")
        assert (cluster.status()["phase"], stalled["reason"]) == ("Running", "CredentialsInvalid")
        assert "another account, organization or project" in stalled["message"]
        assert "completionTime" not in cluster.status()
    await cluster.pass_time(61)
    await cluster.pass_time(3600)
    await cluster.pass_time(61)
    assert (cluster.status()["phase"], "failure" in cluster.status()) == ("Succeeded", False)
    assert provider.count(CREATE) == 1


RESTRICTED = {
    "no namespaces": {"namespaceSelector": {"matchLabels": {"finetune": "yes"}}},
    "no models": {"fineTuning": {"allowedModels": ["other-*"]}},
    "no jobs": {"fineTuning": {"enabled": False}},
}


@pytest.mark.parametrize("name", RESTRICTED)
async def test_a_connection_that_is_restricted_in_mid_life_ends_no_job_and_takes_no_new_one(provider, begin, name):
    cluster = await begin()
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, **RESTRICTED[name]})
    await cluster.settle()
    cluster.add_cloud_job("sentiment-2")
    await cluster.pass_time(60)
    assert cluster.status(JOB._replace(name="sentiment-2"))["phase"] == "Failed"
    await cluster.pass_time(3600)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 1)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"


async def test_a_file_that_is_deleted_there_before_the_job_is_made_says_so_and_is_brought_again_by_a_new_nonce(
    provider, begin
):
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    file = await cluster.send(rows())
    await (await cluster.accounts.of("openai").client.api()).delete_file(file.id)
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.settle()
    for _ in range(11):
        assert cluster.status()["failure"]["reason"] == "ProviderUnavailable", "it may still show"
        await cluster.pass_time(10)
    await cluster.pass_time(10)
    failure = cluster.status()["failure"]
    assert (failure["reason"], "404" in failure["message"]) == ("ProviderRefused", True)
    assert ("spec.dataset.train: " in failure["message"], "spec.retryNonce" in failure["nextStep"]) == (True, True)
    assert provider.count(CREATE, committed=False) == 0
    spec = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", JOB.name]["spec"]
    cluster.kube.change(FINE_TUNE_JOBS, JOB.name, "team-a", spec={**spec, "retryNonce": "1"})
    await cluster.settle()
    await cluster.check(attempt=2)
    await cluster.settle()
    await cluster.pass_time(7200)
    await cluster.pass_time(61)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 1)


async def test_a_model_that_is_deleted_there_while_it_is_served_is_missed(begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    model = cluster.status(DEPLOYMENT)["endpoint"]["model"]
    await (await cluster.accounts.of("openai").client.api()).delete_model(model)
    await cluster.pass_time(3600)
    await cluster.pass_time(3600)
    status = cluster.status(DEPLOYMENT)
    assert status["phase"] in {"Failed", "Degraded"}
    assert cluster.condition("Ready", DEPLOYMENT)["status"] == "False"
    assert model in cluster.condition("Stalled", DEPLOYMENT)["message"]


@pytest.mark.parametrize("is_checked", [False, True], ids=["its pod is gone", "its data are there"])
async def test_a_job_whose_namespace_is_ending_is_not_begun_anew_nor_paid_for(provider, begin, is_checked):
    """Pods go before the objects of other kinds: until its turn comes, nothing else is to be seen of the job."""
    cluster = await begin(with_cloud_job)
    namespace = cluster.kube.objects[NAMESPACES, "", "team-a"]
    cluster.kube.put(NAMESPACES, {**namespace, "status": {"phase": "Terminating"}})
    if is_checked:
        await cluster.check()
    else:
        for kind, _, name in [at for at in cluster.kube.objects if at[0] in {JOBS, PODS}]:
            cluster.kube.drop(kind, name)
    before, made = cluster.status()["phase"], cluster.kube.asked("create", "jobs")
    await cluster.settle()
    await cluster.wait(30)
    assert (cluster.status()["phase"], cluster.kube.asked("create", "jobs")) == (before, made)
    assert provider.count(CREATE) == 0
    assert "its namespace is being deleted" in cluster.condition("Reconciling")["message"]
    await cluster.kube.delete(FINE_TUNE_JOBS, "sentiment-1", "team-a")
    await cluster.settle()
    assert ((FINE_TUNE_JOBS, "team-a", "sentiment-1") in cluster.kube.objects, provider.left()) == (False, [])


@pytest.mark.parametrize("budget", ["0", "0.000001", "999999999999.999999"])
async def test_budgets_at_their_ends(provider, begin, budget):
    cluster = await begin(budget={"maxCost": budget})
    enough = budget.startswith("9")
    assert provider.count(CREATE) == enough
    if not enough:
        assert (cluster.status()["failure"]["reason"], budget in cluster.status()["failure"]["message"]) == (
            "BudgetExceeded",
            True,
        )


@pytest.mark.parametrize("outcome", [{"outcome": "cut"}, {"status": 500}, {"outcome": "page"}])
async def test_a_job_that_a_lost_answer_has_cancelled_and_that_is_wanted_again_is_made_again(provider, begin, outcome):
    cluster = await begin()
    await cluster.pass_time(182)
    provider.fault("fine_tuning.jobs.cancel", after_commit=True, **outcome)
    cluster.change_job(suspend=True)
    await cluster.settle()
    cluster.change_job(suspend=False)
    await cluster.settle()
    for _ in range(2):
        await cluster.pass_time(61)
    assert (cluster.status()["phase"], cluster.status()["provider"]["attempt"]) == ("Queued", 2)
    await cluster.check(attempt=2)
    await cluster.settle()
    assert provider.count(CREATE) == 2


async def test_a_job_that_could_not_be_cancelled_and_is_wanted_again_goes_on_and_is_paid_for_once(provider, begin):
    cluster = await begin()
    await cluster.pass_time(182)
    cluster.set_key("another")
    await cluster.wait(61)
    cluster.change_job(suspend=True)
    await cluster.settle()
    cluster.set_key(KEY)
    cluster.change_job(suspend=False)
    await cluster.settle()
    for _ in range(3):
        await cluster.pass_time(3600)
    status = cluster.status()
    assert (status["phase"], status["provider"]["attempt"], provider.count(CREATE)) == ("Succeeded", 1, 1)
