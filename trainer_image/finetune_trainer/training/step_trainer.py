"""transformers' Trainer with exact steps: one batch of its loop is one optimizer step, whatever fits into memory.

    Plan.rows_of(step) -> forward passes of similar lengths -> gradients -> clipped -> optimizer

So gradients do not depend on how a step is cut into passes or on how many ranks share it (`ranks.py`), the order of the
data needs no sampler state, and what happens between steps (validation, checkpoints, stopping) depends only on step
numbers. A step's gradients are made in `gradients.py`, the loss is in `objective.py`; loading, adapters and artifacts
are elsewhere.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft.optimizers import create_loraplus_optimizer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from finetune_api.job import FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_trainer.attempt.metrics import CHOSEN_LOSS, FILE
from finetune_trainer.computing.compiled_layers import in_training
from finetune_trainer.computing.sharding import bytes_here, gathered
from finetune_trainer.errors import TrainerError, is_short_of_device_memory
from finetune_trainer.training import checkpoint
from finetune_trainer.training.batches import SORTED_TOGETHER
from finetune_trainer.training.checkpoint import load_optimizer, load_random_states
from finetune_trainer.training.course import Course
from finetune_trainer.training.gradients import ComputeSettings, Gradients, ShortOfMemory, StepAbandoned
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.reference import Reference
from finetune_trainer.training.schedule import factor, warmup_steps
from finetune_trainer.training.shortage import Lesson, no_room_for_optimizer, out_of_memory
from finetune_trainer.training.steps import Step, Steps, Store, only
from finetune_trainer.training.surroundings import Surroundings


class StepTrainer(Trainer):
    """Trainer whose batch is a whole optimizer step. `run` trains from the newest checkpoint or from the start."""

    loss_is_scaled_for_ga = True  # training_step divides by the step's labelled tokens itself

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        spec: FineTuneJobSpec,
        course: Course,
        settings: ComputeSettings,
        *,
        around: Surroundings,
        checkpoints: Path,
    ) -> None:
        steps = Steps(course.train, course.plan, settings.cut, around.world, course.objective)
        super().__init__(model=model, args=args, train_dataset=steps, data_collator=only, callbacks=[_Pacer(self)])
        self.remove_callback(PrinterCallback)
        self._net: Any = model
        self._spec, self.course, self.world = spec, course, around.world
        self.metrics_record, self.interruption, self._on_step = around.metrics, around.interruption, around.on_step
        self._checkpoints, self._origin = checkpoints, around.origin
        self._compile = settings.compile_layers
        self._last_means, self._last_grad_norm = [math.nan], math.nan
        self._trained = [value for value in model.parameters() if value.requires_grad]
        self._saved_step, self.in_optimizer = 0, False
        self._gradients = Gradients(
            model,
            steps,
            course.objective,
            settings,
            around,
            checkpoints=checkpoints,
            seed=spec.hyperparameters.seed,
            accelerator=self.accelerator,
        )
        self.loss_at_end: float | None = None
        """Mean loss per token of the last step's rows after that step, which the record lacks; None if not measured."""
        self.seconds_before = 0.0
        self._started = time.monotonic()

    def run(self, *, measure_end: bool = False) -> None:
        """Train to the end, or until a stop is requested; then a checkpoint was written.

        `measure_end` also measures the loss after the last step: a user's own loss may only work in training.

        Raises:
            TrainerError: TrainingDiverged, ArtifactFailed, SpecInvalid (checkpoints of another job), OutOfMemory,
                InsufficientMemory (the optimizer has no room).
        """
        found = self.world.broadcast("checkpoint", self._newest)
        if found is None:
            self.metrics_record.keep_until(0)
        else:
            self._resume_notes(*found)
        self.world.broadcast_weights(self._gradients.own)
        self._started = time.monotonic()
        try:
            packed = self._gradients.cut.packed
            with in_training(self._net, self._trained, packed=packed, compile_layers=self._compile):
                self._fill_reference()
                self._net.train()  # peft's wrapper is in training mode from the start, its base need not be
                self._gradients.choose_parallelism()
                self.train(resume_from_checkpoint=found[0] if found else None)
                self.loss_at_end = self._measured_at_end() if measure_end else None
        except StepAbandoned:
            self._save_progress()
        except ShortOfMemory as short:
            if self.world.size == 1:  # other ranks are in the middle of the step
                self._save_progress()
            tokens, hyper = short.tokens // self.course.objective.texts, self._spec.hyperparameters
            raise out_of_memory(self.state.global_step + 1, tokens, self.lesson, hyper) from short
        except RuntimeError as error:
            if not (self.in_optimizer and is_short_of_device_memory(error)):
                raise
            raise self._without_room() from error

    def _without_room(self) -> TrainerError:
        trained = sum(map(bytes_here, self._trained))
        shared_out = self._gradients.are_sharded
        return no_room_for_optimizer(self.state.global_step + 1, trained, self._spec, shared_out=shared_out)

    def _measured_at_end(self) -> float | None:
        plan = self.course.plan
        if self.state.global_step < plan.total_steps:
            return None
        means = self._means_over(self.course.train, plan.rows_of(plan.total_steps - 1))
        measures = self.course.objective.measures
        of_answers = 1 + measures.index(CHOSEN_LOSS) if CHOSEN_LOSS in measures else 0
        return None if means is None else means[of_answers]

    def _fill_reference(self) -> None:
        """Compute what the untrained model says of rows with two answers: preference training compares with it."""
        course = self.course
        if not isinstance(course.train, PairStore):
            return
        reference = Reference(
            self._net,
            self._checkpoints,
            self._origin.fingerprint,
            gradients=self._gradients,
            world=self.world,
            interruption=self.interruption,
        )
        reference.fill("train", course.train)
        if isinstance(course.validation, PairStore):
            reference.fill("validation", course.validation)

    def _save_progress(self) -> None:
        if self.state.global_step > self._saved_step:
            self._save_checkpoint(self._net, None)

    @property
    def lesson(self) -> Lesson:
        """The settings learned from out-of-memory errors."""
        return self._gradients.lesson

    @property
    def seconds(self) -> float:
        """Seconds of training, including earlier attempts up to their last checkpoint."""
        return self.seconds_before + time.monotonic() - self._started

    def stopping(self) -> bool:
        """Whether any rank got a stop request: then all ranks stop after the same step."""
        requested = self.world.any_rank(self.interruption.is_requested)
        if requested:
            self.interruption.set_by_other_rank()
        return requested

    def _resume_notes(self, folder: str, step: int, notes: dict[str, Any]) -> None:
        if not Path(folder).is_dir():  # a claim that only one node can mount, or a different one
            message = f"{folder} is the checkpoint to resume from, and is not there on every node"
            raise TrainerError(Reason.ARTIFACT_FAILED, message, "Keep artifacts on a ReadWriteMany claim.")
        self._origin.require_same(Path(folder), notes)
        self.seconds_before, self._saved_step = notes["seconds"], step
        self.metrics_record.keep_until(step, Path(folder) / FILE)

    # The following methods override transformers' Trainer, with its names and arguments.

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        steps: Any = train_dataset or self.train_dataset
        return SequentialSampler(steps)

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """Transformers' AdamW; LoRA+ gives the B matrices of adapters a higher learning rate."""
        adapters = self._spec.adapters
        ratio = adapters.lora_plus_ratio if adapters else None
        if ratio is None or self.optimizer is not None:
            return super().create_optimizer(model)
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self._net)
        optimizer: Optimizer = create_loraplus_optimizer(
            self._net,
            kind,
            loraplus_lr_ratio=ratio,
            loraplus_weight_decay=self.args.weight_decay,
            **options,
        )
        self.optimizer = optimizer
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        """Our schedule: transformers' own ones start with a learning rate of 0."""
        hyper = self._spec.hyperparameters
        part_of_peak = partial(
            factor,
            schedule=hyper.schedule,
            warmup=warmup_steps(hyper.warmup_ratio, num_training_steps),
            total_steps=num_training_steps,
        )
        self.lr_scheduler = LambdaLR(optimizer or cast("Optimizer", self.optimizer), part_of_peak)
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute the gradients of one optimizer step; returns this rank's part of its mean loss.

        Raises:
            StepAbandoned, ShortOfMemory: as `Gradients.of_step`.
        """
        if not model.training:
            model.train()
        return self._gradients.of_step(model, inputs, self.state.global_step)

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip, and check loss and norm before the optimizer could corrupt the weights.

        Gradients may overflow even if the loss does not. This is the only place in a step where the host waits for
        the GPU.

        Raises:
            TrainerError: TrainingDiverged.
        """
        norm = gathered(torch.nn.utils.clip_grad_norm_(self._trained, self.args.max_grad_norm))
        means = [torch.as_tensor(mean, dtype=norm.dtype, device=norm.device) for mean in self._gradients.means]
        *self._last_means, self._last_grad_norm = torch.stack((*means, norm)).tolist()
        step = self.state.global_step + 1
        if not math.isfinite(self._last_means[0]):
            raise TrainerError(Reason.TRAINING_DIVERGED, f"the training loss of step {step} is not a finite number")
        if not math.isfinite(self._last_grad_norm):
            raise TrainerError(Reason.TRAINING_DIVERGED, f"the gradients of step {step} are not finite numbers")
        return norm

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: transformers' formula expects another batch shape."""
        return 0

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """Measure and record the validation loss after this step, unless that is already done."""
        self.control.should_evaluate = False  # the loop checks again at the end of an epoch
        step, store = self.state.global_step, self.course.validation
        known = self.world.broadcast(f"validation {step}", lambda: self.metrics_record.has_validation(step))
        means = None if store is None or known else self._means_over(store, range(len(store)))
        if means is not None:
            if not math.isfinite(means[0]):
                raise TrainerError(
                    Reason.TRAINING_DIVERGED, f"the validation loss after step {step} is not a finite number"
                )
            measures = dict(zip(self.course.objective.measures, means[1:], strict=True))
            self._write_down(step=step, epoch=self.course.plan.epochs_after(step), validationLoss=means[0], **measures)
            self._on_step(step, 0)
        return {}

    def _means_over(self, store: Store, rows: Sequence[int]) -> list[float] | None:
        """Mean loss and measures over these rows, divided among the ranks.

        None if there are no rows, or if a stop was requested before the end.
        """
        self._net.eval()
        gradients = self._gradients
        sums, weight, given_up = np.zeros(1 + len(self.course.objective.measures)), 0, False
        for start in range(0, len(rows), SORTED_TOGETHER):
            part = list(rows[start : start + SORTED_TOGETHER])
            mine = self.world.share(part, store.lengths[part])
            passes = gradients.with_idle(self.course.objective.passes(store, mine, gradients.cut))
            for (batch, counts), of_pass in zip(passes, gradients.measured([one for one, _ in passes]), strict=False):
                if of_pass is None:
                    given_up = True
                    break
                sums += counts * np.asarray(of_pass)
                weight += counts * self.course.objective.weight(batch)
        *of_all, rows_or_tokens, stopped = self.world.sums(*sums.tolist(), weight, given_up)
        return [value / rows_or_tokens for value in of_all] if rows_or_tokens and not stopped else None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self._gradients.are_sharded and not self.world.is_first:
            checkpoint.join_save(self._net, cast("Optimizer", self.optimizer))
        self.world.broadcast(f"checkpoint {self.state.global_step}", self._write_checkpoint)
        self._saved_step = self.state.global_step

    def _newest(self) -> tuple[str, int, dict[str, Any]] | None:
        found = checkpoint.newest(self._checkpoints)
        return (str(found[0]), *found[1:]) if found else None

    def _write_checkpoint(self) -> None:
        self.interruption.before_writing()
        checkpoint.save(
            self._checkpoints,
            self.state.global_step,
            model=self._net,
            optimizer=cast("Optimizer", self.optimizer),
            scheduler=cast("LRScheduler", self.lr_scheduler),
            trainer_state=asdict(self.state),
            notes=self._origin.notes() | {"seconds": self.seconds},
            record=self.metrics_record,
            before_rename=self.interruption.before_writing,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoint.load_model(Path(resume_from_checkpoint), self._net)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(Path(checkpoint), cast("Optimizer", self.optimizer), cast("LRScheduler", self.lr_scheduler))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_states(Path(checkpoint))

    def record_step(self, learning_rate: float) -> None:
        """Record the step that just ended."""
        step = self.state.global_step
        self._write_down(
            step=step,
            epoch=self.course.plan.epochs_after(step),
            loss=self._last_means[0],
            **dict(zip(self.course.objective.measures, self._last_means[1:], strict=True)),
            learningRate=learning_rate,
            gradNorm=self._last_grad_norm,
            tokens=self._gradients.tokens,
            **{self.course.objective.unit: self._gradients.weight},
        )
        self._on_step(step, self._gradients.tokens)

    def _write_down(self, **line: Any) -> None:
        """Add a line to the record, unless a newer attempt has taken it over."""
        if not self.interruption.is_superseded():
            self.metrics_record.add(**line)


class _Pacer(TrainerCallback):
    """Tells the loop what to do after each step."""

    def __init__(self, trainer: StepTrainer) -> None:
        self._trainer = trainer
        self._learning_rate = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """First repeat a validation that was interrupted in an earlier attempt."""
        if state.global_step and self._trainer.course.intervals.validates(state.global_step):
            self._trainer.evaluate()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """Read the learning rate while it is still that of this step."""
        self._learning_rate = self._trainer._get_learning_rate()  # noqa: SLF001 - transformers' own accessor
        self._trainer.in_optimizer = True

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """The optimizer is done."""
        self._trainer.in_optimizer = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> Any:
        """Record the step, and decide what comes next: validation, checkpoint, or the end."""
        self._trainer.record_step(self._learning_rate)
        step, stopping = state.global_step, self._trainer.stopping()
        control.should_evaluate = self._trainer.course.intervals.validates(step) and not stopping
        control.should_save = self._trainer.course.intervals.saves(step) or stopping
        control.should_training_stop = control.should_training_stop or stopping
        return control
