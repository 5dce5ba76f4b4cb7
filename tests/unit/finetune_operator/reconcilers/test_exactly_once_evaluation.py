"""However the operator is killed and whatever Azure does, an evaluation has one deployment of a model, and leaves none.

As test_exactly_once_hosted, for what is made for an evaluation alone.
"""

from hypothesis import example, given
from hypothesis import strategies as st

from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS, JOBS
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, azure, rows, with_azure_job
from tests.unit.finetune_operator.reconcilers.evaluation import DATASET
from tests.unit.finetune_operator.reconcilers.hosted import FAULTS, GONE, PUT
from tests.unit.finetune_operator.reconcilers.random_lives import (
    JOB,
    courses,
    is_over,
    live,
    live_step,
    of_lives,
    until,
)

POD = (JOBS, "team-a", "sentiment-1-1-eval1")
BY_HAND = {"spec": {"deployment": {"mode": "Manual"}}, "metadata": {"name": "sentiment", "namespace": "team-a"}}
COURSES = courses(FAULTS, (20, 60, 150), kills=6, steps=8)
ENDS = st.sampled_from(["deleted", "asked in vain", "suspended"])


async def begin(provider, url: str) -> AzureCluster:
    """A cluster whose job's model is about to be deployed for its evaluation."""
    cluster = await with_azure_job(provider, url, dataset=DATASET)
    cluster.kube.put(FINE_TUNED_MODELS, BY_HAND)
    await cluster.check(b"\xef\xbb\xbf" + rows())
    await cluster.settle()
    await cluster.pass_time(3600)
    return cluster


def end(cluster: AzureCluster, how: str) -> None:
    if how == "deleted":
        cluster.kube.mark_deleted(FINE_TUNE_JOBS, "sentiment-1")
    elif how == "suspended" or POD not in cluster.kube.objects:
        cluster.change_job(suspend=True)
    else:
        condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
        cluster.kube.change(JOBS, POD[2], status={"conditions": [condition]})


@of_lives(8)
@given(COURSES, COURSES, ENDS)
@example([("fault", {"operation": PUT, "outcome": "cut", "after_commit": True})], [("kill", 1)], "deleted")
@example([("kill", 1), ("wait", 60)], [("fault", {"operation": GONE, "after_commit": True})], "deleted")
@example([("wait", 150)] * 4, [("kill", 0), ("kill", 1), ("kill", 2)], "asked in vain")
def test_each_model_is_deployed_once_and_none_is_left(before, after, how) -> None:
    provider = azure(deploy_seconds=60, spread_seconds=20, delete_seconds=20)

    async def run(url: str) -> None:
        cluster = await begin(provider, url)
        for step in before:
            await live_step(cluster, step)
            require_one_of_each()
        end(cluster, how)
        for step in after:
            await live_step(cluster, step)
            require_one_of_each()
        await until(cluster, lambda: not provider.deployments.found and is_free(cluster))
        await cluster.aclose()

    def require_one_of_each() -> None:
        models = [one.model for one in provider.deployments.found.values()]
        assert len(models) == len(set(models))

    def is_free(cluster: AzureCluster) -> bool:
        """Ended, or suspended with nothing that it would still take care of."""
        suspended = JOB in cluster.kube.objects and cluster.status().get("phase") == "Suspended"
        return suspended or is_over(cluster)

    live(provider, run)
