"""However the operator is killed and whatever Azure does, a version has one deployment, and none is left behind.

As test_exactly_once, for what is billed by the hour.
"""

from hypothesis import example, given
from hypothesis import strategies as st

from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, azure, rows, with_azure_job
from tests.unit.finetune_operator.reconcilers.hosted import FAULTS, PUT
from tests.unit.finetune_operator.reconcilers.random_lives import courses, live, live_with_a_model, of_lives

COURSES = courses([*FAULTS, {"operation": "*", "status": 429}], (20, 300, 700), kills=6)


async def begin(provider, url: str) -> AzureCluster:
    """A cluster whose first version is about to be deployed."""
    cluster = await with_azure_job(provider, url)
    template = {"deployment": {"template": {"azureOpenAI": {"sku": "Standard"}}}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": template})
    await cluster.settle()
    await cluster.check(b"\xef\xbb\xbf" + rows())
    await cluster.settle()
    await cluster.pass_time(3600)
    return cluster


@of_lives(12)
@given(COURSES, st.integers(0, 10))
@example([("fault", {"operation": PUT, "after_commit": True}), ("kill", 1), ("wait", 300)], 9)
def test_one_deployment_is_made_and_none_is_left(course, deleted_after) -> None:
    provider = azure()

    async def run(url: str) -> None:
        cluster = await begin(provider, url)
        await live_with_a_model(cluster, course, deleted_after, lambda: len(provider.deployments.found))
        await cluster.aclose()
        assert dict(provider.deployments.found) == {}

    live(provider, run)
