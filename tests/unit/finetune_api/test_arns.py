"""Models of Bedrock by their ARNs, in any partition of AWS, and where the services of a region are."""

import pytest

from finetune_api.aws import Bedrock, SageMaker
from finetune_api.bedrock import family_of
from finetune_api.catalogue import Catalogue

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


@pytest.mark.parametrize(("region", "ends"), [("us-gov-west-1", ".amazonaws.com"), ("cn-north-1", ".amazonaws.com.cn")])
def test_services_of_china_are_at_addresses_of_their_own(region: str, ends: str) -> None:
    block = {
        "region": region,
        "roleARN": "arn:aws-cn:iam::123456789012:role/tuning",
        "s3": {"bucket": "tuning"},
        "credentials": {"podIdentity": True},
    }
    serving = {"trainerImage": "image", "instanceTypes": ["ml.g5.xlarge"]}
    assert Bedrock.model_validate(block).runtime_url == f"https://bedrock-runtime.{region}{ends}"
    assert SageMaker.model_validate(block | serving).runtime_url == f"https://runtime.sagemaker.{region}{ends}"
