"""The gradients of one optimizer step, of this rank's share of it: passes in sequence, or in parallel threads.

    passes -> sums of the objective, divided by the weight of the whole step -> backward -> summed over the ranks

After an out-of-memory error the step is repeated with smaller passes. Independent of optimizer and checkpoints:
`step_trainer.py` uses the gradients.
"""

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from finetune_trainer.computing import gpus, heap
from finetune_trainer.computing.sharding import is_sharded
from finetune_trainer.errors import is_short_of_device_memory
from finetune_trainer.training import side_by_side
from finetune_trainer.training.checkpoint import RandomStates
from finetune_trainer.training.objective import Objective
from finetune_trainer.training.passes import Cut, Pass, autocast, on_device
from finetune_trainer.training.shortage import Lesson, halved
from finetune_trainer.training.steps import CUT, PASSES, Step, Steps, largest
from finetune_trainer.training.surroundings import Surroundings

logger = logging.getLogger(__name__)


class StepAbandoned(Exception):
    """The current step was abandoned; the model is in its state after the previous step."""


class ShortOfMemory(Exception):
    """A step ran out of memory, for the second time in this attempt or with passes that cannot be smaller."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


@dataclass(frozen=True)
class ComputeSettings:
    """How this machine computes a training. Does not change the result, except for rounding."""

    cut: Cut
    """How steps are cut into passes, including the halvings of `lesson`."""
    dtype: torch.dtype
    """The dtype of matrix products."""
    at_once: int = 1
    """Number of passes computed in parallel, if the model supports it."""
    compile_layers: bool = False
    lesson: Lesson = field(default_factory=Lesson)
    """Settings learned from earlier out-of-memory errors."""


class Gradients:
    """Computes the gradients of one step after another.

    Out-of-memory errors change the settings, which are then saved in `checkpoints`.
    """

    def __init__(
        self,
        net: Any,
        steps: Steps,
        objective: Objective,
        settings: ComputeSettings,
        around: Surroundings,
        *,
        checkpoints: Path,
        seed: int,
        accelerator: Any,
    ) -> None:
        self._net, self._steps, self._objective = net, steps, objective
        self.cut, self.lesson, self._retried = settings.cut, settings.lesson, False
        self._checkpoints, self._seed = checkpoints, seed
        self._compute_dtype, self.device, self._at_once = settings.dtype, accelerator.device, settings.at_once
        self._world, self._interruption, self._backward = around.world, around.interruption, accelerator.backward
        trained = [value for value in net.parameters() if value.requires_grad]
        self.own = [value for value in trained if not isinstance(value, DTensor)]
        """Trained parameters that this rank holds whole."""
        self.are_sharded = is_sharded(net)
        self._cut_short = False
        self.tokens, self.weight = 0, 0
        """Of the last step, over all ranks."""
        self.means: Sequence[torch.Tensor | float] = (math.nan,)
        """Mean loss and measures of the last step, over all ranks."""

    def choose_parallelism(self) -> None:
        """Try whether the model can compute passes in parallel. To be called in training mode."""
        if self._at_once == 1:
            return
        why = side_by_side.why_in_order(self._net, partial(self._sums, self._net, self._steps.idle()))
        self._at_once = self._at_once if why is None else 1
        logger.info("passes are computed %s", f"{self._at_once} at a time" if why is None else f"in order: {why}")

    def of_step(self, model: Any, inputs: Step, step: int) -> torch.Tensor:
        """Run the forward and backward passes of optimizer step `step`; returns this rank's part of its mean loss.

        Raises:
            StepAbandoned: a stop was requested; a step may take longer than a pod has after SIGTERM.
            ShortOfMemory: out of memory, with nothing left to try in this attempt.
        """
        passes: list[Pass] = (inputs if inputs[CUT] == self.cut else self._steps[step])[PASSES].each
        mine = sum(map(self._objective.weight, passes)), sum(int(batch["tokens"]) for batch in passes)
        weight, self.tokens = map(int, self._world.sums(*mine))
        before, halvings = RandomStates.now(), self.lesson.halvings
        self._world.reseed(self._seed, step)
        while (means := self._try_step(model, passes, weight)) is None:
            before.restore()
            self._world.reseed(self._seed, step)
            passes = self._smaller(passes, step)
        if self.device.type == "cpu" and not self._fit_freed_blocks(passes):
            heap.trim()  # the next step's passes do not fit into this one's freed blocks
        part: Any = means if self._world.size == 1 else means.tolist()  # a single rank need not wait for the GPU here
        short = self.lesson.halvings - halvings
        *self.means, given_up, any_short = self._world.sums(*part, self._cut_short, short)
        if any_short:
            self._halve_like_others(self._world.largest(short) - short, step)
        if given_up:
            self._interruption.set_by_other_rank()
            before.restore()
            raise StepAbandoned
        self._world.sum_gradients(self.own)
        self.weight = weight
        return means[0]

    def _fit_freed_blocks(self, passes: list[Pass]) -> bool:
        """Whether passes fit into freed blocks of others: many small packed ones. Mapping new pages takes time."""
        budget = self.cut.token_budget
        return self._at_once > 1 and budget is not None and largest(passes or [self._steps.idle()]) <= budget

    def _try_step(self, model: Any, passes: list[Pass], weight: int) -> torch.Tensor | None:
        """This rank's gradients of a step; returns its part of the means, or None without gradients if out of memory.

        The failed pass is freed only once the exception is gone, so retry only after this has returned.
        """
        if self._at_once > 1:
            return self._side_by_side(model, passes, weight)
        total = torch.zeros(1 + len(self._objective.measures), device=self.device)
        gapless = self.device.type != "cpu" or hasattr(self._net, "peft_config")
        try:
            for batch, counts in self.with_idle(passes):
                self._cut_short = self.stop_requested()
                if self._cut_short:
                    break
                means = counts * self._sums(model, batch) / max(weight, 1)
                self._backward(means[0])
                total += means.detach()
                if not gapless:
                    heap.trim()  # large gradients do not fit into freed blocks: each pass would need new memory
        except RuntimeError as error:
            if not is_short_of_device_memory(error):
                raise
            self._net.zero_grad(set_to_none=True)
            return None
        return total

    def _side_by_side(self, model: Any, passes: list[Pass], weight: int) -> torch.Tensor:
        """The same in threads on a CPU. Gradients are added in the order of the passes: bit-identical each time."""
        total = torch.zeros(1 + len(self._objective.measures))
        of_pass = partial(self._of_pass, model, weight)
        for made in side_by_side.each(passes, of_pass, at_once=self._at_once):
            if made is None:
                self._cut_short = True
                break
            means, gradients = made
            total += means
            for value, gradient in zip(self.own, gradients, strict=True):
                if gradient is not None:
                    value.grad = gradient if value.grad is None else value.grad.add_(gradient)
        return total

    def _of_pass(
        self, model: Any, weight: int, batch: Pass
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]] | None:
        """The means of a pass and its gradients for `own`; None if a stop was requested."""
        if self.stop_requested():
            return None
        means = self._sums(model, batch) / max(weight, 1)
        return means.detach(), torch.autograd.grad(means[0], self.own, allow_unused=True)

    def _sums(self, model: Any, batch: Pass) -> torch.Tensor:
        with self.autocast():
            return self._objective.sums(model, on_device(batch, self.device))

    def measured(self, passes: list[Pass]) -> Iterator[list[float] | None]:
        """The sums of each pass, without gradients; None and the end if a stop was requested."""

        def of_pass(batch: Pass) -> list[float] | None:
            with torch.no_grad():  # applies to the current thread only
                return None if self.stop_requested() else self._sums(self._net, batch).tolist()

        return side_by_side.each(passes, of_pass, at_once=self._at_once)

    def _smaller(self, passes: list[Pass], step: int) -> list[Pass]:
        """The passes of this step at half the size, which applies from now on. The failed passes must be freed before.

        Raises:
            ShortOfMemory: it happened before in this attempt, or they cannot be smaller.
        """
        gpus.empty_cache()
        most = largest(passes or [self._steps.idle()])  # a rank without rows computes along
        times, smaller = self._steps.halved_below(most, step)
        lesson = self.lesson.harder(times)
        if lesson is not None:
            lesson.write(self._checkpoints)
        if self.are_sharded or self._retried or lesson is None or not times:
            raise ShortOfMemory(most)
        self.lesson, self.cut, self._retried = lesson, halved(self.cut, times), True
        logger.warning("The GPU's memory was not enough: passes are halved, and step %d is done again.", step + 1)
        return smaller

    def _halve_like_others(self, times: int, step: int) -> None:
        """Halve the passes as the ranks that ran out of memory did: all do the same, and rank 0 saves the lesson."""
        if not times:
            return
        self.lesson, self.cut = self.lesson.halved(times), halved(self.cut, times)
        self._steps.recut(self.cut)
        if self._world.is_first:  # another rank's files may be in its own pod, and lost with it
            self.lesson.write(self._checkpoints)
        logger.warning("Another rank's GPU had too little memory in step %d: passes are halved here, too.", step + 1)

    def with_idle(self, passes: list[Pass]) -> list[tuple[Pass, int]]:
        """Passes and their weights. A sharded model needs equally many on all ranks: idle passes count 0."""
        weighted = [(one, 1) for one in passes]
        if not self.are_sharded:
            return weighted
        return weighted + [(self._steps.idle(), 0)] * (self._world.largest(len(passes)) - len(passes))

    def stop_requested(self) -> bool:
        """Whether to stop before the next pass: decided per rank, but jointly if sharded ranks wait for each other."""
        requested = self._interruption.is_requested
        return self._world.any_rank(requested) if self.are_sharded else requested

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which a pass is computed."""
        return autocast(self.device, self._compute_dtype)
