"""A connection's checks: whom their results concern."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.decide.conditions import timestamp
from finetune_operator.providers.calls.errors import ProviderError
from finetune_operator.runtime.errors import Forbidden, Invalid, KubeError, NotFound
from finetune_operator.runtime.kube import CONNECTIONS
from finetune_operator.runtime.queue import Key
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import KEY, CloudCluster, simulator, with_submitted_job
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, Cluster
from tests.unit.finetune_operator.reconcilers.fake_kube import copied

__all__ = ["start"]

OPENAI = Key(CONNECTIONS.kind, "", "openai")


@pytest.fixture
async def cluster(start: Any) -> CloudCluster:
    provider = simulator()
    return await with_submitted_job(provider, start(provider))


async def check_an_hour_later(cluster: CloudCluster) -> None:
    cluster.now += timedelta(hours=1)
    before = cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["lastChecked"]
    await cluster.reconcile(OPENAI)
    assert cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["lastChecked"] > before
    for event in cluster.kube.take_events():
        cluster.observer.handle_event(*event)


async def test_a_check_that_finds_what_was_known_has_no_job_looked_at(cluster: CloudCluster) -> None:
    await check_an_hour_later(cluster)
    assert cluster.queue == []


async def test_a_check_by_a_clock_that_was_days_ahead_is_not_believed_for_days(cluster: CloudCluster) -> None:
    cluster.now -= timedelta(days=2)
    before = cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["lastChecked"]
    await cluster.reconcile(OPENAI)
    assert cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["lastChecked"] < before


async def test_a_check_that_finds_a_bad_key_has_the_jobs_looked_at(cluster: CloudCluster) -> None:
    cluster.set_key("another")
    cluster.kube.take_events()
    await check_an_hour_later(cluster)
    assert JOB in cluster.queue


async def test_an_address_that_has_no_such_api_is_a_matter_of_the_connection(cluster: CloudCluster) -> None:
    cluster.provider.fault("fine_tuning.jobs.list", status=404, code="not_found", times=10)
    await check_an_hour_later(cluster)
    conditions = cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["conditions"]
    told = next(one for one in conditions if one["type"] == "Stalled")
    assert (told["reason"], "Correct the connection: its address" in told["message"]) == ("ProviderRefused", True)


async def test_a_host_that_nobody_can_be_asked_at_is_the_connections_fault_and_no_traceback(
    cluster: CloudCluster, caplog: pytest.LogCaptureFixture
) -> None:
    spec = cluster.kube.objects[CONNECTIONS, "", "openai"]["spec"]
    block = {**spec["openAI"], "baseURL": "https://999.999.999.999/v1"}
    cluster.kube.change(CONNECTIONS, "openai", None, spec={**spec, "openAI": block})
    await cluster.settle()
    conditions = cluster.kube.objects[CONNECTIONS, "", "openai"]["status"]["conditions"]
    told = next(one for one in conditions if one["type"] == "Ready")
    assert (told["status"], told["reason"]) == ("False", "ProviderUnavailable")
    assert "https://999.999.999.999/v1 has no host that could be asked" in told["message"]
    assert "Correct baseURL" in told["message"]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("key", ["sk-ä", "OPENAI_API_KEY=sk-1\nOTHER=2", "sk-1\x00", "sk-\ufffd"])
async def test_a_key_that_no_header_can_hold_is_blamed_itself_and_not_the_provider(
    cluster: CloudCluster, key: str
) -> None:
    cluster.set_key(key)
    await check_an_hour_later(cluster)
    ready = cluster.condition("Ready", OPENAI)
    assert (ready["status"], ready["reason"]) == ("False", "CredentialsInvalid")
    assert "Secret finetune/openai: api-key has line breaks or letters beyond ASCII" in ready["message"]
    assert key not in ready["message"]


async def test_a_key_that_a_job_finds_bad_is_told_by_the_connection_within_a_minute(cluster: CloudCluster) -> None:
    await cluster.pass_time(120)
    assert cluster.condition("Ready", OPENAI)["status"] == "True"
    cluster.set_key("another")
    await cluster.pass_time(60)
    assert cluster.condition("Reconciling")["reason"] == "CredentialsInvalid"
    ready = cluster.condition("Ready", OPENAI)
    assert (ready["status"], ready["reason"]) == ("False", "CredentialsInvalid")
    assert cluster.told.count(("LLMConnection", "Warning", "CredentialsInvalid")) == 1


async def test_one_that_another_operator_finds_good_each_hour_is_left_to_that_and_does_not_change_to_and_fro(
    cluster: CloudCluster,
) -> None:
    """It lacks the key that the other one has. Once the other one is away its word is good for an hour."""
    await cluster.pass_time(60)
    cluster.set_key("another")
    said = []
    for minute in range(240):
        if minute % 60 == 0 and minute < 180:
            theirs = copied(cluster.status(OPENAI)) | {"lastChecked": timestamp(cluster.now), "models": ["theirs"]}
            cluster.kube.change(CONNECTIONS, "openai", None, status=theirs)
        await cluster.wait(60)
        cluster.wake(OPENAI)
        await cluster.settle()
        said.append(cluster.condition("Ready", OPENAI)["status"])
    assert (said[:180].count("False"), said[-40:]) == (0, ["False"] * 40)


async def test_a_key_that_was_mended_makes_the_connection_ready_within_two_minutes(cluster: CloudCluster) -> None:
    cluster.set_key("another")
    await cluster.pass_time(120)
    cluster.set_key(KEY)
    for _ in range(2):
        await cluster.pass_time(60)
    assert cluster.condition("Ready", OPENAI)["status"] == "True"
    assert cluster.condition("Reconciling")["reason"] != "CredentialsInvalid"


async def test_a_deployment_that_finds_the_key_bad_has_the_connection_checked_too(cluster: CloudCluster) -> None:
    await cluster.pass_time(600)
    cluster.set_key("another")
    await cluster.wait(60)
    with pytest.raises(ProviderError):
        await cluster.accounts.of("openai").call(lambda api: api.has_model("ft:any"))
    await cluster.settle()
    assert cluster.condition("Ready", OPENAI)["reason"] == "CredentialsInvalid"


async def test_a_refusal_that_the_check_does_not_meet_leaves_the_connection_ready_and_is_looked_into_each_minute(
    cluster: CloudCluster,
) -> None:
    cluster.provider.fault("files.list", status=403, code="restricted", times=1000)
    await cluster.pass_time(600)
    checked = [cluster.status(OPENAI)["lastChecked"]]
    for second in range(300):
        cluster.now += timedelta(seconds=1)
        with suppress(ProviderError):
            await cluster.accounts.of("openai").call(lambda api: api.files("any"))
        if second % 60 == 0:
            cluster.wake(OPENAI)
        await cluster.settle()
        assert cluster.condition("Ready", OPENAI)["status"] == "True"
        checked.append(cluster.status(OPENAI)["lastChecked"])
    assert 4 <= len(set(checked)) <= 6
    assert cluster.provider.defects == []


async def test_many_jobs_that_find_the_key_bad_have_it_checked_no_more_often_than_one(cluster: CloudCluster) -> None:
    await cluster.pass_time(600)
    cluster.set_key("another")
    cluster.now += timedelta(seconds=60)
    account = cluster.accounts.of("openai")
    woken = []
    for _ in range(1000):
        with suppress(ProviderError):
            await account.call(lambda api: api.files("any"))
        woken += [key for key in cluster.queue if key == OPENAI]
        cluster.queue.clear()
    assert woken == [OPENAI]


# To this cluster: what the API server says of its pods.

LOCAL = Key(CONNECTIONS.kind, "", "local")
BAD_FIELD = 'Job is invalid: spec.template.spec.tolerations[0].effect: Unsupported value: "Never"'


async def with_connection(error: KubeError | None, **labels: str) -> Cluster:
    cluster = Cluster()
    if error is not None:
        cluster.kube.refusals["would_create", "jobs"] = error
    cluster.add_namespace(**labels)
    cluster.add_connection(namespaceSelector={"matchLabels": {"team": "a"}})
    await cluster.settle()
    return cluster


async def test_a_connection_whose_pods_would_be_refused_says_so_and_is_tried_again() -> None:
    cluster = await with_connection(Invalid(422, "Invalid", BAD_FIELD), team="a")
    stalled = cluster.condition("Stalled", LOCAL)
    assert (stalled["status"], stalled["reason"]) == ("True", "PodRejected")
    assert BAD_FIELD in stalled["message"]
    assert "Correct huggingFace.podTemplate" in stalled["message"]
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert cluster.condition("Ready", LOCAL)["status"] == "True"
    assert cluster.kube.asked("create", "jobs") == 0


@pytest.mark.parametrize(
    "error",
    [
        None,
        Forbidden(403, "Forbidden", "exceeded quota: spec.template"),
        NotFound(404, "NotFound", "the namespace is gone"),
        Invalid(400, "BadRequest", "admission webhook does not support dry run"),
        Invalid(422, "Invalid", "ValidatingAdmissionPolicy denied the request: no jobs on Fridays"),
    ],
)
async def test_what_is_said_of_a_namespace_alone_is_no_fault_of_the_connection(error: KubeError | None) -> None:
    cluster = await with_connection(error, team="a")
    assert cluster.condition("Ready", LOCAL)["status"] == "True"
    assert cluster.status(LOCAL)["lastChecked"]


async def test_the_pods_that_check_data_for_a_provider_are_tried_too(cluster: CloudCluster) -> None:
    """Its keys are good: without a look at the pods the first job would tell of them."""
    stored = cluster.kube.objects[CONNECTIONS, "", "openai"]
    template = {"podTemplate": {"tolerations": [{"effect": "Never"}]}}
    cluster.kube.change(CONNECTIONS, "openai", "", spec=stored["spec"] | {"checkPod": template})
    cluster.kube.refusals["would_create", "jobs"] = Invalid(422, "Invalid", BAD_FIELD)
    await cluster.settle()
    stalled = cluster.condition("Stalled", OPENAI)
    assert (stalled["status"], stalled["reason"]) == ("True", "PodRejected")
    assert 'spec.checkPod.podTemplate.tolerations[0].effect: Unsupported value: "Never"' in stalled["message"]
    assert "Correct checkPod.podTemplate of the connection" in stalled["message"]


async def test_a_check_of_pods_is_repeated_rarely() -> None:
    cluster = await with_connection(None, team="a")
    for _ in range(5):
        await cluster.reconcile(LOCAL)
    assert cluster.kube.asked("would_create", "jobs") == 1
    await cluster.wait(60)
    assert cluster.kube.asked("would_create", "jobs") == 1
    await cluster.wait(3600)
    assert cluster.kube.asked("would_create", "jobs") == 2


async def test_a_connection_that_no_namespace_may_use_yet_is_checked_once_there_is_one() -> None:
    cluster = await with_connection(Invalid(422, "Invalid", BAD_FIELD), team="b")
    assert cluster.condition("Ready", LOCAL)["status"] == "True"
    assert cluster.kube.asked("would_create", "jobs") == 0
    cluster.add_namespace(team="a")
    await cluster.wait(60)
    assert cluster.condition("Stalled", LOCAL)["reason"] == "PodRejected"


async def test_a_connection_that_cannot_be_used_is_told_by_one_event_and_again_when_it_fails_anew() -> None:
    told = ("LLMConnection", "Warning", "PodRejected")
    cluster = await with_connection(Invalid(422, "Invalid", BAD_FIELD), team="a")
    assert cluster.told.count(told) == 1
    await cluster.wait(60)
    assert cluster.told.count(told) == 1  # tried again, and nothing has changed
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    cluster.kube.refusals["would_create", "jobs"] = Invalid(422, "Invalid", BAD_FIELD)
    for _ in range(2):
        await cluster.wait(3600)
    assert cluster.told.count(told) == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"podTemplate": {"imagePullSecrets": [{"name": "My Secret"}]}},
            "podTemplate.imagePullSecrets[0].name: names of objects are in lower case: write a-z",
        ),
        ({"trainerImage": "ghcr.io/<org>/trainer:1"}, "trainerImage: write what the placeholder stands for"),
        ({"artifacts": {"uri": "s3://My_Bucket/x"}}, "artifacts.uri: write pvc://CLAIM, s3://BUCKET, gs://BUCKET or"),
    ],
)
async def test_a_text_that_older_definitions_took_is_told_with_its_place_and_what_to_write(
    fields: dict[str, Any], said: str
) -> None:
    cluster = await with_connection(None, team="a")
    spec = cluster.kube.objects[CONNECTIONS, "", "local"]["spec"]
    cluster.kube.change(CONNECTIONS, "local", "", spec=spec | {"huggingFace": spec["huggingFace"] | fields})
    await cluster.settle()
    told = cluster.condition("Stalled", LOCAL)
    assert told["reason"] == "SpecInvalid"
    assert told["message"].startswith(f"spec.huggingFace.{said}")


async def test_a_spec_that_cannot_be_read_is_told_by_an_event() -> None:
    cluster = await with_connection(None, team="a")
    spec = cluster.kube.objects[CONNECTIONS, "", "local"]["spec"]
    cluster.kube.change(CONNECTIONS, "local", "", spec=spec | {"unknown": 1})
    await cluster.settle()
    assert cluster.told == [("LLMConnection", "Warning", "SpecInvalid")]
