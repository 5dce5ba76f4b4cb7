"""Models of Bedrock by their ARNs, in any partition of AWS, and where the services of a region are."""

from functools import cache

import pytest
from botocore.session import Session

from finetune_api.aws import Bedrock, SageMaker, partition_of
from finetune_api.bedrock import family_of
from finetune_api.catalogue import Catalogue
from finetune_api.connection import LLMConnectionSpec
from finetune_api.provider_fields import unsupported_fields
from tests.unit.finetune_operator.decide.given import bedrock_connection, job_spec

RUNTIMES = ("bedrock-runtime", "sagemaker-runtime")
NOVA = "amazon.nova-micro-v1:0:128k"
ARNS = {
    "of AWS": f"arn:aws:bedrock:us-east-1::foundation-model/{NOVA}",
    "of China": f"arn:aws-cn:bedrock:cn-north-1::foundation-model/{NOVA}",
    "of the US government": f"arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{NOVA}",
    "of what was tuned": f"arn:aws:bedrock:us-east-1:123456789012:custom-model/{NOVA}/abcdefghijkl",
}
PRICES = {
    "training": {"perMillionTokens": "1.00", "asOf": "2026-11-01"},
    "answers": {
        "base": {"input": "1", "output": "2"},
        "tuned": {"input": "3", "output": "4"},
        "asOf": "2026-11-01",
    },
}


@pytest.mark.parametrize("name", ARNS)
def test_a_model_has_family_and_price_by_its_arn_too(name: str) -> None:
    facts = Catalogue.model_validate({"providers": {"bedrock": {"models": {"amazon.nova-*": PRICES}}}}).of("bedrock")
    found = facts.model(ARNS[name])
    assert family_of(ARNS[name]) == family_of(NOVA)
    assert found.training == facts.model(NOVA).training
    assert found.answers is not None
    assert found.answers.base.input == ("3" if "custom" in ARNS[name] else "1")


@pytest.mark.parametrize(
    ("base", "region", "taken"),
    [
        (NOVA, "us-east-1", True),
        (ARNS["of AWS"], "us-east-1", True),
        (ARNS["of AWS"], "us-west-2", False),
        (ARNS["of the US government"], "us-gov-west-1", True),
        (ARNS["of the US government"], "us-east-1", False),
        (ARNS["of what was tuned"], "us-east-1", True),
        (ARNS["of what was tuned"], "eu-west-1", False),
    ],
)
def test_a_base_model_is_one_of_the_connections_region(base: str, region: str, taken: bool) -> None:
    spec = bedrock_connection().model_dump(by_alias=True, exclude_none=True)
    partition = partition_of(region)
    block = {**spec["bedrock"], "region": region, "roleARN": f"arn:{partition}:iam::123456789012:role/tuning"}
    connection = LLMConnectionSpec.model_validate({"bedrock": block})
    job = job_spec(baseModel=base)
    said = [sentence for sentence in unsupported_fields(job, "bedrock", connection) if "region" in sentence]
    assert said == (
        []
        if taken
        else [
            f"spec.baseModel: it is a model of {base.split(':')[3]}, and the connection's "
            f"region is {region}; write one of that region"
        ]
    )
    assert not [sentence for sentence in unsupported_fields(job, "bedrock") if "region" in sentence]


@cache
def sdk() -> Session:
    found = Session()
    found.set_credentials("key", "secret")
    return found


REGIONS = [
    (partition, region)
    for partition in sdk().get_available_partitions()
    for region in sdk().get_available_regions("s3", partition)
]


@pytest.mark.parametrize(("partition", "region"), REGIONS)
def test_every_region_that_the_sdk_knows_is_of_its_partition_and_has_its_addresses(partition: str, region: str) -> None:
    block = {
        "region": region,
        "roleARN": f"arn:{partition}:iam::123456789012:role/tuning",
        "s3": {"bucket": "tuning"},
        "credentials": {"podIdentity": True},
    }
    serving = {"trainerImage": "image", "instanceTypes": ["ml.g5.xlarge"]}
    assert partition_of(region) == partition
    known = {name: sdk().create_client(name, region_name=region).meta.endpoint_url for name in RUNTIMES}
    assert {
        "bedrock-runtime": Bedrock.model_validate(block).runtime_url,
        "sagemaker-runtime": SageMaker.model_validate(block | serving).runtime_url,
    } == known
