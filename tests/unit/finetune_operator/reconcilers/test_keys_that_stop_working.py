"""A ModelDeployment whose connection's key is good no longer: nothing can be seen, which is said; nothing is ended."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import standing
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, bedrock, conversations
from tests.unit.finetune_operator.reconcilers.cloud import (
    KEY,
    AzureCluster,
    CloudCluster,
    azure,
    go_on,
    rows,
    simulator,
)
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT
from tests.unit.finetune_operator.reconcilers.sagemaker import KEYS, SageMakerCluster, sagemaker

__all__ = ["s3_endpoint", "start"]


class At(NamedTuple):
    """A provider, and how its keys are revoked and given back."""

    make: Callable[[Any, str], CloudCluster]
    simulator: Callable[[str], Any]
    content: bytes
    revoked: dict[str, Any]
    template: dict[str, Any]


AWS_KEYS = {"revoked_keys": [KEYS["accessKeyID"]]}
PROVIDERS = {
    "openai": At(CloudCluster, lambda _: simulator(), rows(), {"revoked_keys": {KEY}}, {}),
    "azure": At(
        AzureCluster,
        lambda _: azure(),
        b"\xef\xbb\xbf" + rows(),
        {"static_tokens": []},
        {"azureOpenAI": {"sku": "Standard"}},
    ),
    "bedrock": At(BedrockCluster, bedrock, conversations(), AWS_KEYS, {}),
    "sagemaker": At(SageMakerCluster, sagemaker, rows(), AWS_KEYS, {"sageMaker": {"instanceType": "ml.g5.xlarge"}}),
}


@pytest.fixture(params=list(PROVIDERS))
def at(request: Any) -> At:
    return PROVIDERS[request.param]


@pytest.fixture
async def cluster(at: At, s3_endpoint: str, start: Any) -> AsyncIterator[CloudCluster]:
    """With a model that answers at its provider."""
    provider = at.simulator(s3_endpoint)
    made = at.make(provider, start(provider))
    metadata = {"name": "sentiment", "namespace": "team-a"}
    made.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": {"deployment": {"template": at.template}}})
    made.add_cloud_job()
    await made.settle()
    await made.check(at.content)
    await made.settle()
    await made.pass_time(7200)
    await go_on(made, 1200, step=100)
    assert made.status(DEPLOYMENT)["phase"] == "Ready", made.status(DEPLOYMENT)
    yield made
    await made.aclose()


async def test_it_says_that_nothing_can_be_seen_and_ends_nothing(at: At, cluster: CloudCluster) -> None:
    before, stood = cluster.status(DEPLOYMENT), standing(cluster.provider)
    good = {name: getattr(cluster.provider.settings, name) for name in at.revoked}
    cluster.provider.set(**at.revoked)
    await go_on(cluster, 1400, step=700)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], cluster.condition("Stalled", DEPLOYMENT)["reason"]) == ("Degraded", "CredentialsInvalid")
    assert cluster.condition("Ready", DEPLOYMENT)["status"] == "False"
    assert {name: status[name] for name in ("servedVersion", "endpoint")} == {
        name: before[name] for name in ("servedVersion", "endpoint")
    }
    assert standing(cluster.provider) == stood
    assert cluster.told.count(("ModelDeployment", "Warning", "CredentialsInvalid")) == 1
    cluster.provider.set(**good)
    await go_on(cluster, 1400, step=700)
    assert (cluster.status(DEPLOYMENT)["phase"], standing(cluster.provider)) == ("Ready", stood)
