"""`finetune-trainer run` as a person meets it: lines on stderr, the model's place on stdout, exit codes."""

import argparse
import json
import os
import signal
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.trackers import TrackerState
from finetune_api.trainer import Report
from finetune_trainer import run
from tests.unit.finetune_trainer.jobs import make_job


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def flags(folder, cache, splits=("train", "validation", "test"), **spec):
    job = make_job(folder, cache, splits=splits, **spec)
    manifest = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "colours"}}
    (folder / "job.yaml").write_text(json.dumps(manifest | {"spec": job.spec.wire()}))
    return argparse.Namespace(file=folder / "job.yaml", output=folder / "output", model_cache=cache, code=None)


def test_a_run_says_what_it_does_and_where_the_model_is(tiny_model, tmp_path, capfd):
    args = flags(tmp_path, tiny_model)
    assert run.main(args) == ExitCode.OK
    out, err = capfd.readouterr()
    assert "Data: Every row can be used" in err
    assert "15/15" in err
    assert "validation=" in err
    assert "exactMatch on 12 rows: " in err
    model = tmp_path / "output" / "model"
    assert f"The tuned model is in {model}" in out
    assert f"finetune-trainer serve --model {model} --model-cache {tiny_model}" in out
    assert (model / "manifest.json").is_file()


def test_another_spec_in_the_same_folder_is_refused(tiny_model, tmp_path, capfd):
    assert run.main(flags(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.4})) == ExitCode.OK
    again = flags(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.6})
    assert run.main(again) == ExitCode.SPEC_INVALID
    assert "holds the result of another spec. Choose another output folder" in capfd.readouterr().err


def test_what_only_a_provider_heeds_is_refused(tiny_model, tmp_path, capfd):
    args = flags(tmp_path, tiny_model, splits=("train",), hyperparameters={"learningRateMultiplier": 2})
    assert run.main(args) == ExitCode.SPEC_INVALID
    assert "spec.hyperparameters.learningRateMultiplier: only providers use it" in capfd.readouterr().err
    assert not args.output.exists()


def test_a_folder_with_things_of_somebody_else_is_left_alone(tiny_model, tmp_path, capfd):
    args = flags(tmp_path, tiny_model)
    theirs = args.output / "evaluation" / "notes.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    assert run.main(args) == ExitCode.ARTIFACT_FAILED
    assert "something called evaluation that no run has left there" in capfd.readouterr().err
    assert [path.name for path in args.output.rglob("*")] == ["evaluation", "notes.txt"]


@pytest.mark.parametrize(
    ("output", "words", "step"),
    [
        ("x" * 300, "File name too long", "a shorter path"),
        ("mine", "mine could not be written: File exists", "There is a file where a folder must be"),
        ("mine/out", "mine/out could not be written: Not a directory", "There is a file where a folder must be"),
        ("out", "out/.running could not be written: Is a directory", "a folder in place of a file"),
        ("piped", "piped/.running could not be written: it is a pipe or a device", "a device is neither"),
    ],
)
def test_a_place_that_cannot_be_the_output_folder_is_told(tiny_model, tmp_path, capfd, output, words, step):
    args = flags(tmp_path, tiny_model)
    (tmp_path / "mine").write_text("x")
    (tmp_path / "out" / ".running").mkdir(parents=True)
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / ".running")
    args.output = tmp_path / output
    assert run.main(args) == ExitCode.ARTIFACT_FAILED
    said = capfd.readouterr().err
    assert words in said
    assert step in said


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (os.fsdecode(b"tuned-\xff"), "tuned-\\udcff is not a name in UTF-8"),
        (f"{'天' * 60}/{'天' * 60}", "characters, of at most 1,024"),
    ],
    ids=["no UTF-8", "too long an address"],
)
def test_a_folder_that_is_none_for_the_result_is_refused_before_anything_is_trained(
    tiny_model, tmp_path, capfd, output, said
):
    args = flags(tmp_path, tiny_model)
    args.output = tmp_path / output
    assert run.main(args) == ExitCode.SPEC_INVALID
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("left", "ends", "short"), [("3", 4, True), ("3", 3, False), ("9", 4, False), ("", 4, False), ("x", 4, False)]
)
def test_a_run_knows_whether_the_kernel_ended_the_one_before(
    tiny_model, tmp_path, monkeypatch, left, ends, short, capfd
):
    """By its count of such ends. A run that has ended by itself leaves none, and a machine that was restarted less."""
    args, told = flags(tmp_path, tiny_model), []
    args.output.mkdir()
    (args.output / ".running").write_text(left)
    monkeypatch.setattr(run, "_oom_kills", lambda: ends)
    monkeypatch.setattr(run, "execute", lambda job, *_, **__: told.append((job.short_of_memory, lock_of(args))))
    assert run.main(args) == ExitCode.OK
    assert told == [(short, str(ends))]
    assert lock_of(args) == ""
    capfd.readouterr()


def lock_of(args) -> str:
    return (args.output / ".running").read_text()


def test_the_kernels_count_of_ends_for_want_of_memory_is_read():
    assert run._oom_kills() >= 0
    assert any(line.startswith("oom_kill ") for line in Path("/proc/vmstat").read_text().splitlines())


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(tiny_model, tmp_path, capfd, monkeypatch):
    args = flags(tmp_path, tiny_model, splits=("train",))
    shown = run.Display.show

    def interrupting(self, report):
        shown(self, report)
        if report.progress and report.progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(run.Display, "show", interrupting)
    monkeypatch.setattr("finetune_trainer.attempt.report.Reporter.due", lambda _self: True)
    assert run.main(args) == ExitCode.INTERRUPTED
    assert "Run the same command again to continue" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "output" / "checkpoints").iterdir()] != []
    monkeypatch.setattr(run.Display, "show", shown)
    assert run.main(args) == ExitCode.OK


def test_where_a_tracker_has_the_run_is_said_once_and_what_is_wrong_with_one(capfd):
    tracked = [TrackerState(name="wandb", problem="it is away"), TrackerState(name="tensorBoard", url="tensorboard")]
    report = Report(namespace="a", name="b", uid="c", attempt=1, phase="Running", trackers=tracked)
    display = run.Display()
    display.show(report)
    display.show(report)
    said = capfd.readouterr().err.splitlines()
    assert said == ["warning: spec.trackers.wandb: it is away", "tensorBoard has the run: tensorboard"]


@pytest.mark.parametrize("ran", [True, False])
def test_code_that_has_reported_nothing_was_not_finished_before(ran, capfd):
    about = {"namespace": "a", "name": "b", "uid": "c", "attempt": 1}
    display = run.Display()
    for phase in ["Running"] * ran + ["Succeeded"]:
        display.show(Report.model_validate({**about, "phase": phase}))
    assert ("It was finished before" in capfd.readouterr().err) is not ran


def test_a_wrong_manifest_is_refused_by_field(tmp_path, capfd):
    path = tmp_path / "job.yaml"
    path.write_text("apiVersion: finetune.dev/v1alpha1\nkind: FineTuneJob\nmetadata: {name: x}\nspec: {methd: LoRA}\n")
    args = argparse.Namespace(file=path, output=tmp_path / "output", model_cache=None)
    assert run.main(args) == ExitCode.SPEC_INVALID
    err = capfd.readouterr().err
    assert "spec.methd: no such field; did you mean method?" in err
    assert not (tmp_path / "output").exists()


def test_without_a_cache_and_a_hub_it_says_that_there_is_neither(tiny_model, tmp_path, capfd):
    args = flags(tmp_path, tiny_model)
    args.model_cache = None
    assert run.main(args) == ExitCode.MODEL_NOT_FOUND
    assert "there is no model cache and no hub" in capfd.readouterr().err


def test_nodes_and_gpus_of_a_manifest_are_said_to_count_on_a_cluster(tmp_path, capfd):
    args = flags(tmp_path, tmp_path / "an empty cache", splits=("train",), resources={"nodes": 2, "gpusPerNode": 4})
    assert run.main(args) == ExitCode.MODEL_NOT_FOUND
    assert "one process trains here; nodes and gpusPerNode count on a cluster alone" in capfd.readouterr().err


def test_two_runs_do_not_share_a_folder(tiny_model, tmp_path, capfd, monkeypatch):
    args = flags(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.4})
    codes = []

    def meanwhile(*_args, **_kwargs):
        monkeypatch.undo()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        codes.append(run.main(args))

    monkeypatch.setattr(run, "execute", meanwhile)
    run.main(args)
    assert codes == [ExitCode.ARTIFACT_FAILED]
    assert "output is being written by another run. Wait for its end" in capfd.readouterr().err
    assert run.main(args) == ExitCode.OK


def test_a_full_or_closed_stdout_is_said(tiny_model, tmp_path, monkeypatch, capfd):
    args = flags(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 0.4})
    assert run.main(args) == ExitCode.OK
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert run.main(args) == ExitCode.ARTIFACT_FAILED
    monkeypatch.setattr("sys.stdout", None)
    assert run.main(args) == ExitCode.ARTIFACT_FAILED
    assert "standard output could not be written: it is closed" in capfd.readouterr().err
