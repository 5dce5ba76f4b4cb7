"""The SageMaker simulator, driven by boto3; S3 is moto's."""

import json
from decimal import Decimal

import pytest
from botocore.exceptions import ClientError

from tests.simulators.aws.sdk import aws
from tests.simulators.clock import HOUR
from tests.simulators.sagemaker import SageMakerSettings, SageMakerSimulator

ROLE = "arn:aws:iam::123456789012:role/tuning"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:1"


@pytest.fixture
def bucket(s3_endpoint, empty_bucket) -> str:
    aws("s3", s3_endpoint).put_object(Bucket=empty_bucket, Key="data/train.jsonl", Body=b"{}")
    return empty_bucket


@pytest.fixture
def simulator(s3_endpoint) -> SageMakerSimulator:
    return SageMakerSimulator(SageMakerSettings(s3_endpoint=s3_endpoint))


@pytest.fixture
def url(simulator, start) -> str:
    return start(simulator)


@pytest.fixture
def sagemaker(url):
    return aws("sagemaker", url)


def wanted(bucket, name="mood-1", **more):
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/data/"}}
    return {
        "TrainingJobName": name, "RoleArn": ROLE, "HyperParameters": {"epochs": "3"},
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File",
                                   "MetricDefinitions": [{"Name": "eval_loss", "Regex": "eval_loss=([0-9.]+)"}]},
        "InputDataConfig": [{"ChannelName": "train", "DataSource": source}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/out"},
        "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 50},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    } | more  # fmt: skip


def spot(bucket, **more):
    condition = {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
    return wanted(bucket, StoppingCondition=condition, EnableManagedSpotTraining=True, **more)


def refused(call) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


def described(sagemaker, name="mood-1"):
    return sagemaker.describe_training_job(TrainingJobName=name)


def test_a_job_goes_through_its_states_to_an_artifact(simulator, sagemaker, bucket, s3_endpoint):
    sagemaker.create_training_job(**wanted(bucket))
    seen = []
    for seconds in (0, 120, 60, 600, 30):
        simulator.advance(seconds)
        job = described(sagemaker)
        seen.append((job["TrainingJobStatus"], job["SecondaryStatus"]))
    assert seen == [("InProgress", "Starting"), ("InProgress", "Downloading"), ("InProgress", "Training"),
                    ("InProgress", "Uploading"), ("Completed", "Completed")]  # fmt: skip
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] == 690
    assert job["FinalMetricDataList"][0]["MetricName"] == "eval_loss"
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]] == [secondary for _, secondary in seen]
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{bucket}/")
    assert aws("s3", s3_endpoint).head_object(Bucket=bucket, Key=key)["ContentLength"] > 0
    assert simulator.cost("mood-1") == pytest.approx(Decimal("1.408") * 690 / 3600)


def test_the_container_does_what_the_test_says(simulator, sagemaker, bucket):
    ran = []
    simulator.training.container = lambda request: ran.append(request["HyperParameters"])
    sagemaker.create_training_job(**wanted(bucket))
    simulator.advance(HOUR)
    assert ran == [{"epochs": "3"}]

    def breaks(_):
        raise RuntimeError("no more memory")

    simulator.training.container = breaks
    sagemaker.create_training_job(**wanted(bucket, "mood-2"))
    simulator.advance(HOUR)
    assert described(sagemaker, "mood-2")["FailureReason"] == "AlgorithmError: no more memory, exit code: 1"


@pytest.mark.parametrize(("checkpoints", "seconds"), [(True, 400 + 200), (False, 400 + 600)])
def test_a_spot_job_is_interrupted_and_goes_on(simulator, sagemaker, bucket, checkpoints, seconds):
    simulator.set(interrupt_after_seconds=[400])
    more = {"CheckpointConfig": {"S3Uri": f"s3://{bucket}/checkpoints"}} if checkpoints else {}
    sagemaker.create_training_job(**spot(bucket, **more))
    simulator.advance(120 + 60 + 400)
    assert described(sagemaker)["SecondaryStatus"] == "Interrupted"
    simulator.advance(HOUR)
    job = described(sagemaker)
    assert job["TrainingJobStatus"] == "Completed"
    assert job["TrainingTimeInSeconds"] == 60 + 60 + seconds + 30
    assert job["BillableTimeInSeconds"] == int(job["TrainingTimeInSeconds"] * 0.3)


def test_a_spot_job_waits_only_so_long(simulator, sagemaker, bucket):
    simulator.set(interrupt_after_seconds=[10], spot_wait_seconds=10_000)
    sagemaker.create_training_job(**spot(bucket))
    simulator.advance(7200)
    assert described(sagemaker)["SecondaryStatus"] == "MaxWaitTimeExceeded"


def test_a_job_runs_only_so_long(simulator, sagemaker, bucket):
    sagemaker.create_training_job(**wanted(bucket, StoppingCondition={"MaxRuntimeInSeconds": 300}))
    simulator.advance(HOUR)
    job = described(sagemaker)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert job["TrainingTimeInSeconds"] == 300


def test_a_job_stops_and_frees_its_name_when_it_is_deleted(simulator, sagemaker, bucket):
    sagemaker.create_training_job(**wanted(bucket))
    simulator.advance(300)
    delete = lambda: sagemaker.delete_training_job(TrainingJobName="mood-1")  # noqa: E731
    assert refused(delete) == (400, "ResourceInUse")
    sagemaker.stop_training_job(TrainingJobName="mood-1")
    assert described(sagemaker)["TrainingJobStatus"] == "Stopping"
    simulator.advance(60)
    assert described(sagemaker)["TrainingJobStatus"] == "Stopped"
    stop = lambda: sagemaker.stop_training_job(TrainingJobName="mood-1")  # noqa: E731
    assert refused(stop) == (400, "ValidationException")
    delete()
    assert refused(lambda: described(sagemaker)) == (400, "ValidationException")
    sagemaker.create_training_job(**wanted(bucket))


REFUSALS = {
    "a name that is taken": ({}, {"TrainingJobName": "mood-0"}, 400, "ResourceInUse"),
    "a role that cannot be assumed": ({"unassumable_roles": [ROLE]}, {}, 400, "ValidationException"),
    "too many instances": ({"instance_limits": {"ml.g5.xlarge": 1}}, {}, 400, "ResourceLimitExceeded"),
    "an instance type that is none": ({}, {"ResourceConfig": {"InstanceType": "ml.x", "VolumeSizeInGB": 1}}, 400,
                                      "ValidationException"),
    "spot without a wait": ({}, {"EnableManagedSpotTraining": True}, 400, "ValidationException"),
    "no rights": ({"denied": ["CreateTrainingJob"]}, {}, 403, "AccessDeniedException"),
    "another secret": ({"access_keys": {"AKIASIMULATED": "other"}}, {}, 403, "InvalidSignatureException"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "change", "status", "code"), REFUSALS.values(), ids=REFUSALS)
def test_a_job_is_refused(simulator, sagemaker, bucket, settings, change, status, code):
    sagemaker.create_training_job(**wanted(bucket, "mood-0"))
    simulator.set(**settings)
    assert refused(lambda: sagemaker.create_training_job(**(wanted(bucket) | change))) == (status, code)


def test_missing_data_fails_the_job(simulator, sagemaker, bucket):
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/nothing/"}}
    sagemaker.create_training_job(**wanted(bucket, InputDataConfig=[{"ChannelName": "train", "DataSource": source}]))
    simulator.advance(HOUR)
    assert described(sagemaker)["FailureReason"].startswith("ClientError: Data download failed")
    assert simulator.cost() == 0


def test_an_error_after_the_job_was_made_leaves_the_job(simulator, sagemaker, bucket):
    simulator.fault("CreateTrainingJob", after_commit=True, status=503)
    assert refused(lambda: sagemaker.create_training_job(**wanted(bucket)))[0] == 503
    assert described(sagemaker)["TrainingJobStatus"] == "InProgress"
    assert refused(lambda: sagemaker.create_training_job(**wanted(bucket))) == (400, "ResourceInUse")


def test_jobs_are_listed_with_a_lag_over_pages(simulator, sagemaker, bucket):
    simulator.set(list_lag_seconds=30)
    for number in range(3):
        sagemaker.create_training_job(**wanted(bucket, f"mood-{number}"))
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == []
    simulator.advance(30)
    pages = sagemaker.get_paginator("list_training_jobs").paginate(PaginationConfig={"PageSize": 2})
    assert [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]] == [
        "mood-2", "mood-1", "mood-0"]  # fmt: skip


def test_tags_are_kept(sagemaker, bucket):
    tags = [{"Key": "owner", "Value": "uid-1"}]
    arn = sagemaker.create_training_job(**wanted(bucket, Tags=tags))["TrainingJobArn"]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == tags


def host(sagemaker, name="mood", instance="ml.g5.xlarge"):
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": instance, "InitialInstanceCount": 2}
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": IMAGE}, ExecutionRoleArn=ROLE)
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    return sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def ask(url, name="mood", prompt="hello"):
    body = json.dumps({"messages": [{"role": "user", "content": prompt}]})
    answer = aws("sagemaker-runtime", url).invoke_endpoint(EndpointName=name, Body=body, ContentType="application/json")
    return json.loads(answer["Body"].read())["choices"][0]["message"]["content"]


def test_an_endpoint_answers_and_is_billed_until_it_is_gone(simulator, sagemaker, url):
    host(sagemaker)
    assert refused(lambda: ask(url)) == (400, "ValidationError")
    assert refused(lambda: sagemaker.delete_endpoint(EndpointName="mood")) == (400, "ValidationException")
    simulator.advance(300)
    assert sagemaker.describe_endpoint(EndpointName="mood")["EndpointStatus"] == "InService"
    assert ask(url) == "hello"
    simulator.advance(HOUR)
    assert simulator.cost("mood") == Decimal("2.816")
    sagemaker.delete_endpoint(EndpointName="mood")
    assert sagemaker.describe_endpoint(EndpointName="mood")["EndpointStatus"] == "Deleting"
    simulator.advance(60)
    assert refused(lambda: sagemaker.describe_endpoint(EndpointName="mood")) == (400, "ValidationException")
    assert [resource.kind for resource in simulator.left()] == ["model", "endpoint-config"]
    sagemaker.delete_endpoint_config(EndpointConfigName="mood")
    sagemaker.delete_model(ModelName="mood")
    assert simulator.left() == []
    assert simulator.ledger.running() == []


def configure_smaller(sagemaker):
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": "mood",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    sagemaker.create_endpoint_config(EndpointConfigName="small", ProductionVariants=[variant])


def test_an_endpoint_gets_another_configuration(simulator, sagemaker, url):
    host(sagemaker)
    simulator.advance(300)
    configure_smaller(sagemaker)
    sagemaker.update_endpoint(EndpointName="mood", EndpointConfigName="small")
    found = sagemaker.describe_endpoint(EndpointName="mood")
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("Updating", "mood")
    assert ask(url) == "hello"
    simulator.advance(300)
    assert sagemaker.describe_endpoint(EndpointName="mood")["EndpointConfigName"] == "small"
    assert simulator.ledger.per_hour() == Decimal("0.115")


def test_a_change_that_fails_is_rolled_back(simulator, sagemaker, url):
    host(sagemaker)
    simulator.advance(300)
    sagemaker.delete_endpoint_config(EndpointConfigName="mood")
    configure_smaller(sagemaker)
    simulator.set(fail_next_endpoint="No capacity.")
    sagemaker.update_endpoint(EndpointName="mood", EndpointConfigName="small")
    simulator.advance(300)
    found = sagemaker.describe_endpoint(EndpointName="mood")
    assert (found["EndpointStatus"], found["EndpointConfigName"], found["FailureReason"]) == (
        "InService", "mood", "No capacity.")  # fmt: skip
    assert ask(url) == "hello"
    assert simulator.ledger.per_hour() == Decimal("2.816")


def test_an_endpoint_fails(simulator, sagemaker):
    simulator.set(fail_next_endpoint="The primary container did not pass the ping health check.")
    host(sagemaker)
    simulator.advance(300)
    found = sagemaker.describe_endpoint(EndpointName="mood")
    assert (found["EndpointStatus"], "ping" in found["FailureReason"]) == ("Failed", True)
    assert simulator.ledger.running() == []


def test_names_are_unique_and_what_is_missing_is_said(simulator, sagemaker):
    host(sagemaker)
    again = {
        "model": lambda: sagemaker.create_model(ModelName="mood", PrimaryContainer={"Image": IMAGE}),
        "endpoint": lambda: sagemaker.create_endpoint(EndpointName="mood", EndpointConfigName="mood"),
        "no config": lambda: sagemaker.create_endpoint(EndpointName="other", EndpointConfigName="none"),
        "no model": lambda: sagemaker.delete_model(ModelName="none"),
    }
    assert {name: refused(call) for name, call in again.items()} == dict.fromkeys(again, (400, "ValidationException"))
    simulator.set(instance_limits={"ml.g5.xlarge": 1})
    other = lambda: sagemaker.create_endpoint(EndpointName="other", EndpointConfigName="mood")  # noqa: E731
    assert refused(other) == (400, "ResourceLimitExceeded")
