"""One of two ranks is short of memory: both halve their passes, or the attempt ends; nobody waits for ever."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob, read_termination_message
from finetune_trainer.training import objective
from finetune_trainer.training.objective import by_loss
from finetune_trainer.training.passes import loss_sum
from finetune_trainer.training.shortage import Lesson
from tests.unit.finetune_trainer.computing import ranks
from tests.unit.finetune_trainer.shortages import ERRORS

WIDE = {"lora": None, "hyperparameters": {"epochs": 0.5, "batchSize": 8, "microBatchSize": 8}}
"""Each rank has a pass of four rows, where eight would be allowed."""


def note_rows(messages: str, room: dict[str, int]) -> None:
    """Write down how many rows each training pass has; more than the rank has room for are too many."""
    rank = os.environ["RANK"]

    def loss(model: Any, batch: Any) -> Any:
        rows = len(batch["lengths"]) if "lengths" in batch else len(batch["input_ids"])
        if not model.training or not torch.is_grad_enabled():
            return loss_sum(model, batch)
        with (Path(messages) / f"rows-{rank}").open("a") as file:
            file.write(f"{rows}\n")
        made = loss_sum(model, batch)
        if rows > room.get(rank, rows):
            made.backward()  # some gradients are there already
            raise ERRORS["torch"]
        return made

    objective.LIKELIHOOD = by_loss(loss)


def with_room_for_two(job: TrainerJob, messages: str) -> None:
    note_rows(messages, {"1": 2})
    ranks.do(job, messages)


def with_room_for_none(job: TrainerJob, messages: str) -> None:
    note_rows(messages, {"1": 0})
    ranks.do(job, messages)


def with_none_in_the_optimizer(job: TrainerJob, messages: str) -> None:
    rank, step = os.environ["RANK"], torch.optim.AdamW.step

    def short(self: Any, *args: Any, **kwargs: Any) -> Any:
        if rank == "1":
            raise ERRORS["torch"]
        return step(self, *args, **kwargs)

    torch.optim.AdamW.step = short  # type: ignore[method-assign]
    ranks.do(job, messages)


def rows_of(job: TrainerJob, rank: int) -> list[int]:
    return [int(line) for line in (Path(job.output).parent / "messages" / f"rows-{rank}").read_text().split()]


def losses(job: TrainerJob) -> list[float]:
    return [line["loss"] for line in ranks.learnt(job) if "loss" in line]


def test_both_halve_until_it_fits_and_learn_what_they_would_have_learnt(tiny_model, tmp_path):
    plain, short = (ranks.job_of(tmp_path / name, tiny_model, **WIDE) for name in ("plain", "short"))
    short = short.model_copy(update={"spec": plain.spec})
    undisturbed, halving = ranks.started(plain, 2), ranks.started(short, 2, with_room_for_two)
    assert (ranks.ended(undisturbed), ranks.ended(halving)) == ([0, 0], [0, 0])
    assert rows_of(short, 1)[:3] == [4, 2, 2], "eight, four: halved until it is less than what failed"
    assert rows_of(short, 0)[0] == 4
    assert set(rows_of(short, 0)[1:]) <= {1, 2}, "from the next step on the other one does so, too"
    assert losses(short) == pytest.approx(losses(plain), rel=1e-3)
    told = read_termination_message((tmp_path / "short" / "messages" / "0").read_text())
    assert told.memory.halvings == 2, "status has it, though the rank that reports was not short"


def test_where_nothing_is_small_enough_the_attempt_ends_and_the_next_one_tries_something_else(tiny_model, tmp_path):
    job = ranks.job_of(tmp_path, tiny_model, **WIDE)
    lessons = []
    for number in (1, 2, 3):
        attempt = job.model_copy(update={"attempt": number})
        assert ranks.ended(ranks.started(attempt, 2, with_room_for_none)) == [
            ExitCode.INTERRUPTED,
            ExitCode.OUT_OF_MEMORY,
        ]
        assert (ranks.message(job, 0), ranks.message(job, 1)) == (Reason.INTERRUPTED, Reason.OUT_OF_MEMORY)
        lessons.append(Lesson.read(Path(job.output) / "checkpoints"))
    assert lessons == [Lesson(3), Lesson(3, checkpointing=True), Lesson(3, checkpointing=True)]


def test_no_room_in_the_optimizer_of_one_ends_the_attempt_of_both(tiny_model, tmp_path):
    job = ranks.job_of(tmp_path, tiny_model, **WIDE)
    codes = ranks.ended(ranks.started(job, 2, with_none_in_the_optimizer))
    assert codes == [ExitCode.INTERRUPTED, ExitCode.INSUFFICIENT_MEMORY]
    assert ranks.message(job, 1) == Reason.INSUFFICIENT_MEMORY
