"""A ModelDeployment whose connection's key is good no longer: nothing can be seen, which is said; nothing is ended."""

import pytest

from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.flapping import standing
from tests.unit.finetune_operator.reconcilers.at_providers import At, at, at_work
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT

__all__ = ["at", "at_work", "s3_endpoint", "start"]


@pytest.fixture
async def cluster(at_work: CloudCluster) -> CloudCluster:
    """With a model that answers at its provider."""
    await at_work.pass_time(7200)
    await go_on(at_work, 1200, step=100)
    assert at_work.status(DEPLOYMENT)["phase"] == "Ready", at_work.status(DEPLOYMENT)
    return at_work


@pytest.mark.alike
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
