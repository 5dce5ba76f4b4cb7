"""The Bedrock simulator, driven by boto3; S3 is moto's."""

import csv
import io
import json
from decimal import Decimal

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from tests.simulators.aws.sdk import aws
from tests.simulators.bedrock import BedrockSettings, BedrockSimulator
from tests.simulators.clock import DAY, HOUR

NOVA = "amazon.nova-micro-v1:0:128k"
LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
ROLE = "arn:aws:iam::123456789012:role/tuning"


def conversations(count: int, answer: str = "answer") -> bytes:
    lines = [
        {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "Be kind."}],
         "messages": [{"role": "user", "content": [{"text": f"question {n}"}]},
                      {"role": "assistant", "content": [{"text": f"{answer} {n}"}]}]}
        for n in range(count)
    ]  # fmt: skip
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture
def bucket(s3_endpoint, empty_bucket) -> str:
    s3 = aws("s3", s3_endpoint)
    s3.put_object(Bucket=empty_bucket, Key="train.jsonl", Body=conversations(20))
    s3.put_object(Bucket=empty_bucket, Key="valid.jsonl", Body=conversations(5))
    return empty_bucket


@pytest.fixture
def simulator(s3_endpoint) -> BedrockSimulator:
    return BedrockSimulator(BedrockSettings(s3_endpoint=s3_endpoint))


@pytest.fixture
def url(simulator, start) -> str:
    return start(simulator)


@pytest.fixture
def bedrock(url):
    return aws("bedrock", url)


@pytest.fixture
def runtime(url):
    return aws("bedrock-runtime", url)


def wanted(bucket, name="mood-1", **more):
    return {
        "jobName": name, "customModelName": f"{name}-model", "roleArn": ROLE, "baseModelIdentifier": NOVA,
        "customizationType": "FINE_TUNING", "trainingDataConfig": {"s3Uri": f"s3://{bucket}/train.jsonl"},
        "outputDataConfig": {"s3Uri": f"s3://{bucket}/out"}, "hyperParameters": {"epochCount": "2"},
        "clientRequestToken": f"token-{name}",
    } | more  # fmt: skip


@pytest.fixture
def model(simulator, bedrock, bucket) -> str:
    bedrock.create_model_customization_job(**wanted(bucket))
    simulator.advance(HOUR)
    return bedrock.get_model_customization_job(jobIdentifier="mood-1")["outputModelArn"]


def refused(call) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


def test_a_job_goes_through_its_phases_to_a_model_and_its_metrics(simulator, bedrock, bucket, s3_endpoint):
    validation = {"validators": [{"s3Uri": f"s3://{bucket}/valid.jsonl"}]}
    arn = bedrock.create_model_customization_job(**wanted(bucket, validationDataConfig=validation))["jobArn"]
    phases = []
    for seconds in (0, 300, 300, 40):
        simulator.advance(seconds)
        job = bedrock.get_model_customization_job(jobIdentifier=arn)
        phases.append((job["status"], *(phase["status"] for phase in job["statusDetails"].values())))
    assert phases == [
        ("InProgress", "InProgress", "NotStarted", "NotStarted"),
        ("InProgress", "Completed", "InProgress", "NotStarted"),
        ("InProgress", "Completed", "Completed", "InProgress"),
        ("Completed", "Completed", "Completed", "Completed"),
    ]
    made = bedrock.get_custom_model(modelIdentifier="mood-1-model")
    assert (made["modelArn"], made["modelStatus"]) == (job["outputModelArn"], "Active")
    folder = f"out/model-customization-job-{arn.rpartition('/')[2]}"
    losses = table(s3_endpoint, bucket, f"{folder}/training_artifacts/step_wise_training_metrics.csv")
    assert [(row["step_number"], row["epoch_number"]) for row in (losses[0], losses[-1])] == [("0", "0"), ("39", "1")]
    assert float(losses[-1]["training_loss"]) == pytest.approx(job["trainingMetrics"]["trainingLoss"])
    path = f"{folder}/validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"
    validated = table(s3_endpoint, bucket, path)
    assert float(validated[-1]["validation_loss"]) == pytest.approx(job["validationMetrics"][0]["validationLoss"])


def table(s3_endpoint, bucket, key):
    text = aws("s3", s3_endpoint).get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_training_and_storage_are_billed(simulator, bedrock, model):
    job = simulator.account.jobs[bedrock.get_custom_model(modelIdentifier=model)["jobArn"]]
    assert simulator.cost(job.arn) == Decimal(job.data.tokens * 2) / 10**6
    before = simulator.cost(model)
    simulator.advance(730 * HOUR)
    assert simulator.cost(model) - before == pytest.approx(Decimal("1.95"))


def test_the_same_request_token_makes_one_job(simulator, bedrock, bucket):
    first = bedrock.create_model_customization_job(**wanted(bucket))
    assert bedrock.create_model_customization_job(**wanted(bucket))["jobArn"] == first["jobArn"]
    assert len(simulator.account.jobs) == 1
    other = wanted(bucket) | {"hyperParameters": {"epochCount": "3"}}
    assert refused(lambda: bedrock.create_model_customization_job(**other)) == (400, "ValidationException")


def test_an_error_after_the_job_was_made_and_the_token_again(simulator, bedrock, bucket):
    simulator.fault("CreateModelCustomizationJob", after_commit=True)
    assert refused(lambda: bedrock.create_model_customization_job(**wanted(bucket)))[0] == 500
    bedrock.create_model_customization_job(**wanted(bucket))
    assert len(simulator.account.jobs) == 1


def test_no_answer(simulator, url, bucket):
    simulator.fault("CreateModelCustomizationJob", outcome="hang", after_commit=True)
    with pytest.raises(ReadTimeoutError):
        aws("bedrock", url, timeout=2).create_model_customization_job(**wanted(bucket))
    assert len(simulator.account.jobs) == 1


REFUSALS = {
    "a name that is taken": ({}, {"jobName": "mood-0"}, 400, "ConflictException"),
    "a model's name that is taken": ({}, {"customModelName": "mood-0-model"}, 400, "ConflictException"),
    "a role that cannot be assumed": ({"unassumable_roles": [ROLE]}, {}, 400, "ValidationException"),
    "too many jobs": ({"job_limit": 1}, {}, 400, "ServiceQuotaExceededException"),
    "an unknown base model": ({}, {"baseModelIdentifier": "amazon.titan-v1:0"}, 400, "ValidationException"),
    "an unknown hyperparameter": ({}, {"hyperParameters": {"rank": "8"}}, 400, "ValidationException"),
    "a hyperparameter out of bounds": ({}, {"hyperParameters": {"epochCount": "6"}}, 400, "ValidationException"),
    "an ill-formed name": ({}, {"jobName": "_"}, 400, "ValidationException"),
    "no rights": ({"denied": ["CreateModelCustomizationJob"]}, {}, 403, "AccessDeniedException"),
    "a revoked key": ({"revoked_keys": ["AKIASIMULATED"]}, {}, 403, "UnrecognizedClientException"),
    "another secret": ({"access_keys": {"AKIASIMULATED": "other"}}, {}, 403, "InvalidSignatureException"),
}


@pytest.mark.parametrize(("settings", "change", "status", "code"), REFUSALS.values(), ids=REFUSALS)
def test_a_job_is_refused(simulator, bedrock, bucket, settings, change, status, code):
    bedrock.create_model_customization_job(**wanted(bucket, "mood-0"))
    simulator.set(**settings)
    asked = wanted(bucket) | change
    assert refused(lambda: bedrock.create_model_customization_job(**asked)) == (status, code)


@pytest.mark.parametrize("taken", [True, False])
def test_keys_of_another_sts_are_taken_when_it_is_said(simulator, url, taken):
    simulator.set(temporary_keys=taken)
    client = boto3.client("bedrock", endpoint_url=url, region_name="us-east-1", aws_access_key_id="ASIATEMPORARY",
                          aws_secret_access_key="unknown", aws_session_token="token")  # fmt: skip
    if taken:
        assert client.list_custom_models()["modelSummaries"] == []
    else:
        assert refused(client.list_custom_models) == (403, "UnrecognizedClientException")


BAD_DATA = {
    "missing": (None, NOVA, "NoSuchKey"),
    "another format": (b'{"prompt": "a", "completion": "b"}\n', NOVA, "line 1"),
    "conversations where pairs belong": (conversations(1), LLAMA, "line 1"),
    "a reserved word": (conversations(2) + conversations(1, "User: answer"), NOVA, "line 3 has a reserved keyword"),
    "empty": (b"\n", NOVA, "no rows"),
}


@pytest.mark.parametrize(("content", "base", "words"), BAD_DATA.values(), ids=BAD_DATA)
def test_data_that_cannot_be_used_fails_the_job(simulator, bedrock, bucket, s3_endpoint, content, base, words):
    if content is not None:
        aws("s3", s3_endpoint).put_object(Bucket=bucket, Key="bad.jsonl", Body=content)
    asked = wanted(bucket, baseModelIdentifier=base, trainingDataConfig={"s3Uri": f"s3://{bucket}/bad.jsonl"})
    if base == LLAMA:
        asked["hyperParameters"] = {"epochCount": "10", "batchSize": "1"}
    aws("s3", s3_endpoint).delete_object(Bucket=bucket, Key="bad.jsonl") if content is None else None
    bedrock.create_model_customization_job(**asked)
    simulator.advance(HOUR)
    job = bedrock.get_model_customization_job(jobIdentifier="mood-1")
    assert job["status"] == "Failed"
    assert words in job["failureMessage"]
    assert simulator.cost() == 0


def test_pairs_train_another_model(simulator, bedrock, bucket, s3_endpoint):
    rows = "".join(json.dumps({"prompt": f"question {n}", "completion": "yes"}) + "\n" for n in range(5))
    aws("s3", s3_endpoint).put_object(Bucket=bucket, Key="train.jsonl", Body=rows.encode())
    asked = wanted(bucket, baseModelIdentifier=LLAMA, hyperParameters={"epochCount": "10", "batchSize": "1"})
    bedrock.create_model_customization_job(**asked)
    simulator.advance(HOUR)
    assert bedrock.get_model_customization_job(jobIdentifier="mood-1")["status"] == "Completed"


def test_a_job_stops_after_a_while_and_keeps_its_name(simulator, bedrock, bucket):
    bedrock.create_model_customization_job(**wanted(bucket))
    simulator.advance(300 + 300 + 10)
    bedrock.stop_model_customization_job(jobIdentifier="mood-1")
    assert bedrock.get_model_customization_job(jobIdentifier="mood-1")["status"] == "Stopping"
    simulator.advance(60)
    assert bedrock.get_model_customization_job(jobIdentifier="mood-1")["status"] == "Stopped"
    stop = lambda: bedrock.stop_model_customization_job(jobIdentifier="mood-1")  # noqa: E731
    assert refused(stop) == (400, "ConflictException")
    assert 0 < simulator.cost() < Decimal("0.01")
    again = wanted(bucket) | {"clientRequestToken": "other"}
    assert refused(lambda: bedrock.create_model_customization_job(**again)) == (400, "ConflictException")


def test_jobs_are_listed_with_a_lag_over_pages(simulator, bedrock, bucket):
    simulator.set(list_lag_seconds=30, job_limit=10)
    for number in range(3):
        bedrock.create_model_customization_job(**wanted(bucket, f"mood-{number}"))
        simulator.advance(1)
    assert bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"] == []
    simulator.advance(30)
    pages = bedrock.get_paginator("list_model_customization_jobs").paginate(
        nameContains="mood", PaginationConfig={"PageSize": 2}
    )
    names = [job["jobName"] for page in pages for job in page["modelCustomizationJobSummaries"]]
    assert names == ["mood-2", "mood-1", "mood-0"]


def test_tags_are_kept(simulator, bedrock, bucket):
    tags = [{"key": "owner", "value": "uid-1"}]
    arn = bedrock.create_model_customization_job(**wanted(bucket, jobTags=tags, customModelTags=tags))["jobArn"]
    assert bedrock.list_tags_for_resource(resourceARN=arn)["tags"] == tags
    simulator.advance(HOUR)
    model = bedrock.get_model_customization_job(jobIdentifier=arn)["outputModelArn"]
    assert bedrock.list_tags_for_resource(resourceARN=model)["tags"] == tags


def deploy(simulator, bedrock, model, name="mood"):
    made = bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model, clientRequestToken=name)
    simulator.advance(300)
    return made["customModelDeploymentArn"]


def ask(runtime, identifier, prompt="question 3"):
    messages = [{"role": "user", "content": [{"text": prompt}]}]
    return runtime.converse(modelId=identifier, messages=messages)["output"]["message"]["content"][0]["text"]


def test_a_deployment_answers_when_it_is_active(simulator, bedrock, runtime, model):
    made = bedrock.create_custom_model_deployment(modelDeploymentName="mood", modelArn=model)
    arn = made["customModelDeploymentArn"]
    assert refused(lambda: ask(runtime, arn)) == (429, "ModelNotReadyException")
    simulator.advance(300)
    assert bedrock.get_custom_model_deployment(customModelDeploymentIdentifier="mood")["status"] == "Active"
    assert ask(runtime, arn) == "answer 3"
    assert simulator.cost(arn) > 0
    found = bedrock.list_custom_model_deployments(modelArnEquals=model, nameContains="moo")["modelDeploymentSummaries"]
    assert [item["customModelDeploymentArn"] for item in found] == [arn]


def test_a_deployment_is_made_once_by_token_and_name(simulator, bedrock, model):
    arn = deploy(simulator, bedrock, model)
    assert deploy(simulator, bedrock, model) == arn
    other = {"modelDeploymentName": "mood", "modelArn": model, "clientRequestToken": "other"}
    assert refused(lambda: bedrock.create_custom_model_deployment(**other)) == (400, "ValidationException")


def test_a_deployment_gets_another_model(simulator, bedrock, runtime, bucket, model, s3_endpoint):
    arn = deploy(simulator, bedrock, model)
    aws("s3", s3_endpoint).put_object(Bucket=bucket, Key="train.jsonl", Body=conversations(20, "better"))
    bedrock.create_model_customization_job(**wanted(bucket, "mood-2"))
    simulator.advance(HOUR)
    better = bedrock.get_model_customization_job(jobIdentifier="mood-2")["outputModelArn"]
    bedrock.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=better)
    assert ask(runtime, arn) == "answer 3"
    simulator.advance(300)
    assert ask(runtime, arn) == "better 3"
    found = bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=arn)
    assert found["updateDetails"] == {"modelArn": better, "updateStatus": "UpdateCompleted"}


def test_things_are_deleted_in_the_right_order(simulator, bedrock, runtime, model):
    arn = deploy(simulator, bedrock, model)
    assert refused(lambda: bedrock.delete_custom_model(modelIdentifier=model)) == (400, "ConflictException")
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    assert refused(lambda: ask(runtime, arn)) == (404, "ResourceNotFoundException")
    bedrock.delete_custom_model(modelIdentifier=model)
    assert simulator.left() == []
    assert simulator.ledger.running() == []


def test_throughput_is_billed_by_started_hours(simulator, bedrock, runtime, model):
    made = bedrock.create_provisioned_model_throughput(provisionedModelName="mood", modelId=model, modelUnits=1)
    arn = made["provisionedModelArn"]
    assert refused(lambda: ask(runtime, arn)) == (429, "ModelNotReadyException")
    simulator.advance(900 + HOUR + 1)
    assert ask(runtime, arn) == "answer 3"
    assert simulator.cost(arn) == 48
    bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    simulator.advance(DAY)
    assert simulator.cost(arn) == 48


def test_a_commitment_binds(simulator, bedrock, model):
    made = bedrock.create_provisioned_model_throughput(
        provisionedModelName="mood", modelId=model, modelUnits=1, commitmentDuration="OneMonth"
    )
    release = lambda: bedrock.delete_provisioned_model_throughput(provisionedModelId=made["provisionedModelArn"])  # noqa: E731
    simulator.advance(29 * DAY)
    assert refused(release) == (400, "ConflictException")
    simulator.advance(DAY)
    release()
    assert [resource.kind for resource in simulator.left()] == ["model"]


def test_model_units_have_a_quota(simulator, bedrock, model):
    simulator.set(units_without_commitment=0)
    asked = {"provisionedModelName": "mood", "modelId": model, "modelUnits": 1}
    assert refused(lambda: bedrock.create_provisioned_model_throughput(**asked)) == (
        400,
        "ServiceQuotaExceededException",
    )


@pytest.mark.parametrize(("identifier", "answer"), [("us.amazon.nova-micro-v1:0", "question 3"), (NOVA, None)])
def test_a_base_model_answers_through_an_inference_profile_only(runtime, identifier, answer):
    if answer:
        assert ask(runtime, identifier) == answer
    else:
        assert refused(lambda: ask(runtime, identifier)) == (400, "ValidationException")


def test_throttling_says_when_to_come_back(simulator, bedrock):
    simulator.fault("ListCustomModels", status=429, headers={"Retry-After": "3"})
    assert refused(bedrock.list_custom_models) == (429, "ThrottlingException")
    assert bedrock.list_custom_models()["modelSummaries"] == []
