"""Runs in Weights & Biases, by its real client over HTTP: one run per job, numbers only, no training that waits."""

import importlib
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.names import TRACKERS_PREFIX
from finetune_trainer.attempt import trackers, weights_and_biases
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.mlflow_run import LOCAL_UID
from finetune_trainer.training.checkpoint_names import checkpoints_in
from finetune_trainer.training.tuning import checkpoints_of
from tests.unit.finetune_trainer.attempt.wandb_server import KEY, FakeWandB
from tests.unit.finetune_trainer.fake_service import serving
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.output.kept_runs import at_step, run
from tests.unit.finetune_trainer.waiting import wait_until

# Imported by those who use it: it takes five seconds, of each worker that collects this.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs the extra package trackers")


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv(f"{TRACKERS_PREFIX}WANDB_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_LOG_MODEL", "WANDB_WATCH", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")  # put back afterwards
    monkeypatch.setattr(trackers, "LAST_SECONDS", 60.0)
    with serving(FakeWandB()) as found:
        yield found
    importlib.import_module("wandb").teardown()


def job(folder, cache, server, **asked):
    wandb = {"secretRef": {"name": "wandb"}, "project": "colours", "entity": "team", "baseURL": server.address}
    return make_job(
        folder, cache, hyperparameters={"epochs": 2, "checkpointSteps": 3}, trackers={"wandb": wandb | asked}
    )


def steps(server, name: str) -> list[int]:
    return [line["train/global_step"] for line in server.history if name in line]


def test_a_run_has_every_step_and_a_link_and_nothing_of_the_data(server, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_ARTIFACTS_AWS_SECRET_ACCESS_KEY", "hush-hush")
    code, report = run(job(tmp_path, tiny_model, server))
    assert code == ExitCode.OK
    (tracked,) = report.trackers
    assert (tracked.name, tracked.problem) == ("wandb", None)
    assert tracked.url == f"{server.address}/team/colours/runs/1234"
    assert steps(server, "train/loss") == list(range(1, 11))
    assert server.history[-1]["eval/loss"] == pytest.approx(report.loss.last_validation)
    assert (list(server.runs), server.runs["1234"]["displayName"]) == (["1234"], "team-a/colours")
    assert server.runs["1234"]["states"] == [0]
    told = {name: about["value"] for name, about in json.loads(server.runs["1234"]["config"]).items()}
    settings = {"epochs": 2, "batchSize": 8, "schedule": "Cosine", "warmupRatio": 0.03, "learningRate": 0.01}
    assert {name: told.get(name) for name in settings} == settings
    assert (told["lora.r"], told["totalSteps"]) == (16, 10)
    assert not {"num_train_epochs", "lr_scheduler_type", "per_device_train_batch_size"} & told.keys()
    sent = b"\n".join(server.bodies)
    for never in (b"What colour", b"Answer with one word", b"hush-hush", KEY.encode(), os.uname().nodename.encode()):
        assert never not in sent
    assert set(server.files) <= {"config.yaml", "wandb-summary.json"}


def test_a_job_that_fails_after_its_training_is_no_finished_run(server, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune_trainer.train._write_artifact", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    code, report = run(job(tmp_path, tiny_model, server))
    assert (code, report.trackers[0].problem) == (ExitCode.ARTIFACT_FAILED, None)
    assert server.runs["1234"]["states"] == [1]


def test_steps_that_a_killed_attempt_has_told_are_not_told_twice(server, tiny_model, tmp_path):
    asked = job(tmp_path, tiny_model, server)
    assert run(asked, at_step(5, Interruption.request))[0] == ExitCode.INTERRUPTED
    shutil.rmtree(checkpoints_in(checkpoints_of(asked))[-1])  # a kill leaves none of the last step
    code, report = run(asked.model_copy(update={"attempt": 2}))
    assert (code, report.trackers[0].problem) == (ExitCode.OK, None)
    assert (list(server.runs), server.runs["1234"]["states"]) == (["1234"], [255, 0])
    assert steps(server, "train/loss") == list(range(1, 11))
    assert steps(server, "eval/loss") == sorted(set(steps(server, "eval/loss")))


@pytest.mark.alike
@pytest.mark.parametrize("fault", ["break", 401])
def test_a_server_that_does_not_take_it_is_said_and_the_training_goes_on(
    server, tiny_model, tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(weights_and_biases, "INIT_SECONDS", 2.0)
    server.fault = lambda _method, _path: fault
    code, report = run(job(tmp_path, tiny_model, server))
    assert code == ExitCode.OK
    assert "does not answer as it should" in report.trackers[0].problem
    assert report.trackers[0].url is None


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda found, _: setattr(found, "fault", lambda _m, _p: 401), "it does not accept the key in the Secret"),
        (lambda found, _: setattr(found, "fault", lambda _m, _p: 403), "the key in the Secret may not do this"),
        (lambda found, _: setattr(found, "fault", lambda _m, _p: 404), "leads to no server of Weights & Biases"),
        (lambda _, env: env.setenv(f"{TRACKERS_PREFIX}WANDB_API_KEY", "short"), "WANDB_API_KEY is not a key"),
    ],
)
def test_why_its_server_does_not_take_a_run_is_said(server, tiny_model, tmp_path, monkeypatch, spoil, why):
    spoil(server, monkeypatch)
    asked = job(tmp_path, tiny_model, server).model_copy(update={"uid": tmp_path.name})  # its client knows the others
    with pytest.raises(Exception, match=r"run|key") as raised:
        weights_and_biases.integration(asked)
    assert trackers._cause(raised.value).endswith(why)


@pytest.mark.parametrize(
    ("its_words", "why"),
    [
        ("dial tcp 10.0.0.1:443: connect: connection refused", "nothing listens at its address"),
        ("dial tcp: lookup wandb.invalid on 10.0.0.10:53: no such host", "its name cannot be resolved"),
        ("giving up after 1 attempt(s): context deadline exceeded", "it takes too long"),
    ],
)
def test_why_its_server_is_not_heard_is_said_and_no_address(its_words, why):
    errors = importlib.import_module("wandb.errors")
    said = trackers._cause(
        errors.CommError(f"Failed to get resume status: POST http://wandb.invalid/graphql {its_words}")
    )
    assert said == f"it does not answer as it should (CommError): {why}"


def test_a_server_that_takes_the_run_and_not_its_steps_is_said(server, tiny_model, tmp_path):
    server.fault = lambda _method, path: 403 if "file_stream" in path else None
    code, report = run(job(tmp_path, tiny_model, server))
    assert code == ExitCode.OK
    assert "some steps are missing" in report.trackers[0].problem
    assert report.trackers[0].url


def test_a_server_that_goes_away_in_the_middle_is_said(server, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_and_biases, "FINISH_SECONDS", 2.0)

    def goes(_interruption):
        wait_until(lambda: server.runs, what="no run came")
        server.fault = lambda _method, _path: 500

    code, report = run(job(tmp_path, tiny_model, server), at_step(3, goes))
    assert code == ExitCode.OK
    assert "some steps are missing" in report.trackers[0].problem


def test_an_air_gapped_site_asks_nobody_outside(server, tiny_model, tmp_path):
    code, report = run(job(tmp_path, tiny_model, server, baseURL=None))
    assert code == ExitCode.OK
    assert report.trackers[0].problem.startswith("this site is air-gapped: name a server inside")
    assert not server.asked


def test_a_secret_without_the_key_is_said(server, tiny_model, tmp_path, monkeypatch):
    monkeypatch.delenv(f"{TRACKERS_PREFIX}WANDB_API_KEY")
    said = []
    code, report = run(
        job(tmp_path, tiny_model, server), lambda report, _: said.append((report.phase, report.trackers))
    )
    assert (code, report.trackers[0].problem) == (ExitCode.OK, "the Secret of trackers.wandb has no WANDB_API_KEY")
    assert ("Validating", report.trackers) in said, "it is told before anything is loaded"


def test_offline_the_run_is_in_files_that_can_be_sent_later_and_nobody_is_asked(
    server, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv(f"{TRACKERS_PREFIX}WANDB_API_KEY")
    asked = job(tmp_path, tiny_model, server)
    code, report = run(asked)
    assert code == ExitCode.OK
    assert [(one.name, one.url, one.problem) for one in report.trackers] == [("wandb", "wandb", None)]
    (kept,) = (Path(asked.output) / "wandb").glob("offline-run-*-1234/run-1234.wandb")
    assert kept.stat().st_size > 0
    assert not server.asked


def test_where_it_is_switched_off_it_is_said(server, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert weights_and_biases.obstacle(job(tmp_path, tiny_model, server)) == "WANDB_MODE is disabled"


def test_without_a_cluster_the_key_is_the_shells_and_each_output_folder_has_a_run_of_its_own(
    server, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.delenv(f"{TRACKERS_PREFIX}WANDB_API_KEY")
    one, other = (
        job(tmp_path / name, tiny_model, server).model_copy(update={"uid": LOCAL_UID}) for name in ("one", "other")
    )
    assert weights_and_biases.obstacle(one) == "this shell has no WANDB_API_KEY"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert weights_and_biases.obstacle(one) is None
    assert weights_and_biases._run_id(one) == weights_and_biases._run_id(one) != weights_and_biases._run_id(other)
    code, report = run(one)
    assert (code, report.trackers[0].problem) == (ExitCode.OK, None)
    assert steps(server, "train/loss") == list(range(1, 11))
