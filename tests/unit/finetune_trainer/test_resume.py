"""A trainer that is killed with SIGKILL goes on from its checkpoint and ends with the very same model and losses.

What has to be killed is a process of its own; all else is the same command in this one, which has torch already.
"""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exit_codes import ExitCode
from finetune_api.names import JOB_VARIABLE
from finetune_trainer.__main__ import main
from finetune_trainer.attempt.metrics import Metrics
from tests.unit.finetune_trainer.computing import ranks
from tests.unit.finetune_trainer.jobs import make_job, write_rows

STEPS_PER_EPOCH = 6


def manifest(folder: Path) -> Path:
    """A job of 3 epochs of 6 steps with dropout, whose learning needs the random state too."""
    data = {split: {"uri": (folder / f"{split}.jsonl").as_uri()} for split in ("train", "validation")}
    spec = {
        "connectionRef": {"name": "local"},
        "baseModel": "test/tiny-llama",
        "modelRef": {"name": "colours"},
        "dataset": data,
        "lora": {"dropout": 0.1},
        "hyperparameters": {"epochs": 3, "learningRate": 0.01, "batchSize": 8, "checkpointSteps": 7},
    }
    job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "colours"}, "spec": spec}
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def command(job: Path, output: Path, cache: Path) -> list[str]:
    return ["run", "-f", str(job), "--output", str(output), "--model-cache", str(cache)]


def die_after(step: int, threads: int, arguments: list[str]) -> None:
    """The command in a process of its own that is killed when it has done this step: nobody has to be quick enough."""
    torch.set_num_threads(threads)
    add = Metrics.add

    def add_and_die(record: Metrics, **line: object) -> None:
        add(record, **line)
        if line["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Metrics.add = add_and_die  # type: ignore[method-assign]
    main(arguments)


def steps_done(output: Path) -> int:
    record = output / "metrics.jsonl"
    return record.read_text().count('"loss"') if record.exists() else 0


def test_trap_10_killed_in_the_middle_of_epoch_2_it_ends_as_if_it_had_not_been(tiny_model, tmp_path, capfd):
    write_rows(tmp_path / "train.jsonl", 8 * STEPS_PER_EPOCH, seed=1)
    write_rows(tmp_path / "validation.jsonl", 16, seed=2)
    job, straight, killed = manifest(tmp_path), tmp_path / "straight", tmp_path / "killed"

    middle = STEPS_PER_EPOCH * 3 // 2
    arguments = (middle, torch.get_num_threads(), command(job, killed, tiny_model))
    process = ranks.context().Process(target=die_after, args=arguments)
    process.start()
    assert ranks.ended([process]) == [-signal.SIGKILL]
    assert steps_done(killed) == middle
    assert not (killed / "model").exists()
    os.truncate(killed / "metrics.jsonl", 100)  # a checkpoint has what was lost of it

    for output in (killed, straight):
        assert main(command(job, output, tiny_model)) == ExitCode.OK
        assert "finetune-trainer serve --model" in capfd.readouterr().out
    weights = [load_file(output / "model" / "adapter_model.safetensors") for output in (straight, killed)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert (straight / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()


def test_train_takes_its_job_from_the_environment(tiny_model, tmp_path, monkeypatch, capfd):
    job = make_job(tmp_path, tiny_model, splits=("train",)).wire()
    job["spec"]["dataset"]["train"]["uri"] = "pvc://data/absent.jsonl"
    monkeypatch.setenv(JOB_VARIABLE, json.dumps(job))
    assert main(["train"]) == ExitCode.DATASET_NOT_FOUND
    said = capfd.readouterr().err
    assert "DatasetNotFound: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["train", "prepare", "measure"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "SpecInvalid: FINETUNE_JOB is not set: it has a pod's job. By hand: finetune-trainer "),
        ("", "SpecInvalid: FINETUNE_JOB holds no job for this image: all of it. In a pod: take operator and image of "),
        ("[1]", "SpecInvalid: FINETUNE_JOB holds no job for this image: all of it. "),
        ('{"name": 1}', "SpecInvalid: FINETUNE_JOB holds no job for this image: namespace, name, uid, "),
    ],
)
def test_a_pods_command_without_a_job_says_what_to_do_instead(command, given, said, monkeypatch, capfd):
    monkeypatch.delenv(JOB_VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(JOB_VARIABLE, given)
    assert main([command]) == ExitCode.SPEC_INVALID
    told = capfd.readouterr().err
    assert told.startswith(said)
    assert "By hand: finetune-trainer " in told
