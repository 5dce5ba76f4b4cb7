"""A trainer that was given up goes on beside its successor, or is frozen and wakes when that has long finished."""

import json
import time
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_trainer.attempt import outcome
from finetune_trainer.attempt.fence import Fence
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.output import artifact, loss_plot
from finetune_trainer.train import execute
from finetune_trainer.training import checkpoint, own_code
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do


@pytest.fixture
def older(tiny_model, tmp_path):
    return make_job(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 1, "checkpointSteps": 2})


def pass_by(job) -> None:
    assert Fence(Path(job.output), job.attempt + 1).take()


def record(job, folder: str = "") -> list[int]:
    return [json.loads(line)["step"] for line in (Path(job.output) / folder / "metrics.jsonl").open()]


def test_it_adds_no_step_to_its_successors_record(older):
    reporter, interruption = Reporter(older, interval=0.0), Interruption()
    original = reporter.update

    def update(**fields):
        original(**fields)
        if fields.get("progress") and fields["progress"].step == 3 and not interruption.is_requested:
            pass_by(older)
            Metrics(Path(older.output) / "metrics.jsonl").keep_until(2)

    reporter.update = update
    work = lambda: execute(older, reporter, interruption, allow_local=True)  # noqa: E731
    assert outcome.run_to_end(work, reporter, interruption) == ExitCode.INTERRUPTED
    assert max(record(older)) == 2
    assert [folder.name for folder in (Path(older.output) / "checkpoints").iterdir()] == ["step-00000002"]


FREEZES = {
    "before the artifact": (loss_plot, "draw"),
    "in the middle of the artifact": (artifact, "save_tokenizer"),
    "in the middle of a checkpoint": (checkpoint, "save_file"),
    "before a step's line": (Metrics, "add"),
}


@pytest.mark.alike
@pytest.mark.parametrize(("module", "name"), FREEZES.values(), ids=FREEZES)
def test_one_that_wakes_after_its_successors_end_leaves_that_ones_result_as_it_is(older, monkeypatch, module, name):
    original, younger = getattr(module, name), older.model_copy(update={"attempt": 2})
    found = {}

    def frozen(*args, **kwargs):
        monkeypatch.setattr(module, name, original)
        code, report, _ = do(younger)
        assert code == ExitCode.OK, report.failure
        found["files"], found["sha256"] = kept(older), report.result.artifact.sha256
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, frozen)
    code, report, _ = do(older)
    assert code != ExitCode.OK
    assert report.phase != "Succeeded"
    assert kept(older) == found["files"]
    assert artifact.sha256_of(Path(older.output) / "model" / "manifest.json") == found["sha256"]
    steps = record(older, "model")
    assert steps == sorted(steps)


def kept(job) -> dict[str, bytes]:
    """All but the record, whose content is in the artifact."""
    folder = Path(job.output)
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in files.items() if str(name) != "metrics.jsonl"}


ENDLESS = """
import os, time
from finetune_trainer import recipe

run = recipe.context()
open({pid!r}, "w").write(str(os.getpid()))
run.report(step=1, total_steps=9, loss=1.0)
time.sleep(600)
"""


def test_code_of_the_users_is_ended_when_it_was_passed(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(own_code, "CHECK_SECONDS", 0.1)
    (tmp_path / "train.py").write_text(ENDLESS.format(pid=str(tmp_path / "pid")))
    code = {"configMapRef": {"name": "recipe", "key": "train.py"}}
    job = make_job(tmp_path, tiny_model, code=code).model_copy(update={"code": str(tmp_path / "train.py")})
    reporter, interruption = Reporter(job, interval=0.0), Interruption()
    original, began = reporter.update, time.monotonic()

    def update(**fields):
        original(**fields)
        if fields.get("progress"):
            pass_by(job)

    reporter.update = update
    work = lambda: execute(job, reporter, interruption, allow_local=True)  # noqa: E731
    assert outcome.run_to_end(work, reporter, interruption) == ExitCode.INTERRUPTED
    assert time.monotonic() - began < 300
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()
