"""Reference log-probabilities of preference tuning, computed by a single rank without interruptions."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.computing.ranks import ALONE
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.passes import Cut, Pass
from finetune_trainer.training.reference import Reference


class InOrder:
    """Forward passes one after the other, in the model's own dtype."""

    device = "cpu"

    def __init__(self, cut: Cut) -> None:
        self.cut = cut

    def autocast(self) -> nullcontext[None]:
        return nullcontext()

    def with_idle(self, passes: list[Pass]) -> list[tuple[Pass, int]]:
        return [(one, 1) for one in passes]

    def stop_requested(self) -> bool:
        return False


def fill(store: PairStore, model: Any, folder: Path, fingerprint: str, cut: Cut) -> None:
    """Fill the store from the model, or from the values stored in the folder."""
    made = Reference(model, folder, fingerprint, gradients=InOrder(cut), world=ALONE, interruption=Interruption())
    made.fill("train", store)
