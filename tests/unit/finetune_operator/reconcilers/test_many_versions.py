"""Many jobs of one model: one write for all that wait, a number for each, and nothing doubled by what comes between."""

from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.job_status import FineTuneJobStatus, ProviderStatus
from finetune_api.model import FineTunedModelStatus
from finetune_operator.decide import model_size
from finetune_operator.decide.job.status_size import LIMIT_BYTES
from finetune_operator.decide.job.versions import LAST_NUMBER, MOST_VERSIONS
from finetune_operator.decide.job.versions import registered as registered_in
from finetune_operator.decide.model_size import ALWAYS_FITTING
from finetune_operator.runtime.errors import Transient
from finetune_operator.runtime.kube import FINE_TUNED_MODELS, JOBS
from finetune_operator.runtime.queue import Key
from tests.unit.finetune_operator.decide.given import run, succeeded, view
from tests.unit.finetune_operator.decide.given_models import large
from tests.unit.finetune_operator.reconcilers.fake_cluster import JOB, MODEL, Cluster, with_running_job

registered = partial(registered_in, room=model_size.room)
NAMES = [f"sentiment-{number}" for number in range(1, 6)]


async def with_ended_jobs() -> Cluster:
    """Five jobs of one model whose pods have all made their artifact; the operator does not know yet."""
    cluster = await with_running_job()
    for name in NAMES[1:]:
        cluster.add_job(name)
    await cluster.settle()
    for name in NAMES[1:]:
        cluster.run_pod(job=name)
    await cluster.settle()
    for name in NAMES:
        cluster.end_pod(0, cluster.result(job=name), job=name)
    cluster.kube.requests.clear()
    return cluster


def versions(cluster: Cluster) -> dict[str, int]:
    return {version["job"]: version["version"] for version in cluster.status(MODEL)["versions"]}


async def test_jobs_that_end_together_become_versions_and_one_of_them_active_by_one_write() -> None:
    cluster = await with_ended_jobs()
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {}})
    await cluster.settle()
    states = [event for event in cluster.kube.requests if event == ("patch_status", "finetunedmodels")]
    assert sorted(versions(cluster).values()) == [1, 2, 3, 4, 5]
    assert cluster.status(MODEL)["activeVersion"] == 5
    told = {name: cluster.status(Key(JOB.kind, "team-a", name))["modelVersion"] for name in NAMES}
    assert told == versions(cluster)
    # One for the versions, one for the deployment that follows.
    assert len(states) <= 2
    assert cluster.kube.asked("get", "finetunedmodels") == 0


async def test_a_result_waits_only_for_those_of_jobs_that_are_under_way() -> None:
    cluster = await with_ended_jobs()
    await cluster.settle()
    waits = [seconds for key, seconds in cluster.put_off if key == MODEL]
    assert waits == pytest.approx([1.2, 0.9, 0.6, 0.3, 0]), "the last one of five"
    cluster.put_off.clear()
    cluster.add_job("sentiment-6")
    await cluster.settle()
    cluster.run_pod(job="sentiment-6")
    cluster.end_pod(0, cluster.result(job="sentiment-6"), job="sentiment-6")
    await cluster.settle()
    assert [seconds for key, seconds in cluster.put_off if key == MODEL] == [0], "alone"


@pytest.mark.parametrize("ends", ["with a version", "without one"])
async def test_a_result_waits_no_longer_than_until_all_others_have_ended(ends: str) -> None:
    """One that has its version counts as under way until its own status says so, and nothing comes of it any more."""
    cluster = await with_running_job()
    cluster.add_job("sentiment-2")
    await cluster.settle()
    cluster.run_pod(job="sentiment-2")
    await cluster.settle()
    other, last = JOB, Key(JOB.kind, "team-a", "sentiment-2")
    if ends == "with a version":
        cluster.end_pod(0, cluster.result())
        cluster.hear()
        await cluster.reconcile(cluster.queue.pop(cluster.queue.index(other)))
        await cluster.reconcile(cluster.queue.pop(cluster.queue.index(MODEL)))
    else:
        cluster.end_pod(ExitCode.DATASET_INVALID)
    cluster.end_pod(0, cluster.result(job="sentiment-2"), job="sentiment-2")
    cluster.hear()
    cluster.put_off.clear()
    await cluster.reconcile(last)
    assert cluster.put_off == [(MODEL, 0.3)], "the other one has not ended by its status"
    await cluster.reconcile(other)
    assert cluster.put_off == [(MODEL, 0.3), (MODEL, 0)]
    await cluster.settle()
    assert cluster.status(last)["phase"] == "Succeeded"


async def test_a_result_that_comes_while_others_are_written_is_not_turned_away() -> None:
    """Nobody has looked for room for it yet."""
    cluster = await with_ended_jobs()
    last = Key(JOB.kind, "team-a", NAMES[-1])
    cluster.hear()
    for name in NAMES[:-1]:
        await cluster.reconcile(Key(JOB.kind, "team-a", name))
    write = cluster.kube.patch_status

    async def beside(resource: Any, *arguments: Any) -> Any:
        if resource is FINE_TUNED_MODELS:
            cluster.kube.patch_status = write  # type: ignore[method-assign]
            await cluster.reconcile(last)
        return await write(resource, *arguments)

    cluster.kube.patch_status = beside  # type: ignore[method-assign]
    await cluster.reconcile(MODEL)
    await cluster.reconcile(last)  # the model's own next look waits for others
    assert sorted(versions(cluster)) == NAMES[:-1]
    assert ("FineTuneJob", "Warning", "ModelFull") not in cluster.told
    await cluster.settle()
    assert sorted(versions(cluster)) == NAMES


async def test_a_store_that_is_behind_is_asked_for_and_numbers_stay_unique() -> None:
    cluster = await with_ended_jobs()
    metadata = {"name": "sentiment", "namespace": "team-a"}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": {}})
    cluster.hear()
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": {}, "status": {"latestVersion": 7}})
    cluster.kube.events.clear()
    await cluster.settle()
    assert sorted(versions(cluster).values()) == [8, 9, 10, 11, 12]


@pytest.mark.parametrize("served", [0, 1, 2, 3, 4, 5])
async def test_a_crash_between_any_two_writes_gives_no_job_a_second_version(served: int) -> None:
    cluster = await with_ended_jobs()
    cluster.kube.failing_writes = [False] * served + [True]
    try:
        await cluster.settle()
    except Transient:
        cluster.restart()
        await cluster.observer.resync()
        await cluster.settle()
    assert sorted(versions(cluster)) == NAMES
    assert sorted(versions(cluster).values()) == [1, 2, 3, 4, 5]
    assert {cluster.status(Key(JOB.kind, "team-a", name))["phase"] for name in NAMES} == {"Succeeded"}


async def test_a_model_that_is_deleted_while_versions_are_written_is_made_anew_with_them() -> None:
    cluster = await with_ended_jobs()
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {}})
    cluster.hear()
    cluster.kube.drop(FINE_TUNED_MODELS, "sentiment")
    cluster.kube.events.clear()
    await cluster.settle()
    assert sorted(versions(cluster)) == NAMES


async def test_weights_are_not_deleted_before_their_version_is_recorded() -> None:
    """A number that no status has may be given to another job's version after a crash."""
    cluster = await with_ended_jobs()
    cluster.kube.put(
        FINE_TUNED_MODELS, {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": {"historyLimit": 1}}
    )
    cluster.hear()
    cluster.kube.failing_writes = [True]
    with pytest.raises(Transient):
        await cluster.settle()
    assert not any("prune" in key[2] for key in cluster.kube.objects if key[0] is JOBS)


def full(connection: str, **spec: Any) -> dict[str, Any]:
    """A model of as many versions as its status holds."""
    status = large(active=100, count=MOST_VERSIONS).wire() | {"latestVersion": MOST_VERSIONS}
    status["versions"] = [one | {"connection": connection} for one in status["versions"]]
    return {"metadata": {"name": "sentiment", "namespace": "team-a"}, "spec": spec, "status": status}


async def test_results_wait_for_room_that_history_makes_and_their_jobs_say_so() -> None:
    cluster = await with_ended_jobs()
    cluster.kube.put(FINE_TUNED_MODELS, full("local", historyLimit=2))
    await cluster.settle()
    for name in NAMES:
        waits = cluster.status(Key(JOB.kind, "team-a", name))
        (told,) = [one for one in waits["conditions"] if one["type"] == "Reconciling"]
        assert (told["status"], told["reason"], waits.get("failure")) == ("True", "Pending", None)
        assert waits["phase"] == "Running", "its data were read long ago"
        assert told["message"].startswith("its result waits: FineTunedModel sentiment has 200 versions, and no room")
    for prune in [key for key in cluster.kube.objects if key[0] is JOBS and "prune" in key[2]]:
        cluster.kube.change(JOBS, prune[2], status={"conditions": [{"type": "Complete", "status": "True"}]})
    await cluster.settle()
    assert {cluster.status(Key(JOB.kind, "team-a", name))["phase"] for name in NAMES} == {"Succeeded"}
    assert sorted(versions(cluster)[name] for name in NAMES) == [201, 202, 203, 204, 205]


async def test_results_that_wait_say_what_keeps_history_from_making_room() -> None:
    cluster = await with_ended_jobs()
    cluster.kube.put(FINE_TUNED_MODELS, full("gone", historyLimit=2))
    await cluster.settle()
    failure = cluster.status(JOB)["failure"]
    assert failure["reason"] == "ModelFull"
    assert "weights of older ones cannot be deleted: LLMConnection gone does not exist" in failure["message"]
    assert "LLMConnection" in failure["nextStep"]


async def test_results_for_which_nobody_makes_room_say_what_helps_and_nobody_is_asked_all_the_time() -> None:
    cluster = await with_ended_jobs()
    status = registered(FineTunedModelStatus(active_version=1), named_at_length())
    status = model_size.fit(registered(status, [job(number) for number in range(500, 510)]))
    assert len(status.versions or ()) < 100
    metadata = {"name": "sentiment", "namespace": "team-a"}
    spec = {"historyLimit": 100, "activation": "Manual"}
    cluster.kube.put(FINE_TUNED_MODELS, {"metadata": metadata, "spec": spec, "status": status.wire()})
    await cluster.settle()
    failure = cluster.status(JOB)["failure"]
    assert failure["reason"] == cluster.condition("Stalled")["reason"] == "ModelFull"
    assert f"has {len(status.versions or ())} versions, and no room in its status for more" in failure["message"]
    assert failure["nextStep"].startswith("Lower spec.historyLimit of the FineTunedModel")
    cluster.kube.requests.clear()
    await cluster.wait(600)
    assert not [verb for verb, _ in cluster.kube.requests if verb.startswith("patch")]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=spec | {"historyLimit": 1})
    await cluster.settle()
    assert (cluster.status(JOB)["phase"], cluster.status(JOB).get("failure")) == ("Succeeded", None)


async def test_a_number_after_which_none_comes_is_told_and_a_corrected_one_gives_the_version() -> None:
    cluster = await with_ended_jobs()
    metadata = {"name": "sentiment", "namespace": "team-a"}
    model = {"metadata": metadata, "spec": {}, "status": {"latestVersion": LAST_NUMBER}}
    cluster.kube.put(FINE_TUNED_MODELS, model)
    await cluster.settle()
    failure = cluster.status(JOB)["failure"]
    assert (failure["reason"], str(LAST_NUMBER) in failure["message"]) == ("ModelFull", True)
    assert "kubectl edit ftm sentiment --subresource=status" in failure["nextStep"]
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", status={"latestVersion": 7})
    await cluster.settle()
    assert sorted(versions(cluster).values()) == [8, 9, 10, 11, 12]
    assert cluster.status(JOB)["phase"] == "Succeeded"


def named_at_length() -> list[Any]:
    return [_named_at_length(number) for number in range(MOST_VERSIONS)]


def _named_at_length(number: int) -> Any:
    name = f"{number:03d}-{'x' * 240}"
    status = FineTuneJobStatus(provider=ProviderStatus(artifact_uri=f"pvc://models/{name}"))
    return replace(job(number), name=name, uid=f"long-{number}", status=status)


def test_as_many_versions_are_taken_as_status_has_room_for() -> None:
    long = named_at_length()
    status = registered(FineTunedModelStatus(), long)
    count = len(status.versions or ())
    assert ALWAYS_FITTING < count < MOST_VERSIONS
    assert len(orjson.dumps(model_size.fit(status).wire())) <= LIMIT_BYTES
    assert registered(status, long[count:]) == status
    assert status.latest_version == count


def job(number: int) -> Any:
    return view(run("Succeeded", report=succeeded()), uid=f"uid-{number}", name=f"job-{number}")


async def test_a_status_of_a_hundred_versions_is_written_within_its_size_and_once() -> None:
    cluster = Cluster()
    metadata = {"name": "sentiment", "namespace": "team-a"}
    model = {"metadata": metadata, "spec": {"historyLimit": 100}, "status": large(active=100).wire()}
    cluster.kube.put(FINE_TUNED_MODELS, model)
    await cluster.settle()
    status = cluster.status(MODEL)
    assert len(status["versions"]) == 100
    assert len(orjson.dumps(status)) <= 64 * 1024
    cluster.kube.requests.clear()
    cluster.wake(MODEL)
    await cluster.settle()
    assert cluster.kube.asked("patch_status", "finetunedmodels") == 0


def test_what_does_not_fit_into_status_waits() -> None:
    status = registered(FineTunedModelStatus(), [job(number) for number in range(MOST_VERSIONS + 3)])
    assert len(status.versions or ()) == MOST_VERSIONS
    assert registered(status, [job(MOST_VERSIONS)]) == status
    room = status.model_copy(update={"versions": (status.versions or [])[2:]})
    again = registered(room, [job(number) for number in (MOST_VERSIONS, MOST_VERSIONS + 1, MOST_VERSIONS + 2)])
    assert [version.version for version in again.versions or ()][-2:] == [MOST_VERSIONS + 1, MOST_VERSIONS + 2]


def test_a_job_that_has_its_version_gets_no_second_one() -> None:
    status = registered(FineTunedModelStatus(), [job(1)])
    assert registered(status, [job(1)]) == status
    assert [version.version for version in registered(status, [job(1), job(2)]).versions or ()] == [1, 2]


def test_most_versions_is_what_the_status_holds() -> None:
    field = FineTunedModelStatus.model_json_schema()["properties"]["versions"]
    assert next(kind["maxItems"] for kind in field["anyOf"] if "maxItems" in kind) == MOST_VERSIONS
