"""transformers' Trainer, made to count: one batch of its loop is one optimizer step, whatever fits into memory.

    Plan.rows_of(step) -> forward passes of like lengths -> sums of the objective, divided by what it is a mean over

So gradients do not depend on how a step is cut into passes, the order of the data needs no sampler state, and what
happens between steps (validation, checkpoints, stopping) hangs on step numbers alone. Nor do they depend on how many
ranks share a step (`ranks.py`). Forward passes are in `passes.py`, what is minimised in `objective.py`; loading,
adapters and artifacts are elsewhere.
"""

import contextlib
import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft.optimizers import create_loraplus_optimizer
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from finetune_api.job import Hyperparameters
from finetune_api.reasons import Reason
from finetune_trainer import checkpoint, heap
from finetune_trainer.batches import SORTED_TOGETHER, Plan
from finetune_trainer.checkpoint import load_optimizer, load_random_states
from finetune_trainer.compiled_layers import in_training
from finetune_trainer.errors import ANOTHER_OUTPUT, TrainerError
from finetune_trainer.interruption import Interruption
from finetune_trainer.loop import Pacer
from finetune_trainer.metrics import Metrics
from finetune_trainer.objective import LIKELIHOOD, Objective
from finetune_trainer.pace import Pace
from finetune_trainer.pair_store import PairStore
from finetune_trainer.passes import Cut, Pass, autocast, on_device
from finetune_trainer.ranks import ALONE, World
from finetune_trainer.reference import Reference
from finetune_trainer.schedule import factor, warmup_steps
from finetune_trainer.sharding import gathered, is_sharded
from finetune_trainer.shortage import Lesson, halved, out_of_memory
from finetune_trainer.steps import CUT, PASSES, Step, Steps, Store, largest, only

logger = logging.getLogger(__name__)


class _StepAbandoned(Exception):  # noqa: N818 - no error: somebody asked to stop in the middle of a step
    """The step under way was given up; the model is as the step before left it."""


class _ShortOfMemory(Exception):  # noqa: N818 - becomes OutOfMemory when a checkpoint is written
    """A step failed for want of memory, twice in this attempt or with nothing left to make smaller."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


class StepTrainer(Trainer):
    """Trainer whose batch is a whole optimizer step. `run` trains from the newest checkpoint, or from the start."""

    loss_is_scaled_for_ga = True  # training_step divides by the step's labelled tokens itself

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        hyper: Hyperparameters,
        train: Store,
        validation: Store | None,
        plan: Plan,
        pace: Pace,
        cut: Cut,
        compute_dtype: torch.dtype,
        compile_layers: bool,
        checkpoints: Path,
        fingerprint: str,
        metrics: Metrics,
        interruption: Interruption,
        on_step: Callable[[int, int], None],
        world: World = ALONE,
        lesson: Lesson | None = None,
        lora_plus_ratio: float | None = None,
        objective: Objective = LIKELIHOOD,
    ) -> None:
        self.lesson, self._retried = lesson or Lesson(), False
        cut = halved(cut, self.lesson.halvings)
        self._steps = Steps(train, plan, cut, world, objective)
        super().__init__(model=model, args=args, train_dataset=self._steps, data_collator=only, callbacks=[Pacer(self)])
        self.remove_callback(PrinterCallback)
        self._net: Any = model
        self.world = world
        self.plan, self.pace, self.metrics_record, self.interruption = plan, pace, metrics, interruption
        self._train, self._validation = train, validation
        self._cut, self._compute_dtype = cut, compute_dtype
        self._compile = compile_layers
        self._checkpoints, self._fingerprint, self._on_step = checkpoints, fingerprint, on_step
        self._objective = objective
        self._hyper, self._lora_plus_ratio = hyper, lora_plus_ratio
        self._last_tokens, self._last_weight = 0, 0
        self._last_means, self._last_grad_norm = [math.nan], math.nan
        self._means_of_step: Sequence[torch.Tensor | float] = (math.nan,)
        self._trained = [value for value in model.parameters() if value.requires_grad]
        self._sharded = is_sharded(model)
        self._own = [value for value in self._trained if not isinstance(value, DTensor)]
        self._on_cpu = args.device.type == "cpu"
        self._saved_step, self._cut_short = 0, False
        self.seconds_before = 0.0
        self._started = time.monotonic()

    def run(self) -> None:
        """Train to the end, or until somebody asks to stop; then a checkpoint was written.

        Raises:
            TrainerError: TrainingDiverged, ArtifactFailed, SpecInvalid (checkpoints of another job), OutOfMemory.
        """
        found = self.world.tell("checkpoint", self._newest)
        if found is None:
            self.metrics_record.keep_until(0)
        else:
            self._resume_notes(*found)
        self.world.equalise(self._own)
        self._started = time.monotonic()
        try:
            with in_training(self._net, self._trained, packed=self._cut.packed, compile_layers=self._compile):
                self._refer()
                self.train(resume_from_checkpoint=found[0] if found else None)
        except _StepAbandoned:
            self._save_progress()
        except _ShortOfMemory as short:
            if self.world.size == 1:  # the others are in the middle of the step
                self._save_progress()
            tokens = short.tokens // self._objective.texts
            raise out_of_memory(self.state.global_step + 1, tokens, self.lesson, self._hyper) from short

    def _refer(self) -> None:
        """Have the model as it is before training say what rows with two answers are compared with."""
        if not isinstance(self._train, PairStore):
            return
        reference = Reference(
            self._net,
            self._checkpoints,
            self._fingerprint,
            cut=self._cut,
            autocast=self._autocast,
            with_idle=self._with_idle,
            asked=self._asked_within_step,
            device=self.args.device,
            world=self.world,
            interruption=self.interruption,
        )
        reference.fill("train", self._train)
        if isinstance(self._validation, PairStore):
            reference.fill("validation", self._validation)

    def _save_progress(self) -> None:
        if self.state.global_step > self._saved_step:
            self._save_checkpoint(self._net, None)

    @property
    def seconds(self) -> float:
        """Seconds of training, all attempts that left a checkpoint."""
        return self.seconds_before + time.monotonic() - self._started

    def stopping(self) -> bool:
        """Whether somebody asked any rank to stop: then all do, after the same step."""
        asked = self.world.anyone(self.interruption.asked)
        if asked:
            self.interruption.spread()
        return asked

    def _resume_notes(self, folder: str, step: int, notes: dict[str, Any]) -> None:
        if not Path(folder).is_dir():  # a claim that only one node can mount, or another one in its place
            message = f"{folder} is the checkpoint to go on from, and is not there on every node"
            raise TrainerError(Reason.ARTIFACT_FAILED, message, "Keep artifacts on a ReadWriteMany claim.")
        if notes["fingerprint"] != self._fingerprint:
            raise TrainerError(
                Reason.SPEC_INVALID,
                f"{Path(folder).parent} holds checkpoints of a job with another spec or other data",
                ANOTHER_OUTPUT,
            )
        self.seconds_before, self._saved_step = notes["seconds"], step
        self.metrics_record.keep_until(step)

    # What follows replaces parts of transformers' Trainer; names and arguments are its own.

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        steps: Any = train_dataset or self.train_dataset
        return SequentialSampler(steps)

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """Transformers' AdamW; with LoRA+ the second halves of the adapters get a learning rate of their own."""
        if self._lora_plus_ratio is None or self.optimizer is not None:
            return super().create_optimizer(model)
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self._net)
        optimizer: Optimizer = create_loraplus_optimizer(
            self._net,
            kind,
            loraplus_lr_ratio=self._lora_plus_ratio,
            loraplus_weight_decay=self.args.weight_decay,
            **options,
        )
        self.optimizer = optimizer
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        """Transformers' own schedules begin with a learning rate of 0."""
        part_of_peak = partial(
            factor,
            schedule=self._hyper.schedule,
            warmup=warmup_steps(self._hyper.warmup_ratio, num_training_steps),
            total_steps=num_training_steps,
        )
        self.lr_scheduler = LambdaLR(optimizer or cast("Optimizer", self.optimizer), part_of_peak)
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> torch.Tensor:  # noqa: ARG002
        """Forward and backward passes of one optimizer step; returns this rank's part of its mean loss.

        Raises:
            _StepAbandoned: somebody asked to stop; a step may take longer than a pod has after SIGTERM.
            _ShortOfMemory: it was not enough, and nothing is left to try in this attempt.
        """
        if not model.training:
            model.train()
        passes = self._cut_as_now(inputs)
        mine = sum(map(self._objective.weight, passes)), sum(int(batch["tokens"]) for batch in passes)
        weight, self._last_tokens = map(int, self.world.sums(*mine))
        before = checkpoint.RandomStates.now()
        self.world.reseed(self._hyper.seed, self.state.global_step)
        while (means := self._gradients(model, passes, weight)) is None:
            before.restore()
            self.world.reseed(self._hyper.seed, self.state.global_step)
            passes = self._smaller(passes)
        if self._on_cpu:
            heap.give_back()  # gaps of one step do not fit the passes of the next one
        part: Any = means if self.world.size == 1 else means.tolist()  # alone, nobody waits for the GPU here
        *self._means_of_step, given_up = self.world.sums(*part, self._cut_short)
        if given_up:
            self.interruption.spread()
            before.restore()
            raise _StepAbandoned
        self.world.sum_gradients(self._own)
        self._last_weight = weight
        return means[0]

    def _cut_as_now(self, inputs: Step) -> list[Pass]:
        """The passes of this step; what was read ahead of a shortage is cut anew."""
        step: Step = inputs if inputs[CUT] == self._cut else self._steps[self.state.global_step]
        passes: list[Pass] = step[PASSES].each
        return passes

    def _gradients(self, model: Any, passes: list[Pass], weight: int) -> torch.Tensor | None:
        """This rank's gradients of a step; its part of the means, or None where memory was short: then none are left.

        What failed is only freed when the exception is gone, so nothing may be tried before this has returned.
        """
        total = torch.zeros(1 + len(self._objective.measures), device=self.args.device)
        try:
            for batch, counts in self._with_idle(passes):
                self._cut_short = self._asked_within_step()
                if self._cut_short:
                    break
                with self._autocast():
                    means = counts * self._objective.sums(model, on_device(batch, self.args.device)) / max(weight, 1)
                self.accelerator.backward(means[0])
                total += means.detach()
                if self._on_cpu and not hasattr(self._net, "peft_config"):
                    heap.give_back()  # large gradients do not fit into the gaps: each pass would take new memory
        except torch.OutOfMemoryError:
            self._net.zero_grad(set_to_none=True)
            return None
        return total

    def _with_idle(self, passes: list[Pass]) -> list[tuple[Pass, int]]:
        """Passes and their weights; a model that is shared out wants equally many of all ranks, so some count 0."""
        weighted = [(one, 1) for one in passes]
        if not self._sharded:
            return weighted
        return weighted + [(self._steps.idle(), 0)] * (self.world.most(len(passes)) - len(passes))

    def _asked_within_step(self) -> bool:
        """Whether to stop before the next pass: each rank for itself, but where the others wait for it in a layer."""
        return self.world.anyone(self.interruption.asked) if self._sharded else self.interruption.asked

    def _smaller(self, passes: list[Pass]) -> list[Pass]:
        """The passes of this step at half the size, from now on; what the failed ones took is freed before.

        Raises:
            _ShortOfMemory: this attempt has done so before, or they cannot be smaller.
        """
        gc.collect()
        torch.cuda.empty_cache()
        cut = halved(self._cut, 1)
        self._steps.recut(cut)
        smaller: list[Pass] = self._steps[self.state.global_step][PASSES].each
        most = largest(passes or [self._steps.idle()])  # a rank without rows computes along with the others
        lesson = self.lesson.harder(smaller=largest(smaller or [self._steps.idle()]) < most)
        if lesson is not None:
            lesson.write(self._checkpoints)
        if self._sharded or self._retried or lesson is None or lesson.halvings == self.lesson.halvings:
            raise _ShortOfMemory(most)
        self.lesson, self._cut, self._retried = lesson, cut, True
        logger.warning(
            "The GPU's memory was not enough: passes are halved, and step %d is done again.", self.state.global_step + 1
        )
        return smaller

    def _clip_grad_norm(self, model: Any) -> Any:  # noqa: ARG002
        """Clips, and looks at loss and norm, before the optimizer could spoil the weights.

        Gradients may overflow where the loss does not. It is the one place of a step where the host waits for a GPU.

        Raises:
            TrainerError: TrainingDiverged.
        """
        norm = gathered(torch.nn.utils.clip_grad_norm_(self._trained, self.args.max_grad_norm))
        means = [torch.as_tensor(mean, dtype=norm.dtype, device=norm.device) for mean in self._means_of_step]
        *self._last_means, self._last_grad_norm = torch.stack((*means, norm)).tolist()
        step = self.state.global_step + 1
        if not math.isfinite(self._last_means[0]):
            raise TrainerError(Reason.TRAINING_DIVERGED, f"the training loss of step {step} is no finite number")
        if not math.isfinite(self._last_grad_norm):
            raise TrainerError(Reason.TRAINING_DIVERGED, f"the gradients of step {step} are no finite numbers")
        return norm

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002
        """Not counted: the formula of transformers wants another shape of batch."""
        return 0

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Measure and write down the validation loss after this step, unless that was done before."""
        step, store = self.state.global_step, self._validation
        known = self.world.tell(f"validation {step}", lambda: self.metrics_record.has_validation(step))
        means = None if store is None or known else self._validation_means(store)
        if means is not None:
            if not math.isfinite(means[0]):
                raise TrainerError(
                    Reason.TRAINING_DIVERGED, f"the validation loss after step {step} is no finite number"
                )
            measures = dict(zip(self._objective.measures, means[1:], strict=True))
            self.metrics_record.add(step=step, epoch=self.plan.epochs_after(step), validationLoss=means[0], **measures)
            self._on_step(step, 0)
        return {}

    def _validation_means(self, store: Store) -> list[float] | None:
        """Loss and measures over the whole set, of which each rank does its share.

        None without rows, and when somebody asked to stop before its end.
        """
        self._net.eval()
        sums, weight, given_up = np.zeros(1 + len(self._objective.measures)), 0, False
        with torch.no_grad():
            for start in range(0, len(store), SORTED_TOGETHER):
                rows = range(start, min(start + SORTED_TOGETHER, len(store)))
                mine = self.world.share(rows, store.lengths[start : rows.stop])
                for batch, counts in self._with_idle(self._objective.passes(store, mine, self._cut)):
                    given_up = given_up or self._asked_within_step()
                    if given_up:
                        break
                    with self._autocast():
                        of_pass = self._objective.sums(self._net, on_device(batch, self.args.device)).tolist()
                    sums += counts * np.asarray(of_pass)
                    weight += counts * self._objective.weight(batch)
        *of_all, rows_or_tokens, stopped = self.world.sums(*sums.tolist(), weight, given_up)
        return [value / rows_or_tokens for value in of_all] if rows_or_tokens and not stopped else None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ARG002
        if self._sharded and not self.world.is_first:
            checkpoint.follow(self._net, cast("Optimizer", self.optimizer))
        self.world.tell(f"checkpoint {self.state.global_step}", self._write_checkpoint)
        self._saved_step = self.state.global_step

    def _newest(self) -> tuple[str, int, dict[str, Any]] | None:
        found = checkpoint.newest(self._checkpoints)
        return (str(found[0]), *found[1:]) if found else None

    def _write_checkpoint(self) -> None:
        self.interruption.before_writing()
        self.metrics_record.sync()
        checkpoint.save(
            self._checkpoints,
            self.state.global_step,
            model=self._net,
            optimizer=cast("Optimizer", self.optimizer),
            scheduler=cast("LRScheduler", self.lr_scheduler),
            trainer_state=asdict(self.state),
            notes={"fingerprint": self._fingerprint, "seconds": self.seconds},
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ARG002
        checkpoint.load_model(Path(resume_from_checkpoint), self._net)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Path(checkpoint), cast("Optimizer", self.optimizer), cast("LRScheduler", self.lr_scheduler))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_states(Path(checkpoint))

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.args.device, self._compute_dtype)

    def record_step(self, learning_rate: float) -> None:
        """Write down the step that was just done."""
        step = self.state.global_step
        self.metrics_record.add(
            step=step,
            epoch=self.plan.epochs_after(step),
            loss=self._last_means[0],
            **dict(zip(self._objective.measures, self._last_means[1:], strict=True)),
            learningRate=learning_rate,
            gradNorm=self._last_grad_norm,
            tokens=self._last_tokens,
            **{self._objective.unit: self._last_weight},
        )
        self._on_step(step, self._last_tokens)
