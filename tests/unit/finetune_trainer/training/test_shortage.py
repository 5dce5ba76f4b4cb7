"""A GPU whose memory is not enough: passes are halved, the step is done again, and nothing that is learnt changes."""

import gc
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobSpec, Hyperparameters
from finetune_trainer.computing.ranks import World
from finetune_trainer.data import IGNORED
from finetune_trainer.errors import TrainerError
from finetune_trainer.training import objective
from finetune_trainer.training.batches import Plan
from finetune_trainer.training.gradients import Gradients, ShortOfMemory
from finetune_trainer.training.objective import by_loss
from finetune_trainer.training.passes import Cut, loss_sum
from finetune_trainer.training.shortage import FILE, Lesson, halved, no_room_for_optimizer, out_of_memory
from finetune_trainer.training.steps import PASSES, Steps
from finetune_trainer.training.token_store import TokenStore
from tests.assets.tiny_model import make_tiny_model
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.shortages import ERRORS
from tests.unit.finetune_trainer.training_runs import do


def test_a_file_in_place_of_the_checkpoints_is_told_before_anything_is_learnt(tmp_path):
    (tmp_path / "checkpoints").write_text("x")
    with pytest.raises(TrainerError, match=r"checkpoints/memory\.json could not be read") as caught:
        Lesson.read(tmp_path / "checkpoints")
    assert "There is a file where a folder must be" in caught.value.next_step


WIDE = {"epochs": 0.6, "batchSize": 8, "microBatchSize": 8}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def short_of_memory(monkeypatch, most_rows, *, after=0, words="torch"):
    """Passes of more rows than `most_rows` fail as on a GPU, in the middle of their way back, from step `after` on."""
    seen = []

    def fails(model, batch):
        rows = len(batch["lengths"]) if "lengths" in batch else batch["input_ids"].shape[0]  # packed or padded
        seen.append(rows)
        loss = loss_sum(model, batch)
        if rows <= most_rows or len(seen) <= after:
            return loss
        loss.backward()  # some gradients are there already
        raise ERRORS[words]

    monkeypatch.setattr(objective, "LIKELIHOOD", by_loss(fails))
    return seen


def record(job):
    """Loss, gradient norm and tokens of each step."""
    lines = [json.loads(line) for line in (Path(job.output) / "metrics.jsonl").open()]
    return [[line[name] for name in ("step", "loss", "gradNorm", "tokens")] for line in lines if "loss" in line]


@pytest.mark.alike
@pytest.mark.parametrize("words", ERRORS)
def test_after_a_shortage_the_step_is_done_again_in_halves_and_learns_the_same(
    tiny_model, tmp_path, monkeypatch, words
):
    plain = make_job(tmp_path / "plain", tiny_model, hyperparameters=WIDE)
    assert do(plain)[0] == ExitCode.OK
    seen = short_of_memory(monkeypatch, 4, after=1, words=words)
    short = make_job(tmp_path / "short", tiny_model, hyperparameters=WIDE)
    code, report, _ = do(short)
    assert code == ExitCode.OK, report.failure
    assert seen[:4] == [8, 8, 4, 4]
    assert set(seen[4:]) == {4}, "and stays so"
    assert report.memory.halvings == 1
    assert record(short) == [pytest.approx(line, rel=1e-3) for line in record(plain)]


def test_a_rank_without_rows_learns_from_the_pass_with_which_it_computed_along(tmp_path):
    store = TokenStore([([1, 2, 3, 4, 5], [IGNORED, 2, 3, 4, 5])])
    cut = Cut(token_budget=8)
    steps = Steps(store, Plan(1, batch_size=1, epochs=1, seed=0), cut, World(rank=1, size=2))
    assert steps[0][PASSES].each == []
    rank = SimpleNamespace(
        _steps=steps, cut=cut, _checkpoints=tmp_path, are_sharded=True, _retried=False, lesson=Lesson()
    )  # fmt: skip
    with pytest.raises(ShortOfMemory) as short:
        Gradients._smaller(rank, [], 0)
    assert (short.value.tokens, Lesson.read(tmp_path)) == (5, Lesson(checkpointing=True))


def test_a_second_shortage_ends_the_attempt_and_the_next_one_goes_on_with_a_quarter(tiny_model, tmp_path, monkeypatch):
    seen = short_of_memory(monkeypatch, 2, after=1)
    job = make_job(tmp_path, tiny_model, hyperparameters=WIDE)
    code, report, _ = do(job)
    assert code == ExitCode.OUT_OF_MEMORY
    assert report.failure.reason == "OutOfMemory"
    assert "in step 2, with passes halved 1 times" in report.failure.message
    assert "microBatchSize below 4" in report.failure.next_step, "passes of four rows were too large, too"
    checkpoints = Path(job.output) / "checkpoints"
    assert json.loads((checkpoints / FILE).read_text()) == {"halvings": 2, "checkpointing": False}
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-00000001"], "what was learnt is kept"

    seen.clear()
    code, report, _ = do(job.model_copy(update={"attempt": 2}))
    assert code == ExitCode.OK, report.failure
    assert set(seen) == {2}
    assert report.memory.halvings == 2


def test_where_one_row_is_too_much_the_next_attempt_computes_activations_twice(tiny_model, tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 0)
    job = make_job(tmp_path, tiny_model, hyperparameters={**WIDE, "microBatchSize": 1})
    assert do(job)[0] == ExitCode.OUT_OF_MEMORY
    assert Lesson.read(Path(job.output) / "checkpoints") == Lesson(0, checkpointing=True)
    code, report, _ = do(job.model_copy(update={"attempt": 2}))
    assert code == ExitCode.OUT_OF_MEMORY
    assert "with activations computed twice" in report.failure.message
    assert "method: QLoRA or a larger GPU" in report.failure.next_step
    assert "microBatchSize" not in report.failure.next_step


def test_what_is_advised_is_less_than_what_failed():
    """On an H200: 32 rows of 768 tokens, and then 16 of them. Rows of 384 tokens were advised."""
    error = out_of_memory(1, 16 * 768, Lesson(halvings=1), Hyperparameters(batchSize=32, microBatchSize=32))
    assert "microBatchSize below 16, hyperparameters.maxSequenceLength below 768," in error.next_step


@pytest.mark.alike
@pytest.mark.parametrize("method", ["LoRA", "Full"])
@pytest.mark.parametrize("words", ERRORS)
def test_an_optimizer_without_room_ends_the_job_for_smaller_passes_would_not_help(
    tiny_model, tmp_path, monkeypatch, words, method
):
    """Each attempt would meet the same: it is not tried again, and says what leaves an optimizer less to keep."""

    def fails(*_args, **_kwargs):
        raise ERRORS[words]

    monkeypatch.setattr(torch.optim.AdamW, "step", fails)
    job = make_job(tmp_path, tiny_model, splits=("train",), method=method, hyperparameters=WIDE)
    code, report, _ = do(job)
    assert (code, report.failure.reason) == (ExitCode.INSUFFICIENT_MEMORY, "InsufficientMemory")
    assert "not enough for the optimizer in step 1:" in report.failure.message
    less = {"LoRA": "a smaller lora.r, method: QLoRA or a larger GPU", "Full": "method: LoRA or a larger GPU"}
    assert less[method] in report.failure.next_step
    assert "maxSequenceLength" not in report.failure.next_step
    assert not (Path(job.output) / "checkpoints" / FILE).exists(), "it teaches nothing of passes"


def test_more_gpus_are_named_only_where_they_share_the_optimizer_out():
    spec = FineTuneJobSpec.model_construct(method="Full")
    assert "more GPUs" in no_room_for_optimizer(1, 2**30, spec, shared_out=True).next_step
    assert "more GPUs" not in no_room_for_optimizer(1, 2**30, spec, shared_out=False).next_step


@pytest.mark.parametrize(
    ("cut", "times", "expected"),
    [
        (Cut(None, 8), 0, Cut(None, 8)),
        (Cut(None, 6), 1, Cut(None, 3)),
        (Cut(None, 1), 3, Cut(None, 1)),
        (Cut(4096), 2, Cut(1024)),
        (Cut(1), 2, Cut(1)),
    ],
)
def test_a_cut_is_halved_down_to_single_rows(cut, times, expected):
    assert halved(cut, times) == expected


@pytest.mark.parametrize("text", ["", '{"halv', '{"other": 1}', "[]"])
def test_a_lesson_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert Lesson.read(tmp_path) == Lesson()


@pytest.mark.gpu
@needs_gpu
def test_a_real_shortage_on_a_gpu_is_survived_and_memory_is_freed(tmp_path):
    """Room for half of the passes: the step's second try has to find the first one's memory free."""
    make_tiny_model(tmp_path / "cache", width=512, layers=4)
    hyper = {"epochs": 0.3, "batchSize": 16, "microBatchSize": 16, "maxSequenceLength": 512}
    job = make_job(tmp_path, tmp_path / "cache", splits=("train",), hyperparameters=hyper)
    rows = [{"prompt": "x" * 300, "completion": "z" * 100}] * 48
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gc.collect()  # what tests before this one left is no part of the peak
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    assert do(job.model_copy(update={"output": str(tmp_path / "free")}))[0] == ExitCode.OK
    peak = torch.cuda.max_memory_reserved()
    whole = torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.75 * peak / whole)
    try:
        code, report, _ = do(job)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == ExitCode.OK, report.failure
    assert report.memory.halvings == 1
