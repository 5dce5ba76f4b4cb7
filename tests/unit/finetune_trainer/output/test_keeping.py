"""Jobs whose output is kept in an object store: each attempt has a node of its own, and nothing gets lost."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer.attempt.fence import StoreFence
from finetune_trainer.attempt.interruption import Interrupted
from finetune_trainer.output import keeping
from finetune_trainer.output.keeping import StoredOutput, output_of_other_rank, output_of_rank_0
from finetune_trainer.storage import store
from finetune_trainer.storage.artifact_store import fetch
from finetune_trainer.storage.durable import read_manifest
from finetune_trainer.storage.store import Store
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.output.kept_runs import at_step, run
from tests.unit.finetune_trainer.waiting import wait_until


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The thread looks a few times a run: each time it reads all files, and asks the store."""
    monkeypatch.setattr(keeping, "PERIOD_SECONDS", 0.15)


class Killed(BaseException):
    """The node is gone: nothing more is done."""


@pytest.fixture(scope="module")
def template(tiny_model, tmp_path_factory):
    return make_job(
        tmp_path_factory.mktemp("kept"),
        tiny_model,
        hyperparameters={"epochs": 4, "checkpointSteps": 4},
        lora={"dropout": 0.1},
    )


@pytest.fixture(scope="module")
def undisturbed(template, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    assert run(template.model_copy(update={"output": str(output)}))[0] == ExitCode.OK
    return output / "model"


def attempt(template, bucket, folder: str, tmp_path: Path, number: int):
    """An attempt of a job on a node of its own."""
    scratch = tmp_path / f"node-{number}"
    changes = {"attempt": number, "output": str(scratch), "store": bucket.ref(folder)}
    return template.model_copy(update=changes)


def same_learning(bucket, folder: str, artifact, undisturbed: Path, tmp_path: Path) -> None:
    """What status says of the artifact fits what is in the store, and that what an undisturbed run has learnt."""
    back = tmp_path / "back"
    fetch(Store(bucket.ref(folder)), artifact.uri.rpartition("/")[2], back, sha256=artifact.sha256)
    weights = [load_file(model / "adapter_model.safetensors") for model in (back, undisturbed)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert (back / "metrics.jsonl").read_text() == (undisturbed / "metrics.jsonl").read_text()


def test_a_job_leaves_its_artifact_in_the_store_and_nothing_else(template, bucket, undisturbed, tmp_path):
    code, report = run(attempt(template, bucket, "plain", tmp_path, 1))
    assert code == ExitCode.OK
    assert report.result.artifact.uri == "s3://models/plain/model-1"
    assert {name.split("/")[0] for name in bucket.names("plain")} == {"model-1", "attempts"}
    same_learning(bucket, "plain", report.result.artifact, undisturbed, tmp_path)


@pytest.mark.alike
def test_an_interrupted_attempt_is_gone_on_with_on_another_node(template, any_bucket, undisturbed, tmp_path):
    first = attempt(template, any_bucket, "moved", tmp_path, 1)
    code, report = run(first, at_step(6, lambda interruption: interruption.request()))
    assert code == ExitCode.INTERRUPTED
    assert report.progress.saved_step >= 6, "what the last upload has brought there counts"
    steps = []
    code, report = run(
        attempt(template, any_bucket, "moved", tmp_path, 2),
        lambda report, _: steps.append(report.progress.step) if report.progress and report.phase == "Running" else None,
    )
    assert code == ExitCode.OK
    assert sorted(steps)[1] >= 6, "what was learnt is not learnt again"
    assert report.result.artifact.uri == f"{any_bucket.root}/moved/model-2"
    same_learning(any_bucket, "moved", report.result.artifact, undisturbed, tmp_path)
    assert {name.split("/")[0] for name in any_bucket.names("moved")} == {"model-2", "attempts"}


def test_on_several_nodes_each_pod_has_the_checkpoint_and_one_rank_brings_it(template, bucket, tmp_path):
    first = attempt(template, bucket, "nodes", tmp_path, 1)
    assert run(first, at_step(6, lambda interruption: interruption.request()))[0] == ExitCode.INTERRUPTED
    before = set(bucket.names("nodes"))
    for rank, comes in {1: False, 2: True, 3: False}.items():
        job = attempt(template, bucket, "nodes", tmp_path / str(rank), 2).model_copy(update={"ranks_per_node": 2})
        with output_of_other_rank(job, rank) as keeping:
            assert keeping.job is job
            assert bool(list(Path(job.output).rglob("checkpoints/*/manifest.json"))) is comes
    assert set(bucket.names("nodes")) == before, "only rank 0 writes there"


def test_a_killed_attempt_is_gone_on_with_from_what_had_reached_the_store(
    template, bucket, undisturbed, tmp_path, monkeypatch
):
    def die_once_kept(_interruption):
        wait_until(
            lambda: any(name.endswith(".json") for name in bucket.names("killed/state")), 120, "no snapshot came"
        )
        raise Killed

    first = attempt(template, bucket, "killed", tmp_path, 1)
    with monkeypatch.context() as dying:
        dying.setattr(StoredOutput, "end", lambda self: self._stop.set())
        with pytest.raises(Killed):
            run(first, at_step(9, die_once_kept))
    code, report = run(attempt(template, bucket, "killed", tmp_path, 2))
    assert code == ExitCode.OK
    same_learning(bucket, "killed", report.result.artifact, undisturbed, tmp_path)


def test_an_attempt_that_died_after_its_upload_is_reported_and_nothing_is_trained(template, bucket, tmp_path):
    _, before = run(attempt(template, bucket, "told", tmp_path, 1))
    code, after = run(attempt(template, bucket, "told", tmp_path, 2))
    assert code == ExitCode.OK
    assert after.progress is None
    assert after.result == before.result
    assert after.result.artifact.uri == "s3://models/told/model-1"
    assert read_manifest(tmp_path / "node-2" / "model")


def test_an_attempt_that_was_given_up_stops_and_writes_nothing_more(template, bucket, tmp_path):
    older = attempt(template, bucket, "fenced", tmp_path, 1)
    code, _ = run(older, at_step(5, lambda _: StoreFence(Store(bucket.ref("fenced")), 2).take()))
    assert code == ExitCode.INTERRUPTED
    assert not [name for name in bucket.names("fenced") if "model-" in name]
    with pytest.raises(Interrupted), output_of_rank_0(older):
        pytest.fail("it began again")


def test_an_artifact_is_not_published_by_an_attempt_that_was_given_up(template, bucket, tmp_path):
    older = attempt(template, bucket, "late", tmp_path, 1)
    with output_of_rank_0(older) as keeping_it:
        StoreFence(Store(bucket.ref("late")), 2).take()
        with pytest.raises(Interrupted):
            keeping_it.publish(None)
    assert not [name for name in bucket.names("late") if not name.startswith("attempts/")]


def test_a_store_that_refuses_ends_the_job_before_anything_is_trained(template, bucket, tmp_path):
    bucket.fault = lambda method, _path: "denied" if method == "PUT" else None
    phases = []
    code, report = run(attempt(template, bucket, "denied", tmp_path, 1), lambda report, _: phases.append(report.phase))
    assert code == ExitCode.ACCESS_DENIED
    assert report.failure.reason == Reason.ACCESS_DENIED
    assert "artifacts.secretRef" in report.failure.next_step
    assert set(phases) == {"Validating", "Failed"}


def test_a_store_that_is_away_for_a_while_does_not_stop_the_training(
    template, bucket, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.0)
    job = attempt(template, bucket, "away", tmp_path, 1)

    def goes_away(_interruption):
        bucket.fault = lambda _method, path: "busy" if "/state/" in path else None

    code, report = run(job, at_step(1, goes_away))
    assert code == ExitCode.OK
    same_learning(bucket, "away", report.result.artifact, undisturbed, tmp_path)
