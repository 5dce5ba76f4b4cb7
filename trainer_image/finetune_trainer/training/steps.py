"""A data set whose items are optimizer steps: each is the forward passes of its rows, made on access."""

from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from finetune_trainer.computing.ranks import ALONE, World
from finetune_trainer.training.batches import Plan
from finetune_trainer.training.objective import LIKELIHOOD, Objective
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.passes import Cut, Pass
from finetune_trainer.training.shortage import halved, halvings_of
from finetune_trainer.training.token_store import TokenStore

Step = dict[str, Any]
Store = TokenStore | PairStore
PASSES, CUT = "passes", "cut"


@dataclass(frozen=True)
class _Passes:
    """A step's passes, wrapped so that accelerate does not move them to the GPU: each is moved when it is computed."""

    each: list[Pass]


class Steps(Dataset[Step]):
    """Item i is optimizer step i: `passes` are this rank's forward passes as tensors, made with `cut`."""

    def __init__(
        self, store: Store, plan: Plan, cut: Cut, world: World = ALONE, objective: Objective = LIKELIHOOD
    ) -> None:
        self._store, self._plan, self._cut, self._world = store, plan, cut, world
        self._objective = objective

    def __len__(self) -> int:
        return self._plan.total_steps

    def __getitem__(self, step: int) -> Step:
        rows = self._plan.rows_of(step)
        mine = self._world.share(rows, self._store.lengths[rows])
        return {PASSES: _Passes(self._objective.passes(self._store, mine, self._cut)), CUT: self._cut}

    def idle(self) -> Pass:
        """The smallest possible pass, for a rank without rows that must compute along with the others."""
        return self._objective.passes(self._store, [int(self._store.lengths.argmin())], self._cut)[0]

    def recut(self, cut: Cut) -> None:
        """Cut steps like this from now on; prefetched ones still have the previous cut."""
        self._cut = cut

    def halved_below(self, most: int, step: int) -> tuple[int, list[Pass]]:
        """How often to halve until the step's largest pass has fewer tokens than `most`; 0 if halving does not help.

        The budget of a pass may be far above its size, which is limited by this rank's rows of the step. Also
        returns the step's passes after halving, which applies to all later steps.
        """
        cut = self._cut
        for times in halvings_of(cut):
            self.recut(halved(cut, times))
            passes: list[Pass] = self[step][PASSES].each
            if largest(passes or [self.idle()]) < most:
                return times, passes
        self.recut(cut)
        return 0, []


def only(items: list[Step]) -> Step:
    """The collator: a batch is one item."""
    return items[0]


def largest(passes: list[Pass]) -> int:
    """Tokens of the largest pass, including padding."""
    return max(batch["input_ids"].numel() for batch in passes)
