"""A ModelDeployment whose connection's key is good no longer: nothing can be seen, which is said; nothing is ended."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import standing
from tests.unit.finetune_operator.reconcilers.at_providers import PROVIDERS, At
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

__all__ = ["s3_endpoint", "start"]


@pytest.fixture(params=list(PROVIDERS))
def at(request: Any) -> At:
    return PROVIDERS[request.param]


@pytest.fixture
async def cluster(at: At, s3_endpoint: str, start: Any) -> AsyncIterator[CloudCluster]:
    """With a model that answers at its provider."""
    provider = at.simulator(s3_endpoint)
    made = at.begin(provider, start(provider))
    await at.submit(made)
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
