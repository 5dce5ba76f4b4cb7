"""Bedrock's objects ↔ ours: what is sent is held against botocore's model, what comes is read whatever is missing."""

from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest

from finetune_api.aws import Bedrock
from finetune_api.deployment import ModelDeploymentSpec
from finetune_api.job_status import ProviderFile
from finetune_api.reasons import Reason
from finetune_api.verdict import SplitName
from finetune_operator.decide.job.remote import JobKey
from finetune_operator.providers.bedrock import deployments as bedrock_deployments
from finetune_operator.providers.bedrock import wire
from finetune_operator.providers.calls.errors import Refused
from finetune_operator.providers.ports import HostRequest, JobRequest
from finetune_operator.providers.remote import hosting
from tests.simulators.aws.shapes import problems
from tests.unit.finetune_operator.decide.given import job_spec

NOW = datetime(2026, 11, 26, tzinfo=UTC)
SETTINGS = Bedrock.model_validate(
    {
        "region": "us-east-1",
        "roleARN": "arn:aws:iam::123456789012:role/tuning",
        "s3": {"bucket": "data"},
        "credentials": {"podIdentity": True},
    }
)
MODEL = "arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova-micro-v1:0:128k/abcdefghijkl"
ARN = "arn:aws:bedrock:us-east-1:123456789012:model-customization-job/amazon.nova-micro-v1:0:128k/abcdefghijkl"


def key(name: str = "job", namespace: str = "team") -> JobKey:
    return JobKey(namespace, name, "11111111-2222-3333-4444-555555555555", 3, NOW)


def wrong(operation: str, asked: dict[str, Any]) -> list[str]:
    service = botocore.session.get_session().get_service_model("bedrock")
    return problems(service.operation_model(operation).input_shape, asked)


SPLITS: tuple[SplitName, ...] = ("train", "validation")
NAMES = ("a", "job", "a.b.c", "a--b", "x" * 253, "a-" + "x" * 60, "1", "a.-b" * 3 + "b")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_kubernetes_takes_makes_a_job_that_bedrock_takes(name: str) -> None:
    files = [
        ProviderFile(split=split, id=f"{split}.jsonl", bytes=1, sha256="0" * 64) for split in ("train", "validation")
    ]
    spec = job_spec(baseModel="amazon.nova-micro-v1:0:128k")
    request = JobRequest(key(name, name[:63]), spec, hosting.names.fit(name, 40), files)
    asked = wire.creation(request, SETTINGS, lambda file: f"s3://data/{file}")
    assert wrong("CreateModelCustomizationJob", asked) == []
    assert asked["jobName"] == wire.job_name(request.key)


def test_attempts_have_names_of_their_own() -> None:
    tokens = {wire.job_name(JobKey("team", "job", uid, attempt, NOW)) for uid in ("a", "b") for attempt in (1, 2)}
    assert len(tokens) == 4


SERVED = {
    "on demand": ({}, "CreateCustomModelDeployment"),
    "by the hour": (
        {"type": "ProvisionedThroughput", "modelUnits": 2, "commitment": "NoCommitment"},
        "CreateProvisionedModelThroughput",
    ),
    "for a month": (
        {"type": "ProvisionedThroughput", "modelUnits": 1000, "commitment": "SixMonths"},
        "CreateProvisionedModelThroughput",
    ),
}


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("name", NAMES)
def test_every_name_makes_a_deployment_that_bedrock_takes(kind: str, name: str) -> None:
    block, operation = SERVED[kind]
    spec = ModelDeploymentSpec.model_validate({"modelRef": {"name": "m"}, "bedrock": block})
    metadata = {"namespace": "team-a", "name": name, "uid": "11111111-2222-3333-4444-555555555555"}
    begins = hosting.prefix({"metadata": metadata}, spec)
    made, asked = bedrock_deployments.creation(HostRequest(f"{begins}999999", MODEL, spec, metadata["uid"]))
    assert (wrong(operation, asked), made.replace("_", "")) == ([], operation.lower())
    assert asked.get("commitmentDuration") == (None if block.get("commitment") != "SixMonths" else "SixMonths")


def test_kinds_have_names_of_their_own() -> None:
    found = set()
    for block, _ in SERVED.values():
        spec = ModelDeploymentSpec.model_validate({"modelRef": {"name": "m"}, "bedrock": block})
        found.add(hosting.prefix({"metadata": {"namespace": "a", "name": "m", "uid": "u-123456"}}, spec))
    assert len(found) == 3


def shown(status: str = "InProgress", phases: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    names = ("validationDetails", "dataProcessingDetails", "trainingDetails")
    details = {name: {"status": state} for name, state in zip(names, phases, strict=False)}
    base = {"jobArn": ARN, "creationTime": NOW, "status": status, "outputDataConfig": {"s3Uri": "s3://data/out/"}}
    return base | ({"statusDetails": details} if details else {}) | more


STATES = {
    "just made": (shown(), "Queued", "waiting at Bedrock"),
    "checked": (shown(phases=("InProgress", "NotStarted", "NotStarted")), "Queued", "Bedrock checks the data"),
    "prepared": (shown(phases=("Completed", "InProgress", "NotStarted")), "Queued", "Bedrock prepares the data"),
    "trained": (shown(phases=("Completed", "Completed", "InProgress")), "Active", ""),
    "being stopped": (shown("Stopping"), "Active", "being stopped at Bedrock"),
    "stopped": (shown("Stopped"), "Cancelled", ""),
    "completed": (shown("Completed", outputModelArn=MODEL), "Succeeded", ""),
    "failed": (shown("Failed"), "Failed", ""),
    "a state that nobody knows": (shown("Pondering"), "Active", "the provider calls its state 'Pondering'"),
}


def test_a_job_is_no_success_before_its_model_is_there() -> None:
    found = wire.job(shown("Completed"))
    assert (found.ended, found.note) == (False, "Bedrock stores the model")
    assert wire.listed(shown("Completed")).ended, "so that the job itself is looked at"


@pytest.mark.parametrize("name", STATES)
def test_every_state_is_one_of_ours(name: str) -> None:
    given, state, note = STATES[name]
    for found in (wire.job(given), wire.listed(given)):
        assert (found.id, found.state, found.note) == (ARN, state, note)
    assert wire.listed(given).partial


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        ("bedrock refuses (ValidationException): The provided model identifier is invalid.", "spec.baseModel: bedrock"),
        (
            "bedrock refuses (ValidationException): 1 validation error detected: Value at 'baseModelIdentifier' failed "
            "to satisfy constraint: Member must satisfy regular expression pattern: (arn:aws...)",
            "spec.baseModel: bedrock",
        ),
        ("The hyperparameter x is not supported by the base model.", "spec.hyperparameters: The"),
        ("The client request token was used for another request.", "The client"),
    ],
)
def test_a_wish_that_is_refused_is_told_with_the_field_of_the_job(said: str, begins: str) -> None:
    found = wire.with_spec_field(Refused(Reason.PROVIDER_REFUSED, said))
    assert (found.message.startswith(begins), found.message.endswith(said)) == (True, True)


FAILURES = {
    "data": (("Failed",), "line 17 has a reserved keyword: SECRET", "DatasetInvalid", "line 17"),
    "data without a line": (("Failed",), "malformed input: SECRET", "DatasetInvalid", "refuses the data;"),
    "role": (("Failed",), "Could not access s3://x with SECRET", "RoleNotUsable", "roleARN"),
    "bucket": (("Completed", "Failed"), "NoSuchBucket SECRET", "BucketNotFound", "s3.bucket"),
    "key": (("Failed",), "The KMS key of SECRET cannot be used", "RoleNotUsable", "roleARN"),
    "role that is not there": (("Failed",), "The role SECRET does not exist", "RoleNotUsable", "roleARN"),
    "their fault": (("Failed",), "Internal error, try again SECRET", "ProviderFailed", "an internal error"),
    "a row that speaks of access": (("Failed",), "line 3: access denied SECRET", "DatasetInvalid", "line 3"),
    "training": (("Completed", "Completed", "Failed"), "the loss is not a number", "ProviderFailed", "not a number"),
    "nothing": ((), "", "ProviderFailed", "no reason"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_has_its_reason_and_quotes_no_data(name: str) -> None:
    phases, message, reason, words = FAILURES[name]
    found = wire.job(shown("Failed", phases, failureMessage=message)).failure
    assert found is not None
    assert (found.reason.value, words in found.message, "SECRET" in found.message) == (reason, True, False)
    assert found.next_step


def test_results_are_where_bedrock_writes_them() -> None:
    alone, both = shown(), shown(validationDataConfig={"validators": [{"s3Uri": "s3://data/v.jsonl"}]})
    folder = "s3://data/out/model-customization-job-abcdefghijkl/"
    assert wire.job(alone).results == (f"{folder}training_artifacts/step_wise_training_metrics.csv",)
    assert len(wire.job(both).results) == 2


def test_curves_are_read_from_csv_whatever_is_in_it() -> None:
    training = b"\xef\xbb\xbfstep_number,epoch_number,training_loss\n1,0,0.5\n0,0,1.5\nx,0,1\n2,0,nan\n3,0,inf\n4,0\n"
    found = wire.metrics(training, b"step_number,validation_loss\n1,0.7\n")
    assert [(point.step, point.value) for point in found.train] == [(1, 1.5), (2, 0.5)]
    assert [(point.step, point.value) for point in found.validation] == [(2, 0.7)]
    assert (found.step, found.total_steps) == (2, 2)
    assert wire.metrics(b"", b"").step == 0


RATES = [
    (
        "amazon.nova-micro-v1:0:128k",
        {"epochs": 2, "learningRate": 1e-6},
        {"epochCount": "2", "learningRate": "0.000001"},
    ),
    ("amazon.nova-2-lite-v1:0", {"epochs": 1, "learningRate": 1}, {"epochCount": "1", "learningRate": "1.0"}),
    (
        "amazon.titan-text-lite-v1:0:4k",
        {"epochs": 1, "batchSize": 1000, "learningRate": 2.5e-12},
        {"epochCount": "1", "learningRate": "0.0000000000025"},
    ),
    ("meta.llama3-1-8b-instruct-v1:0:128k", {"epochs": 3}, {"epochCount": "3"}),
    ("meta.llama3-1-8b-instruct-v1:0:128k", {"epochs": 3, "batchSize": 1}, {"epochCount": "3", "batchSize": "1"}),
    (
        "anthropic.claude-3-haiku-20240307-v1:0:200k",
        {"epochs": 1, "learningRateMultiplier": 0.5},
        {"epochCount": "1", "batchSize": "16", "learningRateMultiplier": "0.5"},
    ),
]


@pytest.mark.parametrize(("base", "asked", "sent"), RATES)
def test_a_family_gets_the_hyperparameters_that_it_takes(
    base: str, asked: dict[str, Any], sent: dict[str, str]
) -> None:
    assert wire.hyperparameters(job_spec(baseModel=base, hyperparameters=asked)) == sent
