"""An attempt that the kernel ends while it measures is followed by a more careful one, and costs no version."""

import json
import signal
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import generate
from finetune_trainer.evaluation.care import FILE, Care
from finetune_trainer.evaluation.kept import FOLDER
from tests.unit.finetune_trainer.computing import ranks
from tests.unit.finetune_trainer.evaluation.test_evaluation_measuring import Bench
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

BASELINES = [{"zeroShot": {}}, {"fewShot": {"examples": 3}}]


def left_by(output: Path, *, now: str | None, ends: int = 0, done: tuple[str, ...] = (), learnt: str = "hash") -> None:
    """What an attempt leaves that is ended while `now` is asked."""
    (output / FOLDER).mkdir(parents=True, exist_ok=True)
    told = {"learnt": learnt, "ends": ends, "done": list(done), "now": now}
    (output / FOLDER / FILE).write_text(json.dumps(told))


def care(output: Path, *, short_of_memory: bool = True) -> Care:
    return Care.of(output, "hash", Interruption(), short_of_memory=short_of_memory)


def again(bench: Bench, *, short_of_memory: bool = True) -> Bench:
    """The same evaluation by the attempt after one that was ended."""
    job = bench.job.model_copy(update={"short_of_memory": short_of_memory, "attempt": bench.job.attempt + 1})
    bench.tuned = bench.tuned.__class__(**vars(bench.tuned) | {"job": job})
    return bench


@pytest.fixture
def sizes(monkeypatch):
    """How many questions share a batch."""
    found = []
    original = generate._new_tokens
    monkeypatch.setattr(
        generate,
        "_new_tokens",
        lambda model, prompts, *rest: found.append(len(prompts)) or original(model, prompts, *rest),
    )
    return found


@pytest.mark.parametrize("placed", [Path.touch, lambda path: path.symlink_to(path)], ids=["a file", "a loop of links"])
def test_what_stands_where_its_folder_is_to_be_is_told(tmp_path, placed):
    placed(tmp_path / FOLDER)
    with pytest.raises(TrainerError, match=r"evaluation/asked\.json could not be read") as told:
        care(tmp_path)
    assert told.value.reason == Reason.ARTIFACT_FAILED
    assert "remove it" in told.value.next_step


def test_after_an_end_for_want_of_memory_questions_are_asked_one_by_one_with_the_same_result(
    tiny_model, tmp_path, sizes
):
    whole = Bench(tmp_path / "whole", tiny_model, baselines=BASELINES).measure()
    assert max(sizes) > 1
    sizes.clear()
    bench = Bench(tmp_path / "again", tiny_model, baselines=BASELINES)
    left_by(Path(bench.job.output), now="tuned")
    result = again(bench).measure().result
    assert set(sizes) == {1}
    assert result.tuned.loss == pytest.approx(whole.result.tuned.loss, rel=1e-5)
    assert [one.chr_f for one in result.baselines.all()] == [one.chr_f for one in whole.result.baselines.all()]


@pytest.mark.parametrize(("now", "short_of_memory"), [("tuned", False), (None, True)])
def test_a_lost_node_and_an_end_before_the_evaluation_teach_nothing(tiny_model, tmp_path, sizes, now, short_of_memory):
    bench = Bench(tmp_path, tiny_model)
    left_by(Path(bench.job.output), now=now)
    again(bench, short_of_memory=short_of_memory).measure()
    assert max(sizes) > 1


def test_after_a_second_end_nothing_new_is_tried(tiny_model, tmp_path):
    bench = Bench(tmp_path, tiny_model, baselines=BASELINES)
    left_by(Path(bench.job.output), now="base", ends=1, done=("tuned", "tuned, loss"))
    result = again(bench).measure().result
    why = "the kernel ended 2 attempts for want of memory while the test set was asked"
    assert [one.problem for one in result.baselines.all()] == [why, why]
    assert (result.tuned.chr_f is not None, result.tuned.loss is not None, result.verdict) == (True, True, None)


def test_who_was_asked_to_the_end_before_is_asked_again(tmp_path):
    left_by(tmp_path, now=None, ends=2, done=("tuned",))
    found = care(tmp_path)
    with found.asking("tuned"):
        pass
    with pytest.raises(TrainerError, match="2 attempts"), found.asking("zeroShot"):
        pass


def test_an_attempt_that_ends_by_an_exception_leaves_no_mark(tmp_path):
    first = care(tmp_path)
    with pytest.raises(KeyboardInterrupt), first.asking("tuned"):
        raise KeyboardInterrupt
    assert (care(tmp_path).ends, care(tmp_path).done) == (0, [])


def test_who_is_asked_within_another_is_marked_and_then_the_other_again(tmp_path):
    def now() -> str:
        return json.loads((tmp_path / FOLDER / FILE).read_text())["now"]

    asked = care(tmp_path)
    with asked.asking("base"):
        with asked.asking("zeroShot"):
            assert now() == "zeroShot"
        assert now() == "base"
    assert now() is None
    assert care(tmp_path).done == ["zeroShot", "base"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"learnt": "of another"}'])
def test_a_mark_that_says_nothing_of_this_model_is_none(tmp_path, text):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / FILE).write_text(text)
    assert care(tmp_path).ends == 0


def _killed_when_asked(job, folder, limit):
    """An attempt in a process of its own, which the kernel ends where more than `limit` questions are asked at once."""
    original = generate._new_tokens

    def new_tokens(model, prompts, *rest):
        if len(prompts) > limit and max(map(len, prompts)) > 4:  # not the answer on trial before the training
            signal.raise_signal(signal.SIGKILL)
        return original(model, prompts, *rest)

    generate._new_tokens = new_tokens
    ranks.do(job, str(folder))


@pytest.mark.parametrize(("limit", "attempts"), [(1, 2), (0, 3)])
def test_the_version_is_made_whatever_memory_the_evaluation_would_take(tiny_model, tmp_path, limit, attempts):
    job = make_job(tmp_path, tiny_model, splits=("train", "test"), hyperparameters={"epochs": 0.4})
    codes = []
    for number in range(1, attempts + 1):
        this = job.model_copy(update={"attempt": number, "short_of_memory": number > 1})
        codes += ranks.ended(ranks.start(1, _killed_when_asked, this, tmp_path, limit))
    assert codes == [-signal.SIGKILL] * (attempts - 1) + [ExitCode.OK]
    training = json.loads((Path(job.output) / "model" / "result.json").read_text())["training"]
    failure = training.get("evaluationFailure")
    assert (failure is None) == (limit == 1)
    assert failure is None or failure["reason"] == "OutOfMemory"
    assert not (Path(job.output) / FOLDER).exists()
    code, report, _ = do(job.model_copy(update={"attempt": attempts + 1}))
    assert (code, report.result.evaluation_failure is None) == (ExitCode.OK, limit == 1)
