"""What SageMaker's words and states become. What it is asked for is in the reconcilers' tests."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import JobKey
from finetune_operator.providers.calls.errors import Refused
from finetune_operator.providers.sagemaker import wire

MADE = datetime(2026, 11, 26, tzinfo=UTC)
KEY = JobKey("team-a", "sentiment-1", "0b54ae66-0b37-4bd5-9a3d-1f4cf1fcd52f", 12, MADE)


@pytest.mark.parametrize(
    ("said", "reason", "message"),
    [
        ("AlgorithmError: DatasetInvalid: train.jsonl: line 17: completion is empty. Mend it., exit code: 65",
         Reason.DATASET_INVALID, "train.jsonl: line 17: completion is empty. Mend it."),
        ("AlgorithmError: , exit code: 137", Reason.OUT_OF_MEMORY, "more memory than the instance has"),
        ("AlgorithmError: CodeFailed: train.py line 3: no such name, exit code: 78", Reason.CODE_FAILED, "line 3"),
        ("AlgorithmError: GPUUnavailable: no kernel image, exit code: 79", Reason.GPU_UNAVAILABLE, "no kernel"),
        ("AlgorithmError: , exit code: 80", Reason.TRAINING_DIVERGED, "exit code 80 (TRAINING_DIVERGED)"),
        ("AlgorithmError: Please use an instance type with more memory, exit code: 1", Reason.TRAINER_CRASHED,
         "CloudWatch"),
        ("AlgorithmError: Ooops: no reason of ours, exit code: 3", Reason.TRAINER_CRASHED, "CloudWatch"),
        ("CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance "
         "type.", Reason.NO_CAPACITY, "no such instance now"),
        ("ClientError: Data download failed: Please ensure that the access is allowed. Access denied (403)",
         Reason.ROLE_NOT_USABLE, "role may not do"),
        ("ClientError: Data download failed: no objects under s3://models/base", Reason.MODEL_NOT_IN_CACHE,
         "modelCache"),
        ("ClientError: Artifact upload failed: bucket tuning does not exist", Reason.BUCKET_NOT_FOUND, "tuning"),
        ("ClientError: Cannot pull algorithm container. Either the image does not exist or ECR denies it.",
         Reason.IMAGE_PULL_FAILED, "algorithm container"),
        ("ClientError: Data download failed:Insufficient disk space", Reason.ARTIFACT_FAILED, "disk is full"),
        ("ClientError: Artifact upload failed:Error 28: No space left on device", Reason.ARTIFACT_FAILED, "No space"),
        ("ClientError: Please use an instance type with more memory, or reduce the size of training data processed on "
         "an instance.", Reason.INSUFFICIENT_MEMORY, "more memory"),
        ("ClientError: Access denied for repository: trainer in registry ID: 123456789012. Please check if your ECR "
         "repository and image exist and role has proper pull permissions", Reason.IMAGE_PULL_FAILED, "repository"),
        ("ClientError: Cannot pull algorithm container. Either the image does not exist or its permissions are "
         "incorrect.", Reason.IMAGE_PULL_FAILED, "permissions"),
        ("InternalServerError: EC2 Insufficient Capacity Error", Reason.NO_CAPACITY, "no such instance now"),
        ("ClientError: Data download failed:AccessDeniedException: not authorized to perform: kms:Decrypt",
         Reason.ROLE_NOT_USABLE, "kms:Decrypt"),
        ("ClientError: something else", Reason.PROVIDER_FAILED, "something else"),
        ("InternalServerError: We encountered an internal error. Try again.", Reason.PROVIDER_FAILED, "internal"),
        ("", Reason.PROVIDER_FAILED, "no reason"),
    ],
)  # fmt: skip
def test_each_reason_of_a_failure_is_one_of_ours(said: str, reason: Reason, message: str) -> None:
    found = wire.failure_of(said)
    assert (found.reason, message in found.message) == (reason, True), found
    assert found.next_step
    assert not re.search("logTail|podTemplate|spec.resources|volume of|pull secret|examples/", found.next_step)


_TYPES = ", ".join(f"ml.g{number}.xlarge" for number in range(200))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "sagemaker refuses (X): 1 validation error detected: Value 'ml.zz9.xlarge' at "
            f"'variants.1.member.instanceType' failed to satisfy constraint: Member must satisfy enum value set: "
            f"[{_TYPES}]",
            "spec.x: ml.zz9.xlarge: sagemaker refuses (X): 1 validation error detected: Value "
            "'ml.zz9.xlarge' at 'variants.1.member.instanceType' is not one that SageMaker offers for this",
        ),
        (
            "sagemaker refuses (X): Instance type ml.zz9.xlarge takes no volume",
            "spec.x: ml.zz9.xlarge: sagemaker refuses (X): Instance type ml.zz9.xlarge takes no volume",
        ),
        (
            "sagemaker refuses (X): no such role",
            "sagemaker refuses (X): no such role",
        ),
    ],
)
def test_an_instance_type_that_is_refused_is_named_with_our_field_and_without_all_others(said: str, shown: str) -> None:
    found = wire.with_instance_field(Refused(Reason.PROVIDER_REFUSED, said), "spec.x", "ml.zz9.xlarge")
    assert (found.reason, found.message) == (Reason.PROVIDER_REFUSED, shown)


def described(**fields: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": wire.job_name(KEY),
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "CreationTime": MADE,
        "OutputDataConfig": {"S3OutputPath": "s3://b/p/models/"},
        "HyperParameters": wire.labels(KEY),
    } | fields


@pytest.mark.parametrize(
    ("status", "secondary", "state", "reason"),
    [
        ("InProgress", "Pending", "Queued", None),
        ("InProgress", "Downloading", "Queued", None),
        ("InProgress", "Training", "Active", None),
        ("InProgress", "Interrupted", "Active", None),
        ("InProgress", "SomethingNew", "Queued", None),
        ("Stopping", "Stopping", "Active", None),
        ("Completed", "Completed", "Succeeded", None),
        ("Stopped", "Stopped", "Cancelled", None),
        ("Stopped", "MaxRuntimeExceeded", "Failed", Reason.DEADLINE_EXCEEDED),
        ("Stopped", "MaxWaitTimeExceeded", "Failed", Reason.DEADLINE_EXCEEDED),
        ("Failed", "Failed", "Failed", Reason.PROVIDER_FAILED),
    ],
)
def test_each_state_is_one_of_ours(status: str, secondary: str, state: str, reason: Reason | None) -> None:
    found = wire.job_of(described(TrainingJobStatus=status, SecondaryStatus=secondary))
    assert (found.state, found.failure.reason if found.failure else None) == (state, reason)
    assert (found.labels, found.model) == (wire.labels(KEY), f"s3://b/p/models/{found.id}/output/model/model")


def test_a_job_of_a_list_is_known_to_be_told_in_part_only() -> None:
    listed = {name: described()[name] for name in ("TrainingJobName", "TrainingJobStatus", "CreationTime")}
    assert wire.job_of(listed).partial
    assert not wire.job_of(described()).partial


def test_an_attempts_name_is_one_that_sagemaker_takes_and_tells_the_attempt() -> None:
    assert len(wire.job_name(KEY)) <= 63
    assert wire.attempt_of(wire.job_name(KEY)) == (KEY.file_prefix, 12)


SPARSE: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "our name": ({"TrainingJobName": "finetune-u-i-d-3"}, {"uid": "u-i-d", "attempt": "3"}),
    "a stranger's name": ({"TrainingJobName": "theirs-3"}, {}),
    "our name with others' parameters": (
        {"TrainingJobName": "finetune-u-i-d-3", "HyperParameters": {"epochs": "1"}},
        {},
    ),
}


@pytest.mark.parametrize("name", SPARSE)
def test_a_job_that_shows_little_says_whose_it_is_by_its_name(name: str) -> None:
    shown, labels = SPARSE[name]
    job = wire.job_of({"TrainingJobStatus": "InProgress", **shown})
    assert (job.labels, job.dated, job.state) == (labels, False, "Queued")
