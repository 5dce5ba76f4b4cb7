"""Attempts that end at every boundary of a run, one after the other, come to what an undisturbed one comes to.

A boundary is where something gets its name or loses it, in the output folder or in the store. Each attempt ends at the
first one at which none has ended yet, so that a chain of them has been ended at all.
"""

import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finetune_api.exit_codes import ExitCode
from finetune_api.names import ARTIFACTS_PREFIX, CHECKPOINTS_FOLDER, MANIFEST
from finetune_api.trainer import TrainerJob
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.evaluation.kept import KeptAnswers
from finetune_trainer.output import keeping
from finetune_trainer.storage.artifact_store import fetch
from finetune_trainer.storage.durable import UNFINISHED
from finetune_trainer.storage.store import Store
from finetune_trainer.training.checkpoint_names import newest_step
from tests.unit.finetune_trainer.computing import ranks
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

SPEC: dict[str, Any] = {
    "lora": {"dropout": 0.1},
    "hyperparameters": {"epochs": 1, "checkpointSteps": 2},
    "evaluation": {"maxNewTokens": 4, "baselines": [{"zeroShot": {}}, {"fewShot": {"examples": 2}}]},
    "trackers": {"tensorBoard": {}},
}
NAMING = {"os.rename": 1, "shutil.rmtree": 0, "os.truncate": 0}
"""What Python says before a name comes, goes or is written to, and which argument the name is."""

WRITING = ("put", "put_bytes", "put_last", "remove")
"""The same of a store."""


@dataclass
class Ending:
    """Ends this process at the first boundary that is not in the file of those at which others have ended."""

    seen: Path
    number: signal.Signals
    over: bool = False

    def at(self, boundary: str) -> None:
        """Called right before something happens."""
        known = self.seen.read_text().splitlines() if self.seen.exists() else []
        if self.over or boundary in known:
            return
        self.over = True
        with self.seen.open("a") as file:
            file.write(f"{boundary}\n")
        signal.raise_signal(self.number)

    def before_naming(self, event: str, arguments: tuple[Any, ...], output: str) -> None:
        """Python's audit hook."""
        if event in NAMING and (name := str(arguments[NAMING[event]])).startswith(output):
            name = name.removeprefix(output)
            if UNFINISHED not in name:
                self.at(f"{event} {without_numbers(name)}")


def without_numbers(name: str) -> str:
    return re.sub(r"-?([0-9a-f]{64}|[0-9a-f]{16}|[0-9]+)", "", name)


def part_of(name: str) -> str:
    """Of a job's folder in a store: files of an artifact are alike, but for the last."""
    name = without_numbers(name)
    return name if name.endswith(MANIFEST) else re.sub("^model/.*", "model", name)


def counted(kind: type, note: Callable[..., list[str]], file: Path) -> None:
    """What is added to an object of this kind is written down."""
    add = kind.add  # type: ignore[attr-defined]

    @wraps(add)
    def noted(self: Any, *given: Any, **named: Any) -> None:
        given = tuple(list(one) for one in given)
        add(self, *given, **named)
        with file.open("a") as lines:
            lines.writelines(f"{line}\n" for line in note(self, *given, **named))

    kind.add = noted  # type: ignore[attr-defined]


def learnt(record: Metrics, **line: Any) -> list[str]:
    """A step, and the newest one that had a checkpoint by then."""
    kept = newest_step(record.path.parent / CHECKPOINTS_FOLDER) or 0
    return [f"{line['step']} {kept}"] if "loss" in line else []


def attempt(job: TrainerJob, folder: Path, number: signal.Signals, keys: dict[str, str]) -> None:
    """One attempt, in a process of its own."""
    os.environ |= keys
    keeping.PERIOD_SECONDS = 0.02
    ending = Ending(folder / "boundaries", number)
    counted(Metrics, learnt, folder / "steps")
    counted(KeptAnswers, lambda kept, said: [f"{kept._path.name} {one.row}" for one in said], folder / "answers")
    if job.store is None:
        sys.addaudithook(lambda event, arguments: ending.before_naming(event, arguments, job.output))
    else:
        for name in WRITING:
            setattr(Store, name, before_writing(getattr(Store, name), ending))
    ranks.do(job, str(folder))


def before_writing(write: Callable[..., None], ending: Ending) -> Callable[..., None]:
    @wraps(write)
    def written(store: Store, *given: Any) -> None:
        *content, names = given
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            ending.at(f"{write.__name__} {part_of(name)}")
        write(store, *content, names if write.__name__ == "remove" else names[0])

    return written


def chain(job: TrainerJob, folder: Path, number: signal.Signals, keys: dict[str, str]) -> tuple[TrainerJob, list[str]]:
    """Attempts until one comes to its end: that one, and the boundaries at which the others ended."""
    folder.mkdir()
    ended = ExitCode.INTERRUPTED if number == signal.SIGTERM else -number
    for count in range(1, 60):
        changes: dict[str, Any] = {"attempt": count}
        if job.store:  # each has a node of its own
            changes["output"] = f"{job.output}-{count}"
        this = job.model_copy(update=changes)
        codes = ranks.ended(ranks.start(1, attempt, this, folder, number, keys))
        if codes == [0]:
            return this, (folder / "boundaries").read_text().splitlines()
        assert codes == [ended], (folder / "boundaries").read_text()
    pytest.fail("it comes to no end")


@pytest.fixture(scope="module")
def undisturbed(tiny_model, tmp_path_factory):
    job = make_job(tmp_path_factory.mktemp("undisturbed"), tiny_model, splits=("train", "validation", "test"), **SPEC)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    return job


def same_model(got: Path, expected: Path) -> None:
    """All that the artifact has, but for what tells of times."""
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (got, expected)]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    for name in ("metrics.jsonl", "evaluation.jsonl", "dataset.json", "loss.svg"):
        assert (got / name).read_bytes() == (expected / name).read_bytes(), name
    results = [json.loads((folder / "result.json").read_text()) for folder in (got, expected)]
    for result in results:
        result["training"].pop("runtimeSeconds")
    assert results[0] == results[1]
    assert list((got / "tensorboard").iterdir())


def asked_once(folder: Path) -> None:
    questions = Counter((folder / "answers").read_text().splitlines())
    assert len(questions) == 3 * 12
    assert set(questions.values()) == {1}


@pytest.mark.alike
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_on_a_volume_a_run_that_ends_at_every_boundary_comes_to_the_same(undisturbed, tmp_path, number):
    job = undisturbed.model_copy(update={"output": str(tmp_path / "output")})
    last, boundaries = chain(job, tmp_path / "chain", number, {})
    assert {
        "os.rename /attempt",
        "os.rename /metrics.jsonl",
        "os.rename /checkpoints/step",
        "os.rename /evaluation/tuned.jsonl",
        "os.rename /evaluation/fewShot.jsonl",
        "os.rename /model",
        "shutil.rmtree /checkpoints",
        "shutil.rmtree /evaluation",
    } <= set(boundaries)
    same_model(Path(last.output) / "model", Path(undisturbed.output) / "model")
    asked_once(tmp_path / "chain")
    steps = [tuple(map(int, line.split())) for line in (tmp_path / "chain" / "steps").read_text().splitlines()]
    assert steps
    assert all(step > kept for step, kept in steps), "what has a checkpoint is not learnt again"
    if number == signal.SIGTERM:
        assert [step for step, _ in steps] == [1, 2, 3, 4, 5], "and a request to stop leaves one"
    left = {path.name for path in Path(last.output).iterdir() if not path.name.startswith(".")}
    assert left == {"attempt", "attempt-holder", "metrics.jsonl", "model"}, "what was needed on the way is gone"


def test_in_a_store_a_run_that_ends_at_every_boundary_comes_to_the_same(undisturbed, bucket, tmp_path):
    keys = {f"{ARTIFACTS_PREFIX}{name}": value for name, value in bucket.keys.items()}
    job = undisturbed.model_copy(update={"output": str(tmp_path / "node"), "store": bucket.ref("boundaries")})
    _, boundaries = chain(job, tmp_path / "chain", signal.SIGKILL, keys)
    assert set(boundaries) == {
        "put_bytes attempts/",
        "put state//objects/",
        "put_bytes state//.json",
        "remove state//objects/",
        "remove state//.json",
        "put model",
        f"put_last model/{MANIFEST}",
        "remove model",
    }
    left = Counter(name.split("/")[0] for name in bucket.names("boundaries"))
    (model,) = left.keys() - {"attempts"}
    fetch(Store(bucket.ref("boundaries")), model, tmp_path / "back")
    same_model(tmp_path / "back", Path(undisturbed.output) / "model")
