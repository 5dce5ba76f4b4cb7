"""The four providers side by side, for properties that hold at each."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from finetune_operator.providers.calls.errors import TryLater
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNED_MODELS
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, bedrock, conversations
from tests.unit.finetune_operator.reconcilers.cloud import KEY, AzureCluster, CloudCluster, azure, rows, simulator
from tests.unit.finetune_operator.reconcilers.sagemaker import KEYS, SageMakerCluster, sagemaker

BY_MARK = b"\xef\xbb\xbf" + rows()
"""With a byte order mark, as Azure requires."""


class At(NamedTuple):
    """A provider: how its cluster is created, what is sent to it, and how to inspect it."""

    cluster: Callable[[Any, str], CloudCluster]
    simulator: Callable[[str], Any]
    content: bytes
    create: str
    jobs: Callable[[Any], dict[str, Any]]
    stopped: str
    revoked: dict[str, Any]
    template: dict[str, Any]
    """Of its deployments."""

    def states(self, provider: Any) -> list[str]:
        """Of all jobs there."""
        return [job.status for job in self.jobs(provider).values()]

    def begin(self, provider: Any, url: str, **fields: Any) -> CloudCluster:
        """A cluster with a job whose model is deployed as the provider needs it."""
        made = self.cluster(provider, url)
        metadata = {"name": "sentiment", "namespace": "team-a"}
        made.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": {"deployment": {"template": self.template}}})
        made.add_cloud_job(**fields)
        return made

    async def stop(self, cluster: CloudCluster, job: str) -> None:
        """Stop the job as a user in the provider's console would."""
        connection = next(name for resource, _, name in cluster.kube.objects if resource is CONNECTIONS)
        with suppress(TryLater):  # it takes a while
            await cluster.accounts.of(connection).call(lambda api: api.cancel(job))

    async def submit(self, cluster: CloudCluster) -> None:
        """Run from the check to the provider's job."""
        await cluster.settle()
        await cluster.check(self.content)
        await cluster.settle()


def _of_openai(provider: Any) -> dict[str, Any]:
    found: dict[str, Any] = provider.jobs.jobs
    return found


_AWS_KEYS = {"revoked_keys": [KEYS["accessKeyID"]]}
_TUNE = "fine_tuning.jobs.create"

PROVIDERS = {
    "openai": At(
        CloudCluster, lambda _: simulator(), rows(), _TUNE, _of_openai, "cancelled",
        {"revoked_keys": {KEY}}, {},
    ),
    "azure": At(
        AzureCluster, lambda _: azure(), BY_MARK, _TUNE, _of_openai, "cancelled",
        {"static_tokens": []}, {"azureOpenAI": {"sku": "Standard"}},
    ),
    "bedrock": At(
        BedrockCluster, bedrock, conversations(), "CreateModelCustomizationJob",
        lambda provider: {job.request["jobName"]: job for job in provider.account.jobs.values()},
        "Stopped",
        _AWS_KEYS, {},
    ),
    "sagemaker": At(
        SageMakerCluster, sagemaker, rows(), "CreateTrainingJob", lambda provider: provider.training.found,
        "Stopped",
        _AWS_KEYS, {"sageMaker": {"instanceType": "ml.g5.xlarge"}},
    ),
}  # fmt: skip

QUICK: dict[str, dict[str, int]] = {
    "azure": {"spread_seconds": 0, "deploy_seconds": 100, "delete_seconds": 100},
    "bedrock": {"deploy_seconds": 100, "provision_seconds": 100, "delete_seconds": 100},
    "sagemaker": {"endpoint_seconds": 100, "delete_seconds": 100},
}
"""Settings of simulators that create and delete deployments within two minutes."""


@pytest.fixture(params=list(PROVIDERS))
def at(request: Any) -> At:
    return PROVIDERS[request.param]


@pytest.fixture
async def at_work(at: At, s3_endpoint: str, start: Any) -> CloudCluster:
    """A cluster whose provider runs a job."""
    provider = at.simulator(s3_endpoint)
    made = at.begin(provider, start(provider))
    await at.submit(made)
    return made
