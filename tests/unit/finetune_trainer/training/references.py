"""What preference tuning compares with, asked by one rank that nobody interrupts."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.computing.ranks import ALONE
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.passes import Cut
from finetune_trainer.training.reference import Reference


def fill(store: PairStore, model: Any, folder: Path, fingerprint: str, cut: Cut) -> None:
    """By the model, or by what is kept in the folder."""
    made = Reference(
        model,
        folder,
        fingerprint,
        cut=cut,
        autocast=nullcontext,
        with_idle=lambda passes: [(one, 1) for one in passes],
        asked=lambda: False,
        device="cpu",
        world=ALONE,
        interruption=Interruption(),
    )
    made.fill("train", store)
