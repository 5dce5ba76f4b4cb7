"""What stands in place of a file in an output folder or a model, and may never answer, is told and not waited for."""

import os
import threading
from pathlib import Path

import pytest

from finetune_api.names import MANIFEST
from finetune_trainer import cache
from finetune_trainer.attempt import fence, metrics
from finetune_trainer.attempt.fence import Fence
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.computing.ranks import ALONE
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.kept import KeptAnswers
from finetune_trainer.models.model_cache import find_model
from finetune_trainer.output import artifact
from finetune_trainer.serving.artifact import open_artifact
from finetune_trainer.storage.durable import write_errors
from finetune_trainer.training import checkpoint, code_end, code_start, moment, own_model, shortage
from finetune_trainer.training.shortage import Lesson
from tests.unit.finetune_trainer.jobs import make_job

LAST_SECONDS = 30.0


def in_time(work):
    """What the work ends with; one that waits for a pipe would do so for ever."""
    ends = []

    def tried():
        try:
            ends.append(work())
        except TrainerError as error:
            ends.append(error)

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    thread.join(LAST_SECONDS)
    assert ends, "it waits"
    return ends[0]


def finished(output: Path):
    return artifact.finished(make_job(output / "data", output).model_copy(update={"output": str(output)}))


READ = {
    fence.FILE: lambda output: Fence(output, 1).take(),
    fence.HOLDER: lambda output: Fence(output, 1).is_superseded(),
    metrics.FILE: lambda output: Metrics(output / metrics.FILE),
    moment.FILE: lambda output: moment.of_run(output, ALONE),
    f"checkpoints/{shortage.FILE}": lambda output: Lesson.read(output / "checkpoints"),
    f"checkpoints/step-00000001/{MANIFEST}": lambda output: checkpoint.newest(output / "checkpoints"),
    f"model/{MANIFEST}": finished,
}


@pytest.mark.parametrize("theirs", ["a pipe", "a device"])
@pytest.mark.parametrize("name", READ)
def test_what_is_no_file_in_place_of_a_note_is_told_at_once(tmp_path, name, theirs):
    if name == fence.HOLDER:
        (tmp_path / fence.FILE).write_text("1")
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path) if theirs == "a pipe" else path.symlink_to(os.devnull)
    error = in_time(lambda: READ[name](tmp_path))
    assert isinstance(error, TrainerError), error
    assert error.reason == "ArtifactFailed"
    assert error.message.endswith("it is a pipe or a device")
    assert "remove" in error.next_step.lower()


def test_a_pipe_among_the_files_of_a_checkpoint_is_told_at_once(tmp_path):
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text('{"step": 1, "files": {"state.json": {"bytes": 0, "sha256": "x"}}}')
    os.mkfifo(folder / "state.json")
    assert in_time(lambda: checkpoint.newest(tmp_path / "checkpoints")).reason == "ArtifactFailed"


def test_a_pipe_in_place_of_kept_answers_is_told_at_once(tmp_path):
    whole = KeptAnswers(tmp_path, "tuned")
    path = whole._path
    path.unlink()
    os.mkfifo(path)
    assert in_time(lambda: KeptAnswers(tmp_path, "tuned")).reason == "ArtifactFailed"


def served(folder: Path):
    return open_artifact(folder, None)


def cached(folder: Path):
    return find_model(folder.parent, folder.name)


@pytest.mark.parametrize("name", ["chat_template.jinja", "adapter_config.json", "model.safetensors"])
@pytest.mark.parametrize("looked_up", [cached, served])
def test_a_pipe_among_the_files_of_a_model_is_told_at_once(tmp_path, name, looked_up):
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / name)
    error = in_time(lambda: looked_up(tmp_path))
    assert isinstance(error, TrainerError), error
    assert error.reason == "ModelUnusable"
    assert f"{name} is a pipe or a device" in error.message


@pytest.mark.parametrize("is_what", ["a pipe or a device", "a link that leads nowhere"])
def test_what_is_no_file_among_those_of_a_model_is_not_left_out_of_the_cache(tmp_path, is_what):
    path = tmp_path / "generation_config.json"
    path.symlink_to("gone") if is_what.startswith("a link") else os.mkfifo(path)
    with pytest.raises(TrainerError, match=rf"{path.name} of the model is {is_what}, not a file"):
        cache._copy(tmp_path, tmp_path)


def test_a_pipe_in_what_own_code_left_is_told_at_once(tmp_path):
    for name in (code_start.RAISED, "model.safetensors"):
        os.mkfifo(tmp_path / name)
    assert in_time(lambda: code_end.failed(3, tmp_path)).reason == "CodeFailed"
    error = in_time(lambda: own_model.load(make_job(tmp_path / "data", tmp_path), tmp_path, tmp_path, dtype=None))
    assert "model.safetensors is a pipe or a device" in error.message


def test_what_a_program_itself_says_of_a_pipe_has_the_same_step(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TrainerError) as caught, write_errors(tmp_path / "pipe"):
        os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)
    assert "a pipe or a device is neither" in caught.value.next_step
