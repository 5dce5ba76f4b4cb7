"""A trainer that is killed with SIGKILL goes on from its checkpoint and ends with the very same model and losses."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

from finetune_api.exit_codes import ExitCode
from finetune_api.names import JOB_VARIABLE
from tests.unit.finetune_trainer.jobs import make_job, write_rows

STEPS_PER_EPOCH = 20


def manifest(folder: Path) -> Path:
    """A job of 3 epochs of 20 steps with dropout, whose learning needs the random state too."""
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


def start(job: Path, output: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "finetune_trainer", "run", "-f", job, "--output", output, "--model-cache", cache]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def steps_done(output: Path) -> int:
    record = output / "metrics.jsonl"
    return record.read_text().count('"loss"') if record.exists() else 0


def test_trap_10_killed_in_the_middle_of_epoch_2_it_ends_as_if_it_had_not_been(tiny_model, tmp_path):
    write_rows(tmp_path / "train.jsonl", 8 * STEPS_PER_EPOCH, seed=1)
    write_rows(tmp_path / "validation.jsonl", 16, seed=2)
    job, straight, killed = manifest(tmp_path), tmp_path / "straight", tmp_path / "killed"

    process = start(job, killed, tiny_model)
    deadline = time.monotonic() + 120
    while steps_done(killed) < 1.3 * STEPS_PER_EPOCH:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "it did not get to epoch 2"
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert STEPS_PER_EPOCH < steps_done(killed) < 2 * STEPS_PER_EPOCH
    assert not (killed / "model").exists()

    again, whole = start(job, killed, tiny_model), start(job, straight, tiny_model)
    for process in (again, whole):
        out, err = process.communicate(timeout=120)
        assert process.returncode == ExitCode.OK, err
        assert "finetune-trainer serve --model" in out
    weights = [load_file(output / "model" / "adapter_model.safetensors") for output in (straight, killed)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert (straight / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()


def test_train_takes_its_job_from_the_environment(tiny_model, tmp_path):
    job = make_job(tmp_path, tiny_model, splits=("train",)).wire()
    job["spec"]["dataset"]["train"]["uri"] = "pvc://data/absent.jsonl"
    environment = os.environ | {JOB_VARIABLE: json.dumps(job)}
    done = subprocess.run(
        [sys.executable, "-m", "finetune_trainer", "train"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.DATASET_NOT_FOUND
    assert "DatasetNotFound: " in done.stderr
    assert "Traceback" not in done.stderr


def test_train_without_a_job_says_so():
    environment = os.environ | {JOB_VARIABLE: '{"name": 1}'}
    done = subprocess.run(
        [sys.executable, "-m", "finetune_trainer", "train"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.SPEC_INVALID
    assert "FINETUNE_JOB holds no job for the trainer: namespace" in done.stderr
