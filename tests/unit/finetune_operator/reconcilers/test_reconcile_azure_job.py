"""What is otherwise at Azure OpenAI: training types, byte order marks, files that take time, metadata that is lost."""

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from finetune_api.job_status import ProviderStatus
from finetune_api.reasons import Reason
from finetune_operator.providers.azure.api import token_of
from finetune_operator.providers.calls.errors import TryLater
from finetune_operator.providers.remote.job_record import key_of
from finetune_operator.runtime.errors import LeadershipLost
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, JOBS
from tests.simulators.azure import AzureSimulator
from tests.simulators.conftest import start
from tests.simulators.http import Reply
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, Token, azure, rows, with_azure_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL

__all__ = ["start"]

CREATE = "fine_tuning.jobs.create"
PUT = "deployments.create_or_update"
MARKED = b"\xef\xbb\xbf" + rows()


@pytest.fixture
def provider() -> AzureSimulator:
    return azure()


@pytest.fixture
async def begin(provider: AzureSimulator, start: Any) -> Callable[..., Any]:
    """Makes the clusters of a test."""
    url = start(provider)

    async def begun(**fields: Any) -> AzureCluster:
        return await with_azure_job(provider, url, **fields)

    return begun


async def test_a_job_becomes_a_version(provider, begin):
    cluster = await begin()
    prepare = next(str(obj) for (resource, _, _), obj in cluster.kube.objects.items() if resource is JOBS)
    assert '"rules":"azureOpenAI"' in prepare
    await cluster.check(MARKED)
    await cluster.settle()
    await cluster.poll()
    assert (cluster.status()["phase"], cluster.condition("Reconciling")["message"]) == (
        "Queued",
        "waiting at the provider",
    )
    await cluster.pass_time(3600)
    status = cluster.status()
    assert (status["phase"], status["modelVersion"]) == ("Succeeded", 1)
    assert len(status["loss"]["train"]) == 3
    assert ".ft-" in cluster.status(MODEL)["versions"][0]["artifact"]["providerModelID"]
    assert [one for one in provider.left() if (one.kind, one.state) == ("file", "fine-tune")] == []


async def test_a_replica_that_loses_its_lease_while_entra_gives_a_token_makes_no_job(provider, begin, monkeypatch):
    cluster = await begin()
    await cluster.check(MARKED)
    looked_up: list[str] = []

    async def freeze(*_: Any, **__: Any) -> AccessToken:
        cluster.leads = cluster.leads and not looked_up
        return AccessToken("simulated-token", 2**40)

    async def look(operation: str, carry_out: Callable[[], Reply]) -> Reply:
        recorded = "askedAt" in cluster.status().get("provider", {})
        looked_up.extend([operation] if recorded and operation == "files.retrieve" else [])
        return carry_out()

    monkeypatch.setattr(Token, "get_token", freeze)
    provider.meddle = look
    with pytest.raises(LeadershipLost):
        await cluster.settle()
    assert (cluster.leads, provider.count(CREATE, committed=False)) == (False, 0)


async def test_a_job_whose_status_somebody_emptied_is_not_paid_for_again(provider, begin):
    cluster = await begin()
    await cluster.check(MARKED)
    await cluster.settle()
    await cluster.pass_time(3600)
    assert cluster.status()["modelVersion"] == 1
    cluster.lose_pods(and_jobs=True)
    cluster.forget({})
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["modelVersion"]) == ("Succeeded", 1)
    assert (JOBS, "team-a", "sentiment-1-1") not in cluster.kube.objects, "its data are not brought there again"
    assert provider.count(CREATE) == 1


@pytest.mark.parametrize("kept", [False, True])
async def test_a_job_whose_creation_was_not_answered_is_found_by_its_data(provider, begin, kept):
    provider.set(keep_metadata=kept, list_lag_seconds=60)
    cluster = await begin()
    provider.fault(CREATE, after_commit=True)
    await cluster.check(MARKED)
    await cluster.settle()
    for _ in range(8):
        await cluster.pass_time(30)
    assert provider.count(CREATE) == 1
    assert cluster.status()["provider"]["jobID"].startswith("ftjob-")


async def test_files_that_azure_still_looks_at_are_waited_for(provider, begin):
    provider.set(file_processing_seconds=60)
    cluster = await begin()
    await cluster.check(MARKED)
    await cluster.settle()
    assert (cluster.status()["phase"], provider.count(CREATE, committed=False)) == ("Queued", 0)
    for _ in range(4):
        await cluster.pass_time(30)
    assert provider.count(CREATE) == 1


async def test_a_file_that_azure_cannot_use_is_said_and_no_job_is_asked_for(provider, begin):
    cluster = await begin()
    await cluster.check(rows())
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert failure["reason"] == "DatasetInvalid"
    assert "cannot use the file of dataset.train; it shows why at file file-" in failure["message"]
    assert provider.count(CREATE, committed=False) == 0


async def test_a_training_type_that_the_model_does_not_have_is_refused(provider, begin):
    provider.set(training_types={})
    cluster = await begin()
    await cluster.check(MARKED)
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "ProviderRefused"
    assert "does not support fine-tuning" in cluster.status()["failure"]["message"]


@pytest.mark.parametrize(("name", "part"), [("a-model-with-a-name-that-is-rather-long", "a-model-w"), ("tone", "tone")])
async def test_a_tuned_models_name_has_the_beginning_of_the_models_and_the_attempts_mark(provider, begin, name, part):
    cluster = await begin(modelRef={"name": name})
    await cluster.check(MARKED)
    await cluster.settle()
    (job,) = provider.jobs.jobs.values()
    metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    key = key_of({"metadata": metadata}, ProviderStatus(attempt=1))
    assert job.request["suffix"] == f"{part}{key.mark}"


async def test_rights_that_are_taken_away_are_named(provider, begin):
    cluster = await begin()
    await cluster.check(MARKED)
    await cluster.settle()
    provider.set(may_tune=False)
    await cluster.poll()
    assert cluster.status()["failure"]["reason"] == "CredentialsInvalid"
    provider.set(may_tune=True)
    await cluster.pass_time(3600)
    assert cluster.status()["phase"] == "Succeeded"


async def test_a_connection_whose_token_is_refused_is_not_ready(provider, begin):
    provider.set(static_tokens=frozenset())
    cluster = await begin()
    conditions = cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["conditions"]
    ready = next(c for c in conditions if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "CredentialsInvalid")


@pytest.mark.parametrize(
    ("field", "another"),
    [
        ("subscriptionID", "00000000-0000-0000-0000-00000000000f"),
        ("resourceGroup", "another"),
        ("account", "another"),
    ],
)
async def test_an_account_that_arm_does_not_have_is_told_before_a_job_is_paid_for(begin, field, another):
    cluster = await begin()
    assert cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["conditions"][0]["status"] == "True"
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    wrong = {**spec, "azureOpenAI": spec["azureOpenAI"] | {field: another}}
    cluster.kube.put(CONNECTIONS, {"metadata": {"name": "openai", "generation": 2}, "spec": wrong})
    await cluster.settle()
    ready = cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["conditions"][0]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "False", "ProviderRefused")
    assert "subscriptionID, resourceGroup or account of azureOpenAI is wrong: ARM has no such" in ready["message"]


@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 503}, {"status": 429}])
async def test_a_connection_that_may_tune_and_not_ask_arm_is_ready(provider, start, fault):
    provider.fault("deployments.list", **fault, times=10)
    cluster = await with_azure_job(provider, start(provider))
    assert provider.count("deployments.list", committed=False) > 0
    ready = cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["conditions"][0]
    assert (ready["type"], ready["status"]) == ("Ready", "True")


async def test_a_refusal_by_entra_says_no_secret():
    from azure.core.exceptions import ClientAuthenticationError

    class Refusing:
        async def get_token(self, *_scopes: str) -> Any:
            raise ClientAuthenticationError("AADSTS7000215: Invalid client secret 'my-secret-value'")

        async def close(self) -> None:
            return None

    with pytest.raises(TryLater) as refused:
        await token_of(Refusing(), "https://cognitiveservices.azure.com/.default")()
    assert refused.value.reason is Reason.CREDENTIALS_INVALID
    assert "my-secret-value" not in refused.value.message
    assert refused.value.__cause__ is None


async def test_nothing_that_is_billed_by_the_hour_is_made_before_it_is_asked_for(provider, begin):
    cluster = await begin()
    await cluster.check(MARKED)
    await cluster.settle()
    await cluster.pass_time(3600)
    told = [cluster.condition(kind, DEPLOYMENT) for kind in ("Ready", "Reconciling", "Stalled")]
    assert [one["status"] for one in told] == ["False"] * 3
    assert (told[0]["reason"], "billed by the hour" in told[0]["message"]) == ("AwaitingConfiguration", True)
    assert provider.count(PUT, committed=False) == 0


@pytest.mark.alike
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("jobs", [True, False])
async def test_a_job_whose_status_is_emptied_while_azure_tunes_is_found_without_its_data(provider, begin, jobs, kept):
    provider.set(keep_metadata=kept)
    cluster = await begin()
    await cluster.check(MARKED)
    await cluster.settle()
    cluster.lose_pods(and_jobs=jobs)
    cluster.forget({})
    await cluster.settle()
    await cluster.pass_time(60)
    assert (cluster.status()["provider"]["attempt"], provider.count(CREATE)) == (1, 1)
    assert cluster.status()["provider"]["jobID"].startswith("ftjob-")
