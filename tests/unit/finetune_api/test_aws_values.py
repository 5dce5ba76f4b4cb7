"""Values of AWS in connections, jobs and deployments: what it would refuse once a job has begun is refused before."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.session import Session
from pydantic import ValidationError

from finetune_api.aws import Bedrock, SageMaker
from finetune_api.deployment import Attach, SageMakerServing
from finetune_api.job import Resources
from finetune_api.schema import structural_schema
from finetune_trainer.job.rules_between import broken_rules

BEDROCK: dict[str, Any] = {
    "region": "us-east-1",
    "roleARN": "arn:aws:iam::123456789012:role/tuning",
    "s3": {"bucket": "tuning"},
    "credentials": {"podIdentity": True},
}
SAGEMAKER: dict[str, Any] = {
    **BEDROCK,
    "trainerImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/finetune-trainer:1",
    "instanceTypes": ["ml.g5.xlarge"],
}
KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
OF_A_KEY = "arn:aws:kms:us-east-1:123456789012"


def instance_types() -> Iterator[str]:
    model = Session().get_service_model("sagemaker")
    for shape in ("TrainingInstanceType", "ProductionVariantInstanceType"):
        yield from model.shape_for(shape).enum


def test_every_instance_type_that_the_sdk_knows_is_taken() -> None:
    known = list(instance_types())
    assert len(known) > 100
    for one in known:
        SageMaker.model_validate({**SAGEMAKER, "instanceTypes": [one]})
        SageMakerServing.model_validate({"instanceType": one})
        Resources.model_validate({"instanceType": one})


@pytest.mark.parametrize(
    "text", ["", "ml.", "g5.xlarge", "ml.G5.xlarge", "ml.g5", "ml.g5.xlarge ", " ml.g5.xlarge", "ml.g5.", "ml.g5.x.l"]
)
def test_what_is_no_instance_type_is_refused_wherever_one_stands(text: str) -> None:
    for made in (
        lambda: SageMaker.model_validate({**SAGEMAKER, "instanceTypes": ["ml.g5.xlarge", text]}),
        lambda: SageMakerServing.model_validate({"instanceType": text}),
        lambda: Resources.model_validate({"instanceType": text}),
    ):
        with pytest.raises(ValidationError, match="should match pattern"):
            made()


REGISTRIES = ("dkr.ecr.us-east-1.amazonaws.com", "dkr.ecr-fips.us-east-1.amazonaws.com", "dkr-ecr.us-east-1.on.aws")
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize("registry", REGISTRIES)
@pytest.mark.parametrize(
    "image", ["t", "t:1", "team/trainer:0.1.0-sagemaker", f"t@{DIGEST}", f"t:1@{DIGEST}", "a_b.c-d/e:A_1"]
)
def test_an_image_is_taken_by_any_name_that_ecr_has(registry: str, image: str) -> None:
    assert broken({"trainerImage": f"123456789012.{registry}/{image}"}) == []


@pytest.mark.parametrize("image", ["t:1 ", "T:1", "<name>", "t:", "t:a:b", "t 1", ":1", "t@sha256:"])
def test_an_image_that_ecr_can_have_none_of_is_refused(image: str) -> None:
    assert broken({"trainerImage": f"123456789012.{REGISTRIES[0]}/{image}"}) == [("trainerImage",)]


def broken(fields: dict[str, Any]) -> list[tuple[str | int, ...]]:
    """The fields that rules between fields blame, as check reads them from the definition."""
    block = SageMaker.model_validate({**SAGEMAKER, **fields}).wire()
    return [path for path, _ in broken_rules(structural_schema(SageMaker), block, ())]


KEYS = (
    *(KEY, "mrk-1234abcd12ab34cd56ef1234567890ab", "alias/tuning", "alias/aws/s3", "alias/team/a_b"),
    *(f"{OF_A_KEY}:key/{KEY}", f"{OF_A_KEY}:alias/tuning", f"arn:aws-cn:kms:cn-north-1:123456789012:key/{KEY}"),
)
NO_KEYS = (
    *("", " ", "tuning", "alias/", "alias/my key", f"{KEY} ", f"key/{KEY}", f"{OF_A_KEY}:key/tuning"),
    *(f"arn:aws:s3:::{KEY}", f"arn:aws:kms:us-east-1::key/{KEY}"),
)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_named_in_each_way_that_kms_takes(key: str) -> None:
    assert SageMaker.model_validate({**SAGEMAKER, "kmsKeyID": key}).kms_key_id == key


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="kmsKeyID"):
        SageMaker.model_validate({**SAGEMAKER, "kmsKeyID": key})


ROLES = ("role/tuning", "role/service-role/AmazonBedrock-Tuning", "role/a/b:c!/x@y", "role/A_b+c=d,e.f@g-h")
NO_ROLES = (
    "role/",
    "role/tuning ",
    "role/ tuning",
    "role/my role",
    "role/tuning/",
    "role/tuning\n",
    "role/a b/c",
    "user/x",
)


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-eusc"])
@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_path_and_name_as_iam_has_them(partition: str, role: str) -> None:
    arn = f"arn:{partition}:iam::123456789012:{role}"
    assert Bedrock.model_validate({**BEDROCK, "roleARN": arn}).role_arn == arn


@pytest.mark.parametrize("role", NO_ROLES)
def test_what_is_no_role_is_refused(role: str) -> None:
    with pytest.raises(ValidationError, match="roleARN"):
        Bedrock.model_validate({**BEDROCK, "roleARN": f"arn:aws:iam::123456789012:{role}"})


@pytest.mark.parametrize(
    "bucket", ["tuning", "my.bucket.example.com", "a-1", "1.2.3", "10.0.0.1.example", "my-.bucket"]
)
def test_a_bucket_is_taken_by_any_name_that_it_can_have(bucket: str) -> None:
    assert Bedrock.model_validate({**BEDROCK, "s3": {"bucket": bucket}}).s3.bucket == bucket


@pytest.mark.parametrize(
    "bucket", ["my..bucket", "10.0.0.1", "192.168.005.004", "My-bucket", "my_bucket", "-bucket", "bucket."]
)
def test_a_bucket_by_a_name_that_none_can_have_is_refused(bucket: str) -> None:
    for made in (
        lambda: Bedrock.model_validate({**BEDROCK, "s3": {"bucket": bucket}}),
        lambda: SageMaker.model_validate({**SAGEMAKER, "modelCache": {"bucket": bucket}}),
    ):
        with pytest.raises(ValidationError, match=r"bucket"):
            made()


@pytest.mark.parametrize(
    ("subnets", "groups", "wrong"),
    [
        (["subnet-0a1b2c3d4e5f60718"], ["sg-0a1b2c3d"], None),
        (["sg-0a1b2c3d"], ["subnet-0a1b2c3d"], "subnets.0"),
        (["subnet-0a1b2c3d"], ["subnet-0a1b2c3d"], "securityGroupIDs.0"),
        (["subnet-0a1b2c3d "], ["sg-0a1b2c3d"], "subnets.0"),
        (["subnet-"], ["sg-0a1b2c3d"], "subnets.0"),
        (["subnet-0a1b2c3d"], ["my-group"], "securityGroupIDs.0"),
    ],
)
def test_subnets_and_security_groups_are_told_apart(subnets: list[str], groups: list[str], wrong: str | None) -> None:
    block = {**SAGEMAKER, "vpc": {"subnets": subnets, "securityGroupIDs": groups}}
    if wrong is None:
        assert SageMaker.model_validate(block).vpc is not None
        return
    with pytest.raises(ValidationError, match=wrong):
        SageMaker.model_validate(block)


@pytest.mark.parametrize("name", ["by-hand", "My_Deployment.1", "x", "a" * 64, "0"])
def test_a_deployment_is_attached_by_any_name_that_it_can_have(name: str) -> None:
    assert Attach.model_validate({"id": name}).id == name


@pytest.mark.parametrize(
    "name", ["", " ", "by hand", "by-hand ", "arn:aws:sagemaker:us-east-1:1:endpoint/x", "-x", "größe"]
)
def test_what_no_deployment_is_called_is_not_attached(name: str) -> None:
    with pytest.raises(ValidationError, match="id"):
        Attach.model_validate({"id": name})
