"""What a job at SageMaker may have beside its data: the active version, code of its own, several instances."""

import hashlib
from typing import Any

import pytest

from finetune_operator.runtime.kube import FINE_TUNED_MODELS, JOBS
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.sagemaker import SageMakerSimulator
from tests.unit.finetune_operator.reconcilers.cloud import rows
from tests.unit.finetune_operator.reconcilers.fake_cluster import MODEL
from tests.unit.finetune_operator.reconcilers.sagemaker import CREATE, SageMakerCluster, begin, channels, provider

__all__ = ["begin", "provider", "s3_endpoint", "start"]

TEST_SET = {"train": {"uri": "pvc://data/train.csv"}, "test": {"uri": "pvc://data/test.csv"}}
BESIDE = {"baselines": [{"zeroShot": {}}, {"activeVersion": {}}]}


async def second_job(cluster: SageMakerCluster, **fields: Any) -> dict[str, Any]:
    """What the container of a second job of the model is told, and its channels as the job's own look-up shows them."""
    cluster.add_cloud_job("sentiment-2", **fields)
    await cluster.settle()
    await cluster.check(job="sentiment-2")
    await cluster.settle()
    return cluster.containers.told(cluster.request)


async def test_the_active_version_comes_along_where_it_is_compared_with(begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    artifact = cluster.status(MODEL)["versions"][0]["artifact"]
    told = await second_job(cluster, dataset=TEST_SET, evaluation=BESIDE)
    assert told["activeVersion"] == {"version": 1, "sha256": artifact["sha256"]}
    assert channels(cluster.request)["active"] == f"{artifact['uri']}/"


async def test_a_model_that_activates_what_is_better_has_it_compared_unasked(begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    model = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]
    cluster.kube.put(FINE_TUNED_MODELS, model | {"spec": {"activation": "IfBetter"}})
    assert (await second_job(cluster, dataset=TEST_SET))["activeVersion"]["version"] == 1


@pytest.mark.alike
@pytest.mark.parametrize(
    "elsewhere",
    [
        {"connection": "another"},
        {"artifact": {"uri": "s3://theirs/model"}},
        {"artifact": {"uri": "pvc://models/team-a/model"}},
        {"artifact": {"providerModelID": "ft:gpt"}},
        "its files are gone",
    ],
    ids=str,
)
async def test_a_version_that_the_role_may_not_reach_fails_no_job(begin, elsewhere):
    cluster = await begin()
    await cluster.pass_time(3600)
    model = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]
    version = model["status"]["versions"][0]
    if isinstance(elsewhere, dict):
        versions = [version | elsewhere]
        cluster.kube.put(FINE_TUNED_MODELS, model | {"status": model["status"] | {"versions": versions}})
    else:
        for name in cluster.objects.names("team/tuning/models"):
            cluster.objects.s3.delete_object(Bucket=cluster.objects.bucket, Key=name)
    told = await second_job(cluster, dataset=TEST_SET, evaluation=BESIDE)
    assert (told["activeVersion"]["version"], "active" in channels(cluster.request)) == (1, False)


async def test_without_a_test_set_nothing_is_compared(begin):
    cluster = await begin()
    await cluster.pass_time(3600)
    assert "activeVersion" not in await second_job(cluster, evaluation=BESIDE)


CODE = {"configMapRef": {"name": "my-recipe", "key": "train.py"}}


async def with_code(provider: SageMakerSimulator, url: str, **code: Any) -> SageMakerCluster:
    """A cluster whose data are checked, of a job whose pod has brought code as well."""
    cluster = SageMakerCluster(provider, url)
    cluster.allow_code()
    cluster.add_cloud_job(**({"code": CODE} | code))
    await cluster.settle()
    cluster.run_pod()
    await cluster.settle()
    return cluster


async def test_code_of_ones_own_reaches_the_container_and_is_deleted_with_the_data(provider, start):
    cluster = await with_code(provider, start(provider))
    volumes = cluster.kube.objects[JOBS, "team-a", "sentiment-1-1"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "my-recipe"} in [one.get("configMap") for one in volumes]
    code = b'{"files": {}}'
    files = [await cluster.send(rows()), await cluster.send(code, split="code")]
    cluster.end_pod(0, cluster.checked(files))
    await cluster.settle()
    uri = channels(cluster.request)["code"]
    assert (cluster.objects.get(uri), hashlib.sha256(code).hexdigest()[:16] in uri) == (code, True)
    assert cluster.containers.told(cluster.request)["spec"]["code"] == CODE
    await cluster.pass_time(3600)
    assert (cluster.status()["phase"], [name for name in cluster.objects.names() if "-code-" in name]) == (
        "Succeeded", [],
    )  # fmt: skip


async def test_without_its_code_no_job_is_made(provider, start):
    cluster = await with_code(provider, start(provider))
    cluster.end_pod(0, cluster.checked([await cluster.send(rows())]))
    await cluster.settle()
    failure = cluster.status()["failure"]
    assert (failure["reason"], "nothing of spec.code" in failure["message"]) == ("TrainerCrashed", True)
    assert provider.count(CREATE) == 0


async def test_code_that_nobody_asked_for_is_not_taken(provider, start):
    cluster = await with_code(provider, start(provider), code=None)
    with pytest.raises(Refusal, match="no code of its own"):
        await cluster.send(b"{}", split="code")


async def test_code_is_refused_where_no_admin_allows_it(provider, start):
    cluster = SageMakerCluster(provider, start(provider))
    cluster.add_cloud_job(code=CODE)
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "CodeNotAllowed"


async def test_several_instances_train_together_and_all_of_them_are_paid_for(provider, begin):
    provider.set(interrupt_after_seconds=[300])
    cluster = await begin(
        connection={"spot": {"enabled": True, "maxWaitSeconds": 90000}},
        resources={"nodes": 3},
        activeDeadlineSeconds=7200,
    )
    assert cluster.request["ResourceConfig"]["InstanceCount"] == 3
    assert cluster.containers.told(cluster.request)["spec"]["resources"]["nodes"] == 3
    await cluster.pass_time(7200)
    status, job = cluster.status(), next(iter(provider.training.found.values()))
    assert (status["phase"], job.interruptions) == ("Succeeded", 1)
    assert status["cost"]["basis"].startswith("at most 7,200 s of 3 ml.g5.xlarge at 1.41 USD an hour")
    assert (status["cost"]["estimated"], status["cost"]["actual"]) == ("8.46", f"{provider.cost():.2f}")


async def test_a_budget_is_held_against_all_instances(begin):
    cluster = await begin(resources={"nodes": 3}, activeDeadlineSeconds=7200, budget={"maxCost": "5.00"})
    assert cluster.status()["failure"]["reason"] == "BudgetExceeded"
