"""A status that is lost while its connection leads elsewhere: nothing is begun, paid for or let go of a second time."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from finetune_api.names import ABANDON_ANNOTATION, BEGUN_ANNOTATION, PROVIDER_FINALIZER
from finetune_operator.providers.begun import Begun, begun, with_place
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS, MODEL_DEPLOYMENTS
from tests.simulators.azure import AzureSimulator
from tests.simulators.conftest import start
from tests.simulators.openai import OpenAISimulator
from tests.simulators.openai.settings import Failure
from tests.unit.finetune_operator.decide.given import connection
from tests.unit.finetune_operator.reconcilers import hosted
from tests.unit.finetune_operator.reconcilers.cloud import (
    KEY,
    CloudCluster,
    begin,
    go_on,
    simulator,
    with_cloud_job,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB as THE_JOB
from tests.unit.finetune_operator.reconcilers.hosted import cluster, deployed, hosts
from tests.unit.finetune_operator.reconcilers.test_lost_hosted_statuses import elsewhere, second

__all__ = ["begin", "cluster", "elsewhere", "start"]

CREATE = "fine_tuning.jobs.create"
JOB, SERVED = (FINE_TUNE_JOBS, "team-a", "sentiment-1"), (MODEL_DEPLOYMENTS, "team-a", "sentiment")
OTHER_KEY = "sk-of-another-project"
Begin = Callable[..., Awaitable[CloudCluster]]


@pytest.fixture
def provider(request: Any) -> OpenAISimulator | AzureSimulator:
    """OpenAI with another project beside the connection's; Azure for tests of deployments."""
    if "cluster" in request.fixturenames:
        return hosted.azure()
    made, other = simulator(), simulator(keys=frozenset({OTHER_KEY}), project="proj-other")
    made.beside[OTHER_KEY] = other
    return made


def lead(cluster: CloudCluster, block: str, **fields: Any) -> None:
    """What an admin's `kubectl edit` of the connection does."""
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, block: {**spec[block], **fields}})


def lose(cluster: CloudCluster, status: dict[str, Any]) -> None:
    cluster.lose_pods(and_jobs=True)
    cluster.forget(status)


MOVES: dict[str, tuple[Callable[[CloudCluster, str], None], Callable[[CloudCluster], None], str]] = {
    "another address": (
        lambda cluster, other: lead(cluster, "openAI", baseURL=f"{other}/v1"),
        lambda cluster: lead(cluster, "openAI", baseURL=f"{cluster.url}/v1"),
        "ConnectionNotFound",
    ),
    "another account": (
        lambda cluster, _: cluster.set_key(OTHER_KEY),
        lambda cluster: cluster.set_key(KEY),
        "CredentialsInvalid",
    ),
}


def why_not_begun(cluster: CloudCluster, reason: str) -> str:
    """What is said of a job of which nothing runs."""
    stalled = cluster.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", reason)
    assert not [at for at in cluster.kube.objects if at[0] is JOBS]
    return str(stalled["message"])


@pytest.mark.parametrize("left", [{}, {"observedGeneration": 1, "phase": "Pending"}], ids=["emptied", "from before"])
@pytest.mark.parametrize("move", MOVES)
async def test_a_job_is_not_begun_elsewhere_and_goes_on_where_it_was(
    provider: OpenAISimulator, begin: Begin, start: Any, move: str, left: dict[str, Any]
) -> None:
    away, back, reason = MOVES[move]
    cluster = await begin()
    other = simulator()
    away(cluster, start(other))
    await go_on(cluster, 180)
    lose(cluster, left)
    await cluster.settle()
    await go_on(cluster, 300)
    assert "where it may be billed" in why_not_begun(cluster, reason)
    assert ("FineTuneJob", "Warning", "NoEffect") not in cluster.told, "nobody has written the note"
    back(cluster)
    await cluster.settle()
    await go_on(cluster, 3900)
    made = [one.count(CREATE, committed=False) for one in (provider, other, provider.beside[OTHER_KEY])]
    assert (cluster.status()["phase"], made) == ("Succeeded", [1, 0, 0])
    assert BEGUN_ANNOTATION not in cluster.kube.objects[JOB]["metadata"].get("annotations", {})


@pytest.mark.parametrize("away", [True, False], ids=["away", "to this cluster"])
async def test_a_job_whose_connection_leads_to_no_provider_is_not_begun_here_and_can_be_let_go(
    begin: Begin, away: bool
) -> None:
    cluster = await begin()
    lose(cluster, {})
    cluster.kube.drop(CONNECTIONS, "openai", None)
    if not away:
        cluster.kube.put(CONNECTIONS, {"metadata": {"name": "openai"}, "spec": connection().wire()})
    await cluster.settle()
    await go_on(cluster, 600)
    assert why_not_begun(cluster, "ConnectionNotFound")
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await go_on(cluster, 120)
    assert ABANDON_ANNOTATION in cluster.condition("Stalled")["message"]
    metadata = cluster.kube.objects[JOB]["metadata"]
    annotations = metadata["annotations"] | {ABANDON_ANNOTATION: "true"}
    cluster.kube.put(
        FINE_TUNE_JOBS, {**cluster.kube.objects[JOB], "metadata": {**metadata, "annotations": annotations}}
    )
    await cluster.settle()
    assert JOB not in cluster.kube.objects


@pytest.mark.parametrize("left", [{}, {"provider": {"attempt": 1}}], ids=["emptied", "without its place"])
@pytest.mark.parametrize("move", MOVES)
async def test_an_operator_that_restarts_asks_whose_account_it_is_before_it_begins(
    provider: OpenAISimulator, begin: Begin, start: Any, move: str, left: dict[str, Any]
) -> None:
    away, _, reason = MOVES[move]
    cluster = await begin()
    other = simulator()
    lose(cluster, left)
    away(cluster, start(other))
    for one in (other, provider.beside[OTHER_KEY]):
        one.fault("models.list", outcome="cut", times=2)  # the connection's own check
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    await go_on(cluster, 300)
    assert why_not_begun(cluster, reason)
    assert [one.count("files.create", committed=False) for one in (other, provider.beside[OTHER_KEY])] == [0, 0]


@pytest.mark.parametrize("move", MOVES)
async def test_a_job_that_is_deleted_is_kept_until_what_it_began_can_be_ended(
    provider: OpenAISimulator, begin: Begin, start: Any, move: str
) -> None:
    away, back, _ = MOVES[move]
    cluster = await begin()
    away(cluster, start(simulator()))
    await go_on(cluster, 120)
    lose(cluster, {})
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    await go_on(cluster, 120)
    assert ABANDON_ANNOTATION in cluster.condition("Stalled")["message"]
    back(cluster)
    await cluster.settle()
    await go_on(cluster, 1500, step=300)
    assert JOB not in cluster.kube.objects
    assert {job.status for job in provider.jobs.jobs.values()} <= {"cancelled", "succeeded"}
    assert provider.count("files.delete") == 1


async def test_data_are_not_brought_elsewhere(begin: Begin, start: Any) -> None:
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    other = simulator()
    await cluster.send(b"x\n")
    lead(cluster, "openAI", baseURL=f"{start(other)}/v1")
    cluster.forget({})
    await cluster.settle()
    await go_on(cluster, 120)
    assert other.count("files.create", committed=False) == 0
    assert cluster.condition("Stalled")["reason"] == "ConnectionNotFound"


async def test_a_deployment_that_nothing_records_keeps_its_object_while_its_connection_leads_elsewhere(
    cluster: hosted.AzureCluster,
) -> None:
    await deployed(cluster)
    account = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]["azureOpenAI"]["account"]
    lead(cluster, "azureOpenAI", account="another")
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status={})
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 300)
    assert ABANDON_ANNOTATION in cluster.condition("Stalled", DEPLOYMENT)["message"]
    lead(cluster, "azureOpenAI", account=account)
    await cluster.settle()
    await go_on(cluster, 900)
    assert (hosts(cluster.provider), SERVED in cluster.kube.objects) == ([], False)


async def test_what_stands_elsewhere_goes_though_the_model_is_gone_and_the_status_is_an_older_one(
    cluster: hosted.AzureCluster, elsewhere: AzureSimulator
) -> None:
    before = await second(cluster, "elsewhere")
    await go_on(cluster, 600)
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status=before)
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 2400)
    assert (hosts(cluster.provider), hosts(elsewhere), SERVED in cluster.kube.objects) == ([], [], False)


async def test_what_may_stand_where_a_noted_connection_led_is_told_of(
    cluster: hosted.AzureCluster, elsewhere: AzureSimulator
) -> None:
    before = await second(cluster, "elsewhere")
    await go_on(cluster, 600)
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status=before)
    spec = cluster.kube.objects[CONNECTIONS, "", "elsewhere"]["spec"]
    block = {**spec["azureOpenAI"], "account": "another"}
    cluster.kube.change(CONNECTIONS, "elsewhere", None, spec={**spec, "azureOpenAI": block})
    cluster.kube.mark_deleted(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    await go_on(cluster, 2400)
    assert (len(hosts(elsewhere)), SERVED in cluster.kube.objects) == (1, False)
    assert any("LLMConnection elsewhere is not known" in note and "begun at" in note for note in cluster.notes)


HELD: dict[str, Any] = {"finalizers": [PROVIDER_FINALIZER]}
ODD = [
    "",
    "{",
    "[]",
    '{"a": 1}',
    '{"a": {"place": 1}}',
    '{"a": {"place": "p"}, "b": null}',
    "null",
    "\x00",
    "[" * 100_000,
    "9" * 5000,
]


@pytest.mark.parametrize("written", ODD)
def test_a_note_that_somebody_else_wrote_keeps_nothing_from_being_looked_at(written: str) -> None:
    obj = {"metadata": {**HELD, "annotations": {BEGUN_ANNOTATION: written}}}
    found = begun(obj)
    assert found == ({"a": Begun("p", None)} if '"p"' in written else {})


def test_a_note_counts_beside_our_finalizer_alone() -> None:
    note = with_place({"metadata": {}}, "openai", "there", "project p")
    noted = {"annotations": {BEGUN_ANNOTATION: note}}
    assert begun({"metadata": {**HELD, **noted}}) == {"openai": Begun("there", "project p")}
    assert begun({"metadata": noted}) == {}
    assert with_place({"metadata": HELD}, "openai", "elsewhere", None) is None, "held, and by a release without notes"
    kept = with_place({"metadata": {**HELD, **noted}}, "openai", "elsewhere", None)
    assert kept == note, "where it was begun does not change as long as something may be there"


@pytest.mark.alike
@pytest.mark.parametrize("move", MOVES)
async def test_a_status_of_an_earlier_attempt_does_not_tell_where_a_later_one_is(
    provider: OpenAISimulator, begin: Begin, start: Any, move: str
) -> None:
    """The earlier one has ended where the connection led then, and was let go of."""
    away, _, _ = MOVES[move]
    there, account = {"another address": ([1, 0], "simulated"), "another account": ([0, 1], "other")}[move]
    provider.set(fail_next_job=Failure(code="server_error"))
    cluster = await begin()
    await go_on(cluster, 3900, 300)
    before = cluster.status()
    assert (before["phase"], PROVIDER_FINALIZER in cluster.kube.objects[JOB]["metadata"].get("finalizers", [])) == (
        "Failed",
        False,
    )
    other = simulator()
    away(cluster, start(other))
    await go_on(cluster, 180)
    spec = cluster.kube.objects[JOB]["spec"]
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", spec={**spec, "retryNonce": "again"})
    await cluster.settle()
    await cluster.check(attempt=2)
    await cluster.settle()
    lose(cluster, before)
    await cluster.settle()
    await cluster.check(attempt=2)
    await go_on(cluster, 300)
    assert cluster.condition("Stalled")["status"] == "False", cluster.condition("Stalled")["message"]
    for one in (other, provider.beside[OTHER_KEY]):
        one.advance(3900)
    await go_on(cluster, 3900, 300)
    made = [one.count(CREATE, committed=False) for one in (provider, other, provider.beside[OTHER_KEY])]
    assert (cluster.status()["phase"], made) == ("Succeeded", [1, *there])
    (version,) = cluster.status(MODEL)["versions"]
    at = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]["openAI"]["baseURL"]
    assert (version["place"], version["account"]) == (f"openAI at {at}", f"project proj-{account}")


async def test_a_job_that_is_applied_soon_after_its_key_became_another_projects_is_begun_there(
    provider: OpenAISimulator, begin: Begin
) -> None:
    cluster = await begin()
    await go_on(cluster, 3900, 300)
    cluster.set_key(OTHER_KEY)
    await cluster.wait(120)
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await go_on(cluster, 120)
    assert provider.beside[OTHER_KEY].count(CREATE) == 1
    assert cluster.status(THE_JOB._replace(name="sentiment-2"))["provider"]["account"] == "project proj-other"
