"""Instruments peers that use transformers' Trainer: a callback, and a count of tokens."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from bench.trainer import work
from bench.trainer.clock import Clock


class Watch(TrainerCallback):
    """Sets the initial adapters, records times and losses of steps, and ends the training."""

    def __init__(self, clock: Clock, tokens_of_step: Callable[[int], int]) -> None:
        self._clock, self._tokens_of_step = clock, tokens_of_step
        self._losses: list[float] = []
        self._held_out: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """Adapters exist at this point, whoever created them."""
        work.fill_adapters(about["model"])

    def on_log(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """Record a step's loss."""
        if "loss" in about.get("logs", {}):
            self._losses.append(float(about["logs"]["loss"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **_about: Any) -> Any:
        """Record a step."""
        if self._clock.step(self._tokens_of_step(state.global_step)):
            control.should_training_stop = True
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """Measure the held-out loss."""
        task = self._clock.task
        if task.held_out:
            self._held_out = work.held_out_loss(about["model"], task.lengths, task.held_out)

    @property
    def result(self) -> dict[str, Any]:
        """Results of the whole training."""
        return self._clock.result(self._losses, self._held_out)


def tokens_in_order(task: work.Task) -> Callable[[int], int]:
    """Tokens of a step, from 1, for a trainer that takes rows in order."""
    sizes = [len(row.ids) for row in task.rows]
    return lambda step: sum(sizes[(step - 1) * task.batch : step * task.batch])


class Counted:
    """Tokens of a step for a trainer that sorts or packs rows: counted when batches are made, returned when used."""

    def __init__(self, trainer: Any) -> None:
        self._made: list[int] = []
        self._used = self._given = 0
        collate, step = trainer.data_collator, trainer.training_step

        def counting(rows: Any) -> Any:
            batch = collate(rows)
            mask = batch.get("attention_mask")
            self._made.append(int(mask.sum()) if mask is not None else batch["input_ids"].numel())
            return batch

        def stepping(*args: Any, **kwargs: Any) -> Any:
            self._used += 1
            return step(*args, **kwargs)

        trainer.data_collator, trainer.training_step = counting, stepping

    def __call__(self, _step: int) -> int:
        tokens = sum(self._made[self._given : self._used])
        self._given = self._used
        return tokens


def arguments(task: work.Task, output: str, *, cuda: bool, **own: Any) -> dict[str, Any]:
    """The task's TrainingArguments: everything else is the library's default, or in `own`."""
    each = min(task.batch, task.each)
    return {
        "output_dir": output, "per_device_train_batch_size": each, "gradient_accumulation_steps": task.batch // each,
        "num_train_epochs": 1, "learning_rate": task.learning_rate, "lr_scheduler_type": "constant",
        "logging_steps": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True, "use_cpu": not cuda, **own,
    }  # fmt: skip


def tokenizer() -> Any:
    """A tokenizer for padding only: the rows are already tokenised."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, 512)}
    made: Any = PreTrainedTokenizerFast
    return made(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
    )  # fmt: skip
