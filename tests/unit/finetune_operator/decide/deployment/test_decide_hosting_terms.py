"""What a ModelDeployment asks of a provider, and by what it is billed: one row for each kind of deployment."""

from typing import Any

import pytest

from finetune_operator.decide.deployment.hosting_terms import Terms, terms_of
from tests.unit.finetune_operator.decide.deployment.given_deployments import spec

AT_AZURE = {"name_limit": 64, "strict_names": False, "one_at_a_time": True}
HOURLY = {"type": "ProvisionedThroughput", "modelUnits": 2, "commitment": "OneMonth"}
TERMS: dict[str, tuple[dict[str, Any], Terms]] = {
    # the provider's block, its terms
    "none": ({}, Terms()),
    "Bedrock, billed by tokens": ({"bedrock": {"type": "OnDemand"}}, Terms()),
    "Bedrock, by the hour": ({"bedrock": HOURLY}, Terms("OneMonth", 2, kind="p2m")),
    "Bedrock, by the hour, of an object from before these were asked for": (
        {"bedrock": {"type": "ProvisionedThroughput"}},
        Terms("NoCommitment", 1, kind="p1n"),
    ),
    "Bedrock, by the hour, for now": (
        {"bedrock": {"type": "ProvisionedThroughput", "modelUnits": 1, "commitment": "NoCommitment"}},
        Terms("NoCommitment", 1, kind="p1n"),
    ),
    "Azure, a rate": (
        {"azureOpenAI": {"sku": "Standard", "capacity": 50, "name": "mine"}},
        Terms("Standard", 1, "mine", in_place="Standard x 50", **AT_AZURE),
    ),
    "Azure, provisioned units": (
        {"azureOpenAI": {"sku": "ProvisionedManaged", "capacity": 50}},
        Terms("ProvisionedManaged", 50, in_place="ProvisionedManaged x 50", **AT_AZURE),
    ),
}


@pytest.mark.parametrize("kind", TERMS)
def test_every_kind_of_deployment_has_its_price_and_its_way_of_being_changed(kind: str) -> None:
    block, terms = TERMS[kind]
    assert terms_of(spec(**block)) == terms


def test_a_model_that_nothing_is_asked_for_is_on_no_terms() -> None:
    assert terms_of(None) == Terms()


def test_another_release_finds_the_endpoints_of_this_one_by_the_same_name() -> None:
    """A new field of the block, or another hash, would make every endpoint of every user anew at the upgrade."""
    assert terms_of(spec(sageMaker={"instanceType": "ml.g5.xlarge"})).kind == "7774"


def test_endpoints_of_sagemaker_are_billed_by_instance_and_another_wish_is_another_endpoint() -> None:
    one, two = (terms_of(spec(sageMaker={"instanceType": "ml.g5.xlarge", "instances": count})) for count in (1, 2))
    assert [(each.sku, each.units) for each in (one, two)] == [("ml.g5.xlarge", 1), ("ml.g5.xlarge", 2)]
    assert one.kind != two.kind
