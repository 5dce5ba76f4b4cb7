"""Models, their deployments and their history over the API port."""

from typing import Any

import pytest

from finetune_api.deployment import ModelDeploymentStatus
from finetune_api.trainer import TrainerJob
from finetune_operator.reconcilers.deployments.deployment import headline
from finetune_operator.runtime.errors import Forbidden
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    EVENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    SERVICES,
)
from finetune_operator.runtime.queue import Key
from tests.unit.finetune_operator.decide.given import stamp
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, MODEL, with_running_job
from tests.unit.finetune_operator.reconcilers.versions import add_version, served_version, with_version

CONNECTION = Key(CONNECTIONS.kind, "", "local")


NO_SECRET = 'MountVolume.SetUp failed for volume "v2" : secret "sentiment-key" not found'


async def test_a_server_whose_secret_is_missing_says_so() -> None:
    cluster = await with_version()
    labels = {"finetune.dev/deployment": "sentiment", "finetune.dev/version": "1"}
    labels["app.kubernetes.io/managed-by"] = "finetune-operator"
    metadata = {"name": "sentiment-x", "namespace": "team-a", "labels": labels}
    pod = cluster.kube.put(PODS, {"metadata": metadata, "status": {"phase": "Pending"}})
    regarding = {"kind": "Pod", "uid": pod["metadata"]["uid"]}
    event = {"metadata": {"name": "a", "namespace": "team-a"}, "regarding": regarding, "note": NO_SECRET}
    cluster.kube.put(EVENTS, {**event, "type": "Warning", "reason": "FailedMount"})
    await cluster.settle()
    await cluster.wait(15)
    assert cluster.condition("Ready", DEPLOYMENT)["message"].endswith(f"; a pod waits: {NO_SECRET}")
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying", "it may come a little later"
    young = metadata | {"name": "sentiment-a", "creationTimestamp": stamp(60)}
    regarding = {"uid": cluster.kube.put(PODS, {"metadata": young, "status": {"phase": "Pending"}})["metadata"]["uid"]}
    event |= {"metadata": {"name": "b", "namespace": "team-a"}, "regarding": regarding}
    cluster.kube.put(EVENTS, {**event, "type": "Warning", "reason": "FailedMount"})
    await cluster.wait(60)
    condition = cluster.condition("Stalled", DEPLOYMENT)
    assert (condition["status"], condition["reason"]) == ("True", "ContainerConfigInvalid")
    assert 'cannot be served: secret "sentiment-key" not found' in condition["message"]
    cluster.kube.change(PODS, "sentiment-x", status={"phase": "Running"})
    cluster.roll_out()
    await cluster.settle()
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"


async def test_the_first_version_is_served() -> None:
    cluster = await with_version()
    assert (SERVICES, "team-a", "sentiment") in cluster.kube.objects
    assert cluster.status(DEPLOYMENT)["phase"] == "Deploying"
    cluster.roll_out()
    await cluster.settle()
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"
    assert cluster.condition("Ready", MODEL)["status"] == "True"
    assert ("ModelDeployment", "Normal", "Serving") in cluster.told
    assert ("FineTunedModel", "Normal", "Activated") in cluster.told


async def test_the_next_version_is_rolled_out_while_the_last_goes_on_answering() -> None:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    await add_version(cluster, 2)
    assert served_version(cluster) == "2"
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status["servedVersion"], status["targetVersion"]) == ("Updating", 1, 2)
    assert cluster.condition("Ready", MODEL)["status"] == "False"
    cluster.roll_out()
    await cluster.settle()
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 2
    assert cluster.condition("Ready", MODEL)["status"] == "True"


async def test_rolling_back_and_coming_forward_again() -> None:
    cluster = await with_version()
    await add_version(cluster, 2)
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"activeVersion": 1})
    await cluster.settle()
    assert served_version(cluster) == "1"
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={})
    await cluster.settle()
    assert served_version(cluster) == "2"


async def test_nothing_is_asked_of_the_api_when_all_is_as_it_should_be() -> None:
    cluster = await with_version(
        deployment={"template": {"huggingFace": {"gpus": 1, "resources": {"limits": {"cpu": 2}}}}}
    )
    cluster.roll_out()
    await cluster.settle()
    cluster.kube.requests.clear()
    for key in (MODEL, DEPLOYMENT, CONNECTION):
        await cluster.reconcile(key)
    assert cluster.kube.requests == []


async def test_a_field_taken_out_of_the_template_reaches_the_deployment() -> None:
    template = {"huggingFace": {"maxModelLength": 512}, "apiKeySecretRef": {"name": "key", "key": "k"}}
    cluster = await with_version(deployment={"template": template})
    applied = cluster.kube.asked("apply", "modeldeployments")
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"template": {"huggingFace": {}}}})
    await cluster.settle()
    assert cluster.kube.asked("apply", "modeldeployments") == applied + 1


async def test_a_change_made_by_hand_is_set_right() -> None:
    cluster = await with_version()
    service = cluster.kube.objects[SERVICES, "team-a", "sentiment"]
    cluster.kube.change(SERVICES, "sentiment", spec={**service["spec"], "selector": {"app": "other"}})
    await cluster.settle()
    selector = cluster.kube.objects[SERVICES, "team-a", "sentiment"]["spec"]["selector"]
    assert selector["finetune.dev/deployment"] == "sentiment"


async def test_a_server_deleted_by_hand_is_made_again() -> None:
    cluster = await with_version()
    cluster.kube.drop(DEPLOYMENTS, "sentiment")
    await cluster.settle()
    assert served_version(cluster) == "1"


@pytest.mark.parametrize("resource", [SERVICES, DEPLOYMENTS])
async def test_a_strangers_object_of_the_same_name_is_not_taken_over(resource: Any) -> None:
    cluster = await with_running_job()
    mine = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"selector": {"app": "mine"}}}
    cluster.kube.put(resource, mine)
    cluster.kube.events = [event for event in cluster.kube.events if event[0] is not resource]
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.kube.objects[resource, "team-a", "sentiment"]["spec"] == mine["spec"]
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "NameConflict"
    assert cluster.condition("Stalled", MODEL)["reason"] == "NameConflict"
    cluster.kube.drop(resource, "sentiment")
    cluster.kube.events.clear()
    await cluster.wait(60)
    assert cluster.condition("Stalled", DEPLOYMENT)["status"] == "False"


async def test_a_server_that_the_api_server_refuses_says_so() -> None:
    cluster = await with_running_job()
    cluster.kube.refusals["apply", "deployments"] = Forbidden(403, "Forbidden", "denied by policy x")
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert "denied by policy x" in cluster.condition("Stalled", DEPLOYMENT)["message"]
    cluster.kube.refusals.clear()
    await cluster.wait(60)
    assert served_version(cluster) == "1"


async def test_in_a_namespace_that_ends_no_deployment_is_made_again() -> None:
    cluster = await with_version()
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") in cluster.kube.objects
    cluster.kube.put(NAMESPACES, {"metadata": {"name": "team-a"}, "status": {"phase": "Terminating"}})
    cluster.kube.drop(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    assert (MODEL_DEPLOYMENTS, "team-a", "sentiment") not in cluster.kube.objects


async def test_a_deployment_that_was_applied_before_its_model_serves_it_as_one_applied_after_it_does() -> None:
    cluster = await with_running_job()
    mine = {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"modelRef": {"name": "sentiment"}}}
    cluster.kube.put(MODEL_DEPLOYMENTS, mine)
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert served_version(cluster) == "1"
    assert (cluster.status(MODEL)["deployment"], cluster.condition("Stalled", MODEL)["status"]) == (
        "sentiment",
        "False",
    )
    assert cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["spec"] == mine["spec"]


async def test_a_deployment_of_another_model_with_the_models_name_is_left_alone_until_it_goes() -> None:
    cluster = await with_running_job()
    metadata = {"name": "sentiment", "namespace": "team-a"}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": metadata, "spec": {"modelRef": {"name": "other"}}})
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.condition("Stalled", MODEL)["reason"] == "NameConflict"
    cluster.kube.drop(MODEL_DEPLOYMENTS, "sentiment")
    await cluster.settle()
    assert served_version(cluster) == "1"


async def test_history_deletes_the_weights_before_it_forgets_the_version() -> None:
    cluster = await with_version(historyLimit=1)
    cluster.roll_out()
    await cluster.settle()
    await add_version(cluster, 2)
    assert [v["version"] for v in cluster.status(MODEL)["versions"]] == [1, 2], "version 1 still answers"
    cluster.roll_out()
    await cluster.settle()
    (prune,) = [key[2] for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]]
    assert [v["version"] for v in cluster.status(MODEL)["versions"]] == [1, 2], "its weights are still being deleted"
    await cluster.reconcile(MODEL)
    cluster.kube.change(JOBS, prune, status={"conditions": [{"type": "Complete", "status": "True"}]})
    await cluster.settle()
    assert [v["version"] for v in cluster.status(MODEL)["versions"]] == [2]
    assert cluster.status(MODEL)["latestVersion"] == 2
    await add_version(cluster, 3)
    assert cluster.status(MODEL)["latestVersion"] == 3


@pytest.mark.parametrize("asks", [{}, {"version": 1}], ids=["serves", "asks"])
async def test_weights_stay_that_a_deployment_needs_of_which_a_newer_release_wrote_the_spec(asks) -> None:
    cluster = await with_version(historyLimit=1)
    cluster.roll_out()
    await cluster.settle()
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={"modelRef": {"name": "sentiment"}, "newer": 1, **asks})
    own = cluster.kube.objects[FINE_TUNED_MODELS, "team-a", "sentiment"]
    cluster.kube.put(FINE_TUNED_MODELS, {**own, "spec": {"historyLimit": 1, "deployment": {"mode": "Manual"}}})
    await cluster.settle()
    assert cluster.condition("Stalled", DEPLOYMENT)["reason"] == "SpecInvalid"
    await add_version(cluster, 2)
    assert not [key for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]]
    assert [v["version"] for v in cluster.status(MODEL)["versions"]] == [1, 2]


async def test_a_result_is_not_given_to_a_model_that_is_on_its_way_out() -> None:
    """As by `kubectl delete --cascade=foreground`: it is there until all that it owns is gone."""
    cluster = await with_running_job()
    going = {"name": "sentiment", "namespace": "team-a", "finalizers": ["foregroundDeletion"]}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": going, "spec": {}})
    cluster.kube.mark_deleted(FINE_TUNED_MODELS, "sentiment")
    cluster.end_pod(0, cluster.result())
    await cluster.settle()
    assert cluster.status()["phase"] != "Succeeded"
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    await cluster.settle()
    assert cluster.status()["phase"] == "Succeeded"
    assert [v["job"] for v in cluster.status(MODEL)["versions"]] == ["sentiment-1"]


async def test_weights_that_were_asked_for_a_moment_ago_are_not_deleted_on_a_late_watchs_word() -> None:
    cluster = await with_version(historyLimit=2)
    await add_version(cluster, 2)
    cluster.roll_out()
    await cluster.settle()
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"historyLimit": 1})
    cluster.hear()
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"historyLimit": 1, "activeVersion": 1})
    await cluster.reconcile(MODEL)
    await cluster.settle()
    assert not [key for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]]
    assert cluster.status(MODEL)["activeVersion"] == 1


async def test_history_keeps_a_version_whose_job_does_not_say_that_it_made_it() -> None:
    cluster = await with_version(historyLimit=2)
    await add_version(cluster, 2)
    cluster.roll_out()
    await cluster.settle()
    cluster.kube.change(FINE_TUNE_JOBS, "sentiment-1", status={})
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"historyLimit": 1})
    cluster.hear()
    await cluster.reconcile(MODEL)
    assert not [key for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]], (
        "it would tell of it again"
    )
    await cluster.settle()
    await cluster.reconcile(MODEL)
    await cluster.settle()
    (prune,) = [key[2] for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]]
    cluster.kube.change(JOBS, prune, status={"conditions": [{"type": "Complete", "status": "True"}]})
    await cluster.settle()
    assert [v["version"] for v in cluster.status(MODEL)["versions"]] == [2]


async def test_a_version_whose_weights_are_being_deleted_is_not_deployed() -> None:
    """Its new servers could not read them; meanwhile the model's own record still has it."""
    cluster = await with_version(historyLimit=1, deployment={"mode": "Manual"})
    await add_version(cluster, 2)
    prunes = [key[2] for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]]
    assert (len(prunes), [v["version"] for v in cluster.status(MODEL)["versions"]]) == (1, [1, 2])
    spec = {"modelRef": {"name": "sentiment"}, "version": 2}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    cluster.roll_out()
    await cluster.settle()
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "version": 1})
    await cluster.settle()
    assert served_version(cluster) == "2"
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["reason"], "has no version 1; there is 2" in stalled["message"]) == ("VersionNotFound", True)


@pytest.mark.parametrize("rolls", [False, True])
async def test_weights_that_a_server_reads_stay_though_its_deployments_status_was_emptied(rolls: bool) -> None:
    """While it cannot be served what is asked for, no status says what is."""
    cluster = await with_version(historyLimit=1, deployment={"mode": "Manual"})
    spec = {"modelRef": {"name": "sentiment"}, "version": 1}
    cluster.kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec})
    await cluster.settle()
    cluster.roll_out(available=0 if rolls else 1)
    await cluster.settle()
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", spec={**spec, "version": 9})
    await cluster.settle()
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", status={})
    await cluster.settle()
    await add_version(cluster, 2)
    assert served_version(cluster) == "1"
    assert not [key for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]]


async def test_a_server_outlives_the_record_of_its_job() -> None:
    cluster = await with_version(deployment={"template": {"huggingFace": {"gpus": 1}}})
    cluster.roll_out()
    await cluster.settle()
    before = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"]
    cluster.kube.objects = {key: obj for key, obj in cluster.kube.objects.items() if key[2] != "sentiment-1"}
    cluster.restart()
    await cluster.observer.resync()
    await cluster.settle()
    assert cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"] == before


async def test_the_status_of_a_connection_is_written_once() -> None:
    cluster = await with_running_job()
    assert cluster.condition("Ready", CONNECTION)["status"] == "True"
    assert cluster.kube.asked("patch_status", "llmconnections") == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({}, {"servedVersion": 1}, ("Normal", "Serving")),
        ({"servedVersion": 1}, {"servedVersion": 2}, ("Normal", "Serving")),
        ({"servedVersion": 1}, {"servedVersion": 1}, None),
        ({"servedVersion": 1}, {}, None),
        ({}, {"stalled": "DeploymentFailed"}, ("Warning", "DeploymentFailed")),
        ({"stalled": "DeploymentFailed"}, {"stalled": "DeploymentFailed"}, None),
        ({"stalled": "DeploymentFailed"}, {"stalled": "ImagePullFailed"}, ("Warning", "ImagePullFailed")),
        ({"stalled": "DeploymentFailed"}, {}, None),
        ({"stalled": "DeploymentFailed"}, {"ready": "Ready"}, ("Normal", "Ready")),
        ({}, {"ready": "Ready"}, None),
        ({"stalled": "DeploymentFailed"}, {"stalled": "DeploymentFailed", "ready": "Ready"}, None),
        ({"servedVersion": 1}, {"servedVersion": 1, "ready": "Ready"}, ("Normal", "Ready")),
        ({"servedVersion": 1, "ready": "Ready"}, {"servedVersion": 1, "ready": "Ready"}, None),
    ],
)
def test_headlines(old: dict[str, Any], new: dict[str, Any], told: tuple[str, str] | None) -> None:
    def status(stalled: str | None = None, ready: str | None = None, **fields: Any) -> ModelDeploymentStatus:
        known = {"status": "True", "message": "m", "lastTransitionTime": "2026-11-21T12:00:00Z"}
        reasons = {"Stalled": stalled, "Ready": ready}
        conditions = [known | {"type": kind, "reason": reason} for kind, reason in reasons.items() if reason]
        return ModelDeploymentStatus.model_validate({**fields, "conditions": conditions})

    found = headline(status(**old), status(**new))
    assert (found[:2] if found else None) == told


@pytest.mark.parametrize(
    ("activation", "baselines", "splits", "handed_over"),
    [
        ("IfBetter", [{"zeroShot": {}}], ("train", "test"), True),
        ("Automatic", [{"activeVersion": {}}], ("train", "test"), True),
        ("Automatic", [{"zeroShot": {}}], ("train", "test"), False),
        ("IfBetter", [{"activeVersion": {}}], ("train",), False),
    ],
)
async def test_a_job_gets_the_active_version_to_be_compared_with(
    activation: str, baselines: list[dict[str, Any]], splits: tuple[str, ...], handed_over: bool
) -> None:
    cluster = await with_version(activation=activation)
    dataset = {split: {"uri": f"pvc://data/{split}.jsonl"} for split in splits}
    cluster.add_job("sentiment-2", dataset=dataset, evaluation={"baselines": baselines})
    await cluster.settle()
    pod = cluster.kube.objects[JOBS, "team-a", "sentiment-2-1"]["spec"]["template"]["spec"]
    variables = {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}
    handed = TrainerJob.model_validate_json(variables["FINETUNE_JOB"]).active_version
    assert (handed is not None) is handed_over
    if handed is not None:
        recorded = cluster.status(MODEL)["versions"][0]["artifact"]["uri"]
        assert (handed.version, f"pvc://{handed.folder.removeprefix('/var/lib/finetune/claims/')}") == (1, recorded)


async def test_a_model_whose_connection_is_gone_says_what_its_deployment_waits_for() -> None:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    cluster.kube.drop(CONNECTIONS, "local", namespace=None)
    await cluster.settle()
    stalled = cluster.condition("Stalled", MODEL)
    assert (stalled["status"], stalled["reason"]) == ("True", "ConnectionNotFound")
    assert "LLMConnection local of version 1 does not exist" in stalled["message"]
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 1, "what answers keeps answering"


async def test_a_connection_that_cannot_be_read_is_not_said_to_be_gone_by_a_deployment_and_serves_again_later() -> None:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    spec = cluster.kube.objects[CONNECTIONS, "", "local"]["spec"]
    cluster.kube.change(CONNECTIONS, "local", None, spec=spec | {"ofANewerRelease": 1})
    await cluster.settle()
    stalled = cluster.condition("Stalled", DEPLOYMENT)
    assert (stalled["status"], stalled["reason"]) == ("True", "ConnectionNotFound")
    assert "cannot read LLMConnection local of version 1" in stalled["message"]
    assert "does not exist" not in stalled["message"]
    assert cluster.status(DEPLOYMENT)["servedVersion"] == 1, "what answers keeps answering"
    cluster.kube.change(CONNECTIONS, "local", None, spec=spec)
    await cluster.settle()
    assert cluster.condition("Ready", DEPLOYMENT)["status"] == "True"


async def test_a_models_deployment_whose_owner_was_taken_off_is_its_own_again() -> None:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    before = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["metadata"]
    bare = {key: value for key, value in before.items() if key != "ownerReferences"}
    cluster.kube.change(MODEL_DEPLOYMENTS, "sentiment", metadata=bare)
    await cluster.settle()
    after = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]["metadata"]
    assert after["ownerReferences"] == before["ownerReferences"]
    assert cluster.condition("Ready", MODEL)["status"] == "True"


async def test_a_pin_on_a_version_that_is_not_there_is_an_event_once() -> None:
    cluster = await with_version()
    cluster.roll_out()
    await cluster.settle()
    event = ("FineTunedModel", "Warning", "VersionNotFound")
    assert event not in cluster.told
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"activeVersion": 9})
    await cluster.settle()
    await cluster.wait(600)
    assert cluster.told.count(event) == 1


async def test_a_pin_on_the_next_version_waits_for_a_job_that_comes_later_and_not_for_one_that_failed() -> None:
    cluster = await with_version()
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"activeVersion": 2})
    await cluster.settle()
    assert cluster.condition("Stalled", MODEL)["status"] == "True"
    cluster.add_job("sentiment-2")
    await cluster.settle()
    await cluster.wait(60)
    told = cluster.condition("Reconciling", MODEL)
    assert (told["status"], "when FineTuneJob sentiment-2 succeeds" in told["message"]) == ("True", True)
    cluster.run_pod(job="sentiment-2")
    cluster.end_pod(65, job="sentiment-2")
    await cluster.settle()
    await cluster.wait(60)
    assert cluster.condition("Stalled", MODEL)["status"] == "True"


async def test_what_keeps_a_deployment_from_serving_is_its_own_event_and_not_the_models_too() -> None:
    cluster = await with_version()
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec={"deployment": {"template": {"azureOpenAI": {}}}})
    await cluster.settle()
    assert cluster.condition("Stalled", MODEL)["reason"] == "SpecInvalid"
    assert [kind for kind, _, reason in cluster.told if reason == "SpecInvalid"] == ["ModelDeployment"]
