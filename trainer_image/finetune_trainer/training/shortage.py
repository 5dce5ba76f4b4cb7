"""What a GPU whose memory was not enough teaches: passes are halved, and stay so for this attempt and the next ones.

    a pass fails      → passes of half the size, the same step again, in the same process; gradients are the same
    it fails again    → half of that, for the next attempt; this one leaves a checkpoint and ends as OutOfMemory
    a row alone fails → the next attempt computes activations twice; when that fails too, nothing is left to try
    the optimizer's own state has no room → that is as large with any passes: the job ends, and is not tried again

Of several ranks one may be short alone: the others halve their passes with it, after the step. What is halved is the
limit of passes; where these are much smaller than that, as a rank's share of a step may be, it is halved until that
counts.

The lesson is kept beside the checkpoints: without it the next attempt would fail where this one did.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from finetune_api.job import FineTuneJobSpec, Hyperparameters
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.durable import note_in, whole_file
from finetune_trainer.training.passes import Cut

FILE = "memory.json"


@dataclass(frozen=True)
class Lesson:
    """What earlier shortages of a job's attempts have come to."""

    halvings: int = 0
    checkpointing: bool = False
    """Whether activations are computed twice although they were thought to fit."""

    @classmethod
    def read(cls, checkpoints: Path) -> Self:
        """The lesson beside a job's checkpoints; none where there was no shortage.

        Raises:
            TrainerError: ArtifactFailed or StoreUnavailable, it cannot be read.
        """
        try:
            return cls(**(note_in(checkpoints / FILE) or {}))
        except TypeError:
            return cls()

    def write(self, checkpoints: Path) -> None:
        """Keep it, whole or not at all.

        Raises:
            TrainerError: ArtifactFailed, it cannot be written.
        """
        whole_file(checkpoints / FILE, json.dumps(asdict(self)).encode())

    def halved(self, times: int) -> "Lesson":
        """The same with smaller passes."""
        return replace(self, halvings=self.halvings + times)

    def harder(self, times: int) -> "Lesson | None":
        """The next thing to try: smaller passes, where halving so often makes them so. None where nothing is left."""
        if times:
            return self.halved(times)
        return None if self.checkpointing else replace(self, checkpointing=True)


def halved(cut: Cut, times: int) -> Cut:
    """The cut into passes of a half, a quarter, … of the size; a row is never cut."""
    return replace(
        cut,
        token_budget=None if cut.token_budget is None else max(1, cut.token_budget >> times),
        rows_each=None if cut.rows_each is None else max(1, cut.rows_each >> times),
    )


def halvings_of(cut: Cut) -> range:
    """How often the cut can be halved: until each row has a pass of its own."""
    return range(1, max(cut.token_budget or 0, cut.rows_each or 0).bit_length() + 1)


def out_of_memory(step: int, tokens: int, lesson: Lesson, hyper: Hyperparameters) -> TrainerError:
    """The end of an attempt whose passes could not be made small enough."""
    tried = [f"passes halved {lesson.halvings} times"] if lesson.halvings else []
    tried += ["activations computed twice"] if lesson.checkpointing else []
    how = f", with {' and '.join(tried)}" if tried else ""
    return TrainerError(
        Reason.OUT_OF_MEMORY,
        f"the GPU's memory was not enough for a pass of {tokens} tokens in step {step}{how}",
        _advice(tokens, lesson, hyper),
    )


def no_room_for_optimizer(step: int, trained: int, spec: FineTuneJobSpec, *, shared_out: bool) -> TrainerError:
    """The end of a job whose `trained` bytes of weights leave no room for what an optimizer keeps of them.

    Passes are over by then, and what they took is free: smaller ones, and the next attempt, would meet the same.
    """
    return TrainerError(
        Reason.INSUFFICIENT_MEMORY,
        f"the GPU's memory was not enough for the optimizer in step {step}: beside the {trained / 2**30:.1f} GiB of "
        "weights that are trained and their gradients it keeps twice as much, however small the passes are",
        f"Use {_LESS_TRAINED[spec.method]}{', more GPUs' if shared_out else ''} or a larger GPU that nothing else "
        "uses, and apply the job under a new name.",
    )


_LESS_TRAINED = {"Full": "method: LoRA", "LoRA": "a smaller lora.r, method: QLoRA", "QLoRA": "a smaller lora.r"}
"""What leaves an optimizer less to keep, or more room for it."""


def _advice(tokens: int, lesson: Lesson, hyper: Hyperparameters) -> str:
    rows = max(1, (hyper.micro_batch_size or 1) >> lesson.halvings)  # of the pass that failed
    fewer = f"hyperparameters.microBatchSize below {rows}, " if rows > 1 else ""
    shorter = f"hyperparameters.maxSequenceLength below {tokens // rows}"
    return f"Use {fewer}{shorter}, method: QLoRA or a larger GPU, and apply the job under a new name."
