"""A job at Bedrock, over boto3 and the simulator: its life, what may go wrong with it, and what it leaves behind."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.aws import S3Location
from finetune_api.names import PROVIDER_FINALIZER
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS
from finetune_operator.runtime.queue import Key
from tests.simulators.bedrock import BedrockSimulator
from tests.simulators.bedrock.account import Job
from tests.simulators.clock import HOUR
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.bedrock import (
    CREATE,
    GET,
    LIST,
    NOVA,
    PREFIX,
    ROLE,
    STOP,
    BedrockCluster,
    bedrock,
    conversations,
    with_bedrock_job,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL

__all__ = ["s3_endpoint", "start"]

CONNECTION = Key(CONNECTIONS.kind, "", "bedrock")


@pytest.fixture
def provider(s3_endpoint: str) -> BedrockSimulator:
    return bedrock(s3_endpoint)


@pytest.fixture
async def begin(provider: BedrockSimulator, start: Any) -> Callable[..., Any]:
    """Makes the clusters of a test."""
    url = start(provider)

    async def begun(cluster: BedrockCluster | None = None, **fields: Any) -> BedrockCluster:
        if cluster is None:
            cluster = await with_bedrock_job(provider, url, **fields)
        return cluster

    begun.url = url  # type: ignore[attr-defined]
    return begun


async def submitted(begin: Any, **fields: Any) -> BedrockCluster:
    cluster: BedrockCluster = await begin(**fields)
    await cluster.check(conversations())
    await cluster.settle()
    return cluster


async def test_a_job_becomes_a_version_with_its_losses_and_leaves_nothing_but_the_model(begin):
    cluster = await begin()
    prepare = next(str(obj) for (resource, _, _), obj in cluster.kube.objects.items() if resource is JOBS)
    assert '"rules":"bedrock"' in prepare
    await cluster.check(conversations())
    await cluster.settle()
    await cluster.poll()
    assert (cluster.status()["phase"], cluster.condition("Reconciling")["message"]) == (
        "Queued",
        "Bedrock checks the data",
    )
    await cluster.pass_time(620)
    assert cluster.status()["phase"] == "Running"
    assert cluster.status()["provider"]["jobID"] == cluster.jobs()[0].arn
    await cluster.pass_time(HOUR)
    status = cluster.status()
    assert (status["phase"], status["modelVersion"]) == ("Succeeded", 1)
    assert [point["step"] for point in status["loss"]["train"]] == list(range(1, 25))
    assert status["trainLoss"] == pytest.approx(cluster.jobs()[0].losses[-1]["train_loss"])
    assert status["cost"]["estimated"] == "0.01"
    version = cluster.status(MODEL)["versions"][0]
    assert version["artifact"]["providerModelID"] == cluster.jobs()[0].model_arn
    assert cluster.objects() == []
    assert PROVIDER_FINALIZER not in cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"].get(
        "finalizers", []
    )


async def test_what_is_asked_of_bedrock_is_what_the_job_says(begin):
    cluster = await submitted(begin)
    asked = cluster.jobs()[0].request
    uid = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"]
    assert asked["roleArn"] == ROLE
    assert asked["hyperParameters"] == {"epochCount": "2", "learningRate": "0.00001"}
    assert asked["trainingDataConfig"]["s3Uri"].startswith(f"s3://{cluster.bucket}/team/tuning/finetune-{uid}-1-train-")
    assert asked["outputDataConfig"]["s3Uri"] == f"s3://{cluster.bucket}/team/tuning/finetune-{uid}-1-results"
    assert asked["jobName"].startswith("team-a-sentiment-1-")
    assert {"key": "finetune-uid", "value": uid} in asked["jobTags"]


async def test_validation_gives_the_second_curve(begin):
    cluster = await begin(dataset={"train": {"uri": "pvc://data/t.jsonl"}, "validation": {"uri": "pvc://data/v.jsonl"}})
    cluster.run_pod()
    await cluster.settle()
    files = [await cluster.send(conversations()), await cluster.send(conversations(4), split="validation")]
    cluster.end_pod(0, cluster.checked(files))
    await cluster.settle()
    for seconds in (600, HOUR):
        await cluster.pass_time(seconds)
    loss = cluster.status()["loss"]
    assert (len(loss["train"]), len(loss["validation"])) == (24, 24)
    assert cluster.status()["evalLoss"] == pytest.approx(loss["validation"][-1]["value"])


async def test_results_are_kept_as_long_as_the_model_where_that_is_wanted(provider, begin):
    cluster = await begin(BedrockCluster(provider, begin.url, results="Keep"))
    cluster.kube.put(
        FINE_TUNED_MODELS,
        {
            "metadata": {"name": "sentiment", "namespace": "team-a"},
            "spec": {"historyLimit": 1, "deployment": {"mode": "Manual"}},
        },
    )
    for number in (1, 2):
        cluster.add_cloud_job(f"sentiment-{number}")
        await cluster.settle()
        await cluster.check(conversations(), job=f"sentiment-{number}")
        await cluster.settle()
        await cluster.pass_time(HOUR)
        if number == 1:
            assert [name.rpartition("/")[2] for name in cluster.objects()] == ["step_wise_training_metrics.csv"]
    await cluster.pass_time(60)
    assert [one.job.request["jobName"] for one in provider.account.models.values()] == [
        cluster.jobs()[1].request["jobName"]
    ]
    assert len(cluster.objects()) == 1
    assert cluster.jobs()[1].arn.rpartition("/")[2] in cluster.objects()[0]


async def test_a_prefix_of_odd_characters_is_one(begin, monkeypatch):
    prefix = "Team!/a..b_(1)-*/.hidden"
    monkeypatch.setattr("tests.unit.finetune_operator.reconcilers.bedrock.PREFIX", prefix)
    S3Location(bucket="tuning", prefix=prefix)
    cluster = await submitted(begin)
    assert len(cluster.objects()) == 1
    await cluster.pass_time(4 * HOUR)
    status = cluster.status()
    assert (status["phase"], len(status["loss"]["train"]) > 0, cluster.objects()) == ("Succeeded", True, [])


async def test_two_questions_a_round_follow_many_jobs(provider, begin):
    provider.set(job_limit=20)
    cluster = await begin()
    await cluster.check(conversations())
    for number in range(2, 12):
        cluster.add_cloud_job(f"sentiment-{number}", modelRef={"name": f"sentiment-{number}"})
        await cluster.settle()
        await cluster.check(conversations(), job=f"sentiment-{number}")
        await cluster.pass_time(5)
    assert len(cluster.jobs()) == 11
    before = provider.count(LIST), provider.count(GET)
    await cluster.pass_time(20)
    assert (provider.count(LIST) - before[0], provider.count(GET) - before[1]) == (1, 0)


async def test_suspending_stops_the_job_and_resuming_makes_another(begin):
    cluster = await submitted(begin)
    await cluster.pass_time(620)
    cluster.change_job(suspend=True)
    await cluster.settle()
    for _ in range(4):
        await cluster.pass_time(60)
    assert (cluster.status()["phase"], cluster.jobs()[0].status) == ("Suspended", "Stopped")
    cluster.change_job(suspend=False)
    await cluster.settle()
    await cluster.check(conversations(), attempt=2)
    await cluster.settle()
    for _ in range(3):
        await cluster.pass_time(HOUR)
    assert (cluster.status()["phase"], len(cluster.jobs())) == ("Succeeded", 2)
    assert len({job.request["clientRequestToken"] for job in cluster.jobs()}) == 2


@pytest.mark.parametrize("meanwhile", [0, 1, 120], ids=["runs", "is being stopped", "has been stopped"])
async def test_a_stop_that_bedrock_refuses_is_one_only_while_the_job_runs(provider, begin, meanwhile):
    cluster = await submitted(begin)
    await cluster.pass_time(620)
    if meanwhile:
        cluster.client("bedrock").stop_model_customization_job(jobIdentifier=cluster.jobs()[0].arn)
        provider.advance(meanwhile)
    provider.fault(STOP, status=400, code="ConflictException", times=100)
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert ((FINE_TUNE_JOBS, "team-a", "sentiment-1") in cluster.kube.objects) is (meanwhile == 0)
    if not meanwhile:
        assert cluster.condition("Stalled")["reason"] == "ProviderBusy"


async def test_a_stop_that_something_else_has_answered_is_asked_for_again(provider, begin):
    cluster = await submitted(begin)
    await cluster.pass_time(620)
    provider.fault(STOP, outcome="empty")
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    for _ in range(5):
        await cluster.pass_time(60)
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
    assert (cluster.jobs()[0].status, provider.left()) == ("Stopped", [])


async def test_an_upload_that_broke_off_is_given_up_at_the_end(begin):
    cluster = await begin()
    uid = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"]
    cluster.s3.create_multipart_upload(Bucket=cluster.bucket, Key=f"team/tuning/finetune-{uid}-1-train-x.jsonl")
    await cluster.check(conversations())
    await cluster.settle()
    await cluster.pass_time(HOUR)
    assert cluster.status()["phase"] == "Succeeded"
    assert "Uploads" not in cluster.s3.list_multipart_uploads(Bucket=cluster.bucket)


async def test_a_job_that_was_started_elsewhere_is_adopted_by_its_name(begin):
    first = await submitted(begin)
    await first.pass_time(HOUR)
    name = first.jobs()[0].request["jobName"]
    cluster = await begin(adopt={"jobID": name}, modelRef={"name": "other"}, hyperparameters={"epochs": 2})
    await cluster.poll()
    status = cluster.status()
    assert (status["phase"], status["provider"]["jobID"], len(first.jobs())) == ("Succeeded", name, 1)
    assert status["result"]["artifact"]["providerModelID"] == first.jobs()[0].model_arn


TROUBLES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a role that cannot be assumed": ({"unassumable_roles": [ROLE]}, "RoleNotUsable", "roleARN"),
    "no right to tune": ({"denied": [CREATE]}, "CredentialsInvalid", "CreateModelCustomizationJob"),
    "a key that was revoked": ({"revoked_keys": ["AKIASIMULATED"]}, "CredentialsInvalid", "does not accept"),
    "as many jobs as may be": ({"job_limit": 0}, "QuotaExceeded", "quota"),
}


@pytest.mark.parametrize("name", TROUBLES)
async def test_a_trouble_that_somebody_can_mend_is_said_and_waited_for(provider, begin, name):
    settings, reason, words = TROUBLES[name]
    good = {field: getattr(provider.settings, field) for field in settings}
    cluster = await begin()
    cluster.run_pod()
    await cluster.settle()
    file = await cluster.send(conversations())
    provider.set(**settings)
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert (failure["reason"], words in failure["message"], bool(failure["nextStep"])) == (reason, True, True)
    assert cluster.status()["phase"] in {"Validating", "Queued"}
    assert "simulated-secret" not in str(cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"])
    provider.set(**good)
    for _ in range(3):
        await cluster.pass_time(310)
    assert len(cluster.jobs()) == 1


async def test_a_job_waits_for_its_turn_while_others_run_and_that_is_no_alarm(provider, begin):
    now, arn = provider.clock.now, provider.account.arn("model-customization-job", NOVA)
    theirs = Job(arn, {"jobName": "theirs", "customModelName": "theirs"}, NOVA, now, now)
    provider.account.jobs[arn] = theirs
    provider.set(job_limit=1)
    cluster = await submitted(begin)
    waits = cluster.condition("Reconciling")
    assert (waits["reason"], cluster.condition("Stalled")["status"]) == ("ProviderBusy", "False")
    assert "in progress there: 1" in waits["message"]
    theirs.status = "Completed"
    await cluster.pass_time(310)
    assert (cluster.condition("Reconciling")["reason"], provider.count(CREATE)) == ("Queued", 1)


async def test_a_base_model_that_bedrock_does_not_tune_ends_the_job(begin):
    cluster = await submitted(begin, baseModel="amazon.nova-x-v1:0")
    failure = cluster.status()["failure"]
    assert (cluster.status()["phase"], failure["reason"]) == ("Failed", "ProviderRefused")
    assert "invalid" in failure["message"]
    assert cluster.objects() == []


MEANINGLESS = {
    "an unknown family": ({"baseModel": "gpt-4o"}, "spec.baseModel: it is of no family"),
    "epochs": ({"hyperparameters": {"epochs": 9}}, "epochs: Nova takes 1 to 5"),
    "rate": ({"hyperparameters": {"epochs": 2, "learningRate": 0.1}}, "learningRate: Nova takes 1e-06 to 0.0001"),
    "factor": (
        {"hyperparameters": {"epochs": 2, "learningRateMultiplier": 2}},
        "learningRateMultiplier: Nova takes none",
    ),
    "batches": ({"hyperparameters": {"epochs": 2, "batchSize": 8}}, "batchSize: Nova takes none"),
    "seed": ({"hyperparameters": {"epochs": 2, "seed": 7}}, "seed: Bedrock takes none"),
    "method": ({"method": "Full"}, "method: the provider chooses"),
}


@pytest.mark.parametrize("name", MEANINGLESS)
async def test_what_bedrock_could_not_heed_is_refused_before_a_pod_is_made(begin, name):
    fields, words = MEANINGLESS[name]
    cluster = await begin(**fields)
    failure = cluster.status()["failure"]
    assert (failure["reason"], words in failure["message"]) == ("SpecInvalid", True), failure
    assert not [obj for (resource, _, _), obj in cluster.kube.objects.items() if resource is JOBS]


FAILURES: dict[str, tuple[bytes | None, dict[str, Any], str, str]] = {
    "a row that Bedrock refuses": (b'{"no": "conversation"}\n', {}, "DatasetInvalid", "line 1 of the converted file"),
    "data that are gone": (None, {}, "BucketNotFound", "did not find the data"),
    "a training that failed": (
        conversations(),
        {"fail_next_job": "the rack burnt"},
        "ProviderFailed",
        "the rack burnt",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_job_that_fails_there_says_why(provider, begin, name):
    content, settings, reason, words = FAILURES[name]
    cluster = await begin()
    provider.set(**settings)
    await cluster.check(content or conversations())
    await cluster.settle()
    if content is None:
        for key in cluster.objects():
            cluster.s3.delete_object(Bucket=cluster.bucket, Key=f"team/tuning/{key}")
    await cluster.pass_time(HOUR)
    failure = cluster.status()["failure"]
    assert (cluster.status()["phase"], failure["reason"], words in failure["message"]) == ("Failed", reason, True), (
        failure
    )
    assert "conversation" not in failure["message"]


async def test_a_job_that_somebody_stops_there_is_said_to_be(begin):
    cluster = await submitted(begin)
    await cluster.pass_time(620)
    cluster.client("bedrock").stop_model_customization_job(jobIdentifier=cluster.jobs()[0].arn)
    await cluster.pass_time(20)
    assert cluster.condition("Reconciling")["message"] == "being stopped at Bedrock"
    await cluster.pass_time(60)
    assert cluster.status()["failure"]["reason"] == "CancelledAtProvider"


async def test_a_connection_is_ready_when_bedrock_and_the_bucket_answer(provider, begin):
    cluster = await begin()
    cluster.wake(CONNECTION)
    await cluster.settle()
    assert cluster.condition("Ready", CONNECTION)["status"] == "True"
    assert (provider.cost(), cluster.status(CONNECTION)["provider"]) == (0, "bedrock")


async def test_a_connection_without_its_bucket_says_so(provider, begin):
    cluster = await begin(BedrockCluster(provider, begin.url, bucket=False))
    cluster.wake(CONNECTION)
    await cluster.settle()
    stalled = cluster.condition("Stalled", CONNECTION)
    assert (stalled["reason"], cluster.bucket in stalled["message"]) == ("BucketNotFound", True)


async def test_a_bucket_that_is_deleted_while_a_job_runs_ends_it_and_holds_nothing(begin):
    cluster = await submitted(begin)
    for name in cluster.objects():
        cluster.s3.delete_object(Bucket=cluster.bucket, Key=f"{PREFIX}/{name}")
    cluster.s3.delete_bucket(Bucket=cluster.bucket)
    await cluster.pass_time(2 * HOUR)
    assert (cluster.status()["phase"], cluster.status()["failure"]["reason"]) == ("Failed", "BucketNotFound")
    metadata = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]
    assert not metadata.get("finalizers"), "with the bucket went all that was in it"
