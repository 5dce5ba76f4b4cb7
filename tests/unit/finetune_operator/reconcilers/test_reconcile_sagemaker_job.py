"""A FineTuneJob's whole life at a simulated SageMaker, over boto3: data, reports and artifact in S3."""

import pytest

from finetune_api.trainer import Report
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS
from tests.simulators.conftest import s3_endpoint, start
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import (
    CREATE,
    IMAGE,
    ROLE,
    SageMakerCluster,
    begin,
    channels,
    progress,
    provider,
)

__all__ = ["begin", "provider", "s3_endpoint", "start"]


async def test_a_job_becomes_a_version_whose_artifact_is_in_s3(provider, begin):
    cluster = await begin(method="QLoRA")
    uid = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"]
    status = cluster.status()
    assert (status["phase"], status["provider"]["jobID"]) == ("Queued", f"finetune-{uid}-1")
    await cluster.pass_time(30)
    assert cluster.condition("Reconciling")["message"] == "SageMaker starts an instance"
    await cluster.pass_time(200)
    cluster.containers.report(cluster.request, phase="Running", **progress(12))
    await cluster.pass_time(20)
    status = cluster.status()
    assert (status["phase"], status["progress"]["step"], len(status["loss"]["train"])) == ("Running", 12, 12)
    await cluster.pass_time(3600)
    status = cluster.status()
    assert (status["phase"], status["modelVersion"], status["evalLoss"]) == ("Succeeded", 1, 0.4)
    assert (status["cost"]["estimated"], status["cost"]["actual"]) == ("33.84", f"{provider.cost():.2f}")
    version = cluster.status(MODEL)["versions"][0]
    uri = f"s3://{cluster.objects.bucket}/team/tuning/models/finetune-{uid}-1/output/model/model"
    assert (version["artifact"]["uri"], version["artifact"]["kind"]) == (uri, "Adapter")
    assert (version["method"], version["loraRank"]) == ("QLoRA", 16)
    assert provider.count(CREATE) == 1


async def test_what_sagemaker_is_asked_for_follows_from_connection_and_job(begin):
    vpc = {"subnets": ["subnet-1"], "securityGroupIDs": ["sg-1"]}
    cluster = await begin(
        connection={
            "vpc": vpc,
            "kmsKeyID": "alias/tuning",
            "networkIsolation": True,
            "modelCache": {"bucket": "models", "prefix": "cache"},
            "spot": {"enabled": True, "maxWaitSeconds": 90000},
        },
        baseModel="meta-llama/Llama-3.2-1B",
        resources={"instanceType": "ml.g5.2xlarge"},
        activeDeadlineSeconds=7200,
    )
    asked, uid = cluster.request, cluster.status()["provider"]["jobID"].removeprefix("finetune-").removesuffix("-1")
    data = f"s3://{cluster.objects.bucket}/team/tuning/finetune-{uid}-"
    assert (asked["RoleArn"], asked["AlgorithmSpecification"]["TrainingImage"]) == (ROLE, IMAGE)
    assert channels(asked)["base"] == "s3://models/cache/meta-llama/Llama-3.2-1B/"
    assert channels(asked)["train"].startswith(f"{data}1-train-")
    assert channels(asked)["job"] == f"{data}1-job.json"
    assert asked["CheckpointConfig"]["S3Uri"] == f"{data}checkpoints/"
    assert asked["ResourceConfig"] == {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 100}
    assert asked["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 90000}
    assert asked["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert asked["OutputDataConfig"]["KmsKeyId"] == "alias/tuning"
    assert (asked["EnableManagedSpotTraining"], asked["EnableNetworkIsolation"]) == (True, True)
    assert asked["Environment"] == {"HF_HOME": "/opt/ml/output/hub"}
    told = cluster.containers.told(asked)
    assert told["spec"]["baseModel"] == "meta-llama/Llama-3.2-1B"
    assert told["artifactURI"].endswith(f"/models/finetune-{uid}-1/output/model/model")


async def test_a_job_that_has_ended_leaves_its_model_and_nothing_else(provider, begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    name = cluster.status()["provider"]["jobID"]
    folder = f"team/tuning/models/{name}/output/model/"
    files = ["model/adapter_config.json", "model/adapter_model.safetensors", "model/manifest.json", "report.json"]
    assert cluster.objects.names() == [folder + file for file in files]
    assert provider.left() == []
    assert not cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"].get("finalizers")


async def test_a_name_that_is_taken_by_our_own_call_is_found_even_where_the_look_up_missed_it(provider, begin):
    provider.fault(CREATE, after_commit=True)
    provider.fault("DescribeTrainingJob", status=400, code="ValidationException", message="not found.", skip=1, times=1)
    cluster = await begin()
    for _ in range(6):
        await cluster.pass_time(60)
    assert (cluster.status()["phase"], provider.count(CREATE)) in {("Running", 1), ("Queued", 1)}
    assert len(provider.training.found) == 1


async def test_a_job_that_was_made_and_does_not_show_yet_is_not_taken_for_refused(provider, begin):
    provider.fault("DescribeTrainingJob", status=400, code="ValidationException", message="not found.", times=3)
    cluster = await begin()
    for _ in range(6):
        await cluster.pass_time(20)
    assert (cluster.status()["phase"], provider.count(CREATE)) in {("Running", 1), ("Queued", 1)}
    assert len(provider.training.found) == 1


async def test_a_name_that_is_taken_by_a_stranger_is_refused(provider, start):
    cluster = SageMakerCluster(provider, start(provider))
    cluster.add_cloud_job()
    await cluster.settle()
    uid = cluster.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["metadata"]["uid"]
    await cluster.check()
    name = f"finetune-{uid}-1"
    labels = {"uid": "another", "attempt": "1"}
    stranger = {
        "TrainingJobName": name,
        "HyperParameters": labels,
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": IMAGE},
        "OutputDataConfig": {"S3OutputPath": "s3://others/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    provider.training.create(stranger)
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["failure"]["reason"]) == ("Failed", "ProviderRefused")
    assert provider.training.found[name].status == "InProgress", "it is not ours to stop"


async def test_a_job_waits_for_instances_that_others_use_until_they_have_ended(provider, begin):
    """Nobody has to do anything, so no alarm; where the quota has no room for it at all, somebody has to raise that."""
    provider.set(instance_limits={"ml.g5.xlarge": 1})
    provider.training.create(
        {
            "TrainingJobName": "others",
            "RoleArn": ROLE,
            "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": IMAGE},
            "OutputDataConfig": {"S3OutputPath": "s3://others/models"},
            "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
    )
    cluster = await begin()
    await cluster.settle()
    assert (cluster.condition("Stalled")["status"], cluster.condition("Reconciling")["reason"]) == (
        "False",
        "ProviderBusy",
    )
    assert "with current utilization of 1" in cluster.condition("Ready")["message"]
    del provider.training.found["others"]
    await cluster.pass_time(310)
    assert provider.count(CREATE) == 1
    assert cluster.condition("Reconciling")["reason"] == "Queued"


@pytest.mark.parametrize(
    ("settings", "reason", "ends"),
    [
        ({"unassumable_roles": {ROLE}}, "RoleNotUsable", False),
        ({"instance_limits": {"ml.g5.xlarge": 0}}, "QuotaExceeded", False),
        ({"fail_next_job": "InternalServerError: We encountered an internal error."}, "ProviderFailed", True),
        ({"fail_next_job": "ClientError: Data download failed:Insufficient disk space"}, "ArtifactFailed", True),
        ({"fail_next_job": "ClientError: Please use an instance type with more memory"}, "InsufficientMemory", True),
        ({"fail_next_job": "ClientError: Access denied for repository: trainer"}, "ImagePullFailed", True),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_goes_wrong_has_its_reason_and_next_step(provider, begin, settings, reason, ends):
    provider.set(**settings)
    cluster = await begin()
    await cluster.pass_time(300)
    status = cluster.status()
    failure = status.get("failure") or status["provider"]["lastFailure"]
    assert (failure["reason"], status["phase"] == "Failed") == (reason, ends), status
    assert failure["nextStep"]
    if ends:
        await cluster.pass_time(3600)
        assert provider.count(CREATE) == 1, "what would be met again is not paid for again"


async def test_a_lack_of_instances_is_tried_again_and_then_said(provider, begin):
    cluster = await begin(connection={"maxRetries": 1})
    for attempt in (1, 2):
        provider.set(fail_next_job="CapacityError: Unable to provision requested ML compute capacity.")
        await cluster.pass_time(300)
        if attempt == 1:
            assert cluster.condition("Reconciling")["reason"] == "Retrying"
            await cluster.pass_time(30)
            await cluster.check(attempt=2)
            await cluster.settle()
    status = cluster.status()
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "NoCapacity")
    assert "resources.instanceType" in status["failure"]["nextStep"]
    assert provider.count(CREATE) == 2


async def test_an_attempt_knows_whether_the_one_before_was_short_of_memory(provider, begin):
    """It measures with more care then. Before that it is not told so: an older trainer image knows no such field."""
    cluster = await begin(connection={"maxRetries": 1})
    assert "shortOfMemory" not in cluster.containers.told(cluster.request)
    provider.set(fail_next_job="AlgorithmError: , exit code: 137")
    await cluster.pass_time(300)
    assert cluster.condition("Reconciling")["reason"] == "Retrying", cluster.status()
    await cluster.pass_time(60)
    await cluster.check(attempt=2)
    await cluster.settle()
    assert cluster.containers.told(cluster.request)["shortOfMemory"] is True


async def test_what_the_trainer_says_of_its_failure_is_told_whole(begin):
    cluster = await begin()
    failure = {
        "reason": "DatasetInvalid",
        "message": "train.jsonl: line 17: completion is empty",
        "nextStep": "Mend it.",
    }
    cluster.containers.fails = Report.model_validate(
        {"namespace": "-", "name": "-", "uid": "-", "attempt": 1, "phase": "Failed", "failure": failure}
    )
    await cluster.pass_time(3600)
    way_on = "Then set spec.retryNonce; if the job itself has to change, apply it under a new name."
    assert cluster.status()["failure"] == failure | {"attempt": 1, "nextStep": f"Mend it. {way_on}"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"report.json": None}, "it left no report"),
        ({"manifest.json": b"{}"}, "its manifest is not the one that was reported"),
        ({"adapter_model.safetensors": b"weigh"}, "adapter_model.safetensors is missing or cut short"),
    ],
)
async def test_a_model_that_is_not_whole_is_no_version(begin, spoil, said):
    cluster = await begin()
    cluster.containers.spoil = spoil
    await cluster.pass_time(3600)
    status = cluster.status()
    assert (status["phase"], status["failure"]["reason"]) == ("Failed", "ArtifactFailed")
    assert said in status["failure"]["message"]
    assert (FINE_TUNED_MODELS, "team-a", "sentiment") not in cluster.kube.objects


async def test_a_spot_instance_that_is_taken_is_waited_for(provider, begin):
    provider.set(interrupt_after_seconds=[400])
    cluster = await begin(connection={"spot": {"enabled": True}})
    await cluster.pass_time(600)
    cluster.containers.report(cluster.request, phase="Interrupted", **progress(20))
    await cluster.pass_time(20)
    assert "spot instance was taken away" in cluster.condition("Reconciling")["message"]
    assert (cluster.status()["phase"], cluster.status()["progress"]["step"]) == ("Running", 20)
    await cluster.pass_time(3600)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 1)


async def test_a_job_that_runs_too_long_is_stopped_by_sagemaker_too(provider, begin):
    provider.set(train_seconds=100_000)
    cluster = await begin(connection={"maxRuntimeSeconds": 3600})
    await cluster.pass_time(7200)
    assert (cluster.status()["phase"], cluster.status()["failure"]["reason"]) == ("Failed", "DeadlineExceeded")


async def test_the_report_of_an_earlier_attempt_is_not_taken_for_this_ones(provider, begin):
    cluster = await begin()
    await cluster.pass_time(200)
    cluster.containers.report(cluster.request, phase="Running", **progress(20))
    await cluster.pass_time(20)
    cluster.change_job(suspend=True)
    await cluster.settle()
    assert "is being stopped" in cluster.condition("Reconciling")["message"]
    await cluster.pass_time(120)
    assert cluster.status()["phase"] == "Suspended"
    assert [job.status for job in provider.training.found.values()] == ["Stopped"]
    cluster.change_job(suspend=False)
    await cluster.pass_time(60)
    await cluster.check(attempt=2)
    await cluster.settle()
    await cluster.pass_time(200)
    assert cluster.status()["phase"] in {"Queued", "Validating", "Running"}
    assert (
        cluster.request["CheckpointConfig"] == next(iter(provider.training.found.values())).request["CheckpointConfig"]
    )
    await cluster.pass_time(3600)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 2)


async def test_deleting_a_job_stops_it_and_waits_until_nothing_writes_any_more(provider, begin):
    cluster = await begin()
    await cluster.pass_time(200)
    checkpoint = f"{cluster.request['CheckpointConfig']['S3Uri']}checkpoints/step-1/model.safetensors"
    cluster.objects.put(checkpoint, b"weights")
    cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    await cluster.settle()
    assert "is being stopped" in cluster.condition("Reconciling")["message"]
    cluster.objects.put(checkpoint.replace("step-1", "step-2"), b"weights")
    for _ in range(3):
        await cluster.pass_time(60)
    assert (FINE_TUNE_JOBS, "team-a", "sentiment-1") not in cluster.kube.objects
    assert (cluster.objects.names(), provider.left()) == ([], [])


async def test_a_job_that_is_deleted_behind_our_back_says_so(provider, begin):
    cluster = await begin()
    await cluster.poll()
    del provider.training.found[cluster.status()["provider"]["jobID"]]
    await cluster.pass_time(60)
    assert cluster.status()["phase"] == "Queued", "what was made a moment ago may hide for another one"
    await cluster.pass_time(61)
    assert cluster.status()["failure"]["reason"] == "DeletedAtProvider"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"resources": {"gpusPerNode": 2}}, "spec.resources: the instance type says what an instance has"),
        ({"resources": {"instanceType": "ml.p5.48xlarge"}}, "the connection has ml.g5.xlarge, ml.g5.2xlarge"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_fields_without_meaning_there_are_refused_before_a_pod_is_made(provider, start, fields, said):
    cluster = SageMakerCluster(provider, start(provider))
    cluster.add_cloud_job(**fields)
    await cluster.settle()
    assert (cluster.status()["phase"], cluster.status()["failure"]["reason"]) == ("Failed", "SpecInvalid")
    assert said in cluster.status()["failure"]["message"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"budget": {"maxCost": "5.00"}}, "BudgetExceeded"),
        ({"budget": {"maxCost": "5.00"}, "activeDeadlineSeconds": 7200}, None),
    ],
    ids=str,
)
async def test_a_budget_holds_the_longest_time_that_a_job_may_run(provider, begin, fields, reason):
    cluster = await begin(**fields)
    status = cluster.status()
    assert ((status.get("failure") or {}).get("reason"), provider.count(CREATE)) == (reason, 0 if reason else 1)
    if reason == "BudgetExceeded":
        assert "at most 86,400 s of ml.g5.xlarge at 1.41 USD an hour" in status["failure"]["message"]


async def test_history_deletes_the_model_in_s3(begin):
    cluster = await begin()
    model = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"historyLimit": 1}}
    cluster.kube.put(FINE_TUNED_MODELS, model)
    await cluster.pass_time(3600)
    first = cluster.status()["provider"]["jobID"]
    cluster.add_cloud_job("sentiment-2")
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    await cluster.pass_time(3600)
    assert [one["version"] for one in cluster.status(MODEL)["versions"]] == [2]
    assert cluster.objects.names(f"team/tuning/models/{first}/") == []
    assert len(cluster.objects.names("team/tuning/models/")) == 4


async def test_nothing_that_is_billed_by_the_hour_is_made_before_it_is_asked_for(provider, begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    told = [cluster.condition(kind, DEPLOYMENT) for kind in ("Ready", "Reconciling", "Stalled")]
    assert [one["status"] for one in told] == ["False"] * 3
    assert cluster.condition("Ready", MODEL)["reason"] == told[0]["reason"] == "AwaitingConfiguration"
    assert (cluster.status(DEPLOYMENT)["phase"], "instanceType" in told[0]["message"]) == ("Pending", True)
    assert provider.left() == []


async def test_the_operator_asks_little_while_a_job_runs(provider, begin):
    cluster = await begin()
    await cluster.pass_time(200)
    before = len(provider.calls)
    for _ in range(10):
        await cluster.pass_time(20)
    assert len(provider.calls) - before == 10, [call.operation for call in provider.calls[before:]]
