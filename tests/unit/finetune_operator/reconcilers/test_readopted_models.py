"""A job that is adopted although what it made is a version already: one model, two versions."""

from typing import Any

from finetune_operator.runtime.kube import FINE_TUNED_MODELS
from tests.simulators.conftest import start
from tests.unit.finetune_operator.reconcilers.cloud import begin, go_on, provider
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, MODEL

__all__ = ["begin", "provider", "start"]


async def test_the_model_of_an_active_version_does_not_go_with_an_earlier_version_of_it(provider: Any, begin: Any):
    cluster = await begin()
    spec = {"deletionPolicy": "Delete", "historyLimit": 1, "deployment": {"mode": "Manual"}}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await go_on(cluster, 3600)
    made = cluster.status()["provider"]["jobID"]
    for number in (1, 2):
        cluster.add_cloud_job(f"again-{number}", adopt={"jobID": made})
        await cluster.settle()
        await go_on(cluster, 600)
    status = cluster.status(MODEL)
    assert (status["activeVersion"], [one["version"] for one in status["versions"]]) == (3, [1, 3])
    assert [one.kind for one in provider.left()].count("model") == 1
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert provider.left() == []


async def test_a_job_that_is_adopted_again_says_which_versions_are_the_same_model(begin: Any):
    cluster = await begin()
    await go_on(cluster, 3600)
    made = cluster.status()["provider"]["jobID"]
    assert ("FineTuneJob", "Warning", "AlreadyAVersion") not in cluster.told
    for number in (2, 3):
        cluster.add_cloud_job(f"again-{number}", adopt={"jobID": made})
        await cluster.settle()
        await go_on(cluster, 600)
        said = cluster.condition("Complete", JOB._replace(name=f"again-{number}"))["message"]
        before = {2: "1", 3: "1, 2"}[number]
        assert said == f"version {number} of FineTunedModel sentiment; the same model as version {before}"
        assert cluster.told.count(("FineTuneJob", "Warning", "AlreadyAVersion")) >= number - 1
    assert cluster.condition("Complete")["message"] == "version 1 of FineTunedModel sentiment"
