"""Likelihoods of pairs under the untrained model: preference tuning compares with them at every step.

Each pair is computed once, with adapters disabled, and saved: training needs neither a second model in memory nor a
second pass. The values are stored beside the checkpoints, so that a resumed run compares with the same ones.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.computing.ranks import World
from finetune_trainer.storage.durable import require_file, whole_file
from finetune_trainer.training.batches import SORTED_TOGETHER
from finetune_trainer.training.objective import margins_of, pair_groups, pair_pass
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.passes import on_device

if TYPE_CHECKING:
    from finetune_trainer.training.gradients import Gradients

_KEEP_SECONDS = 60.0
"""At most this much work is lost if the pod is killed."""

_MARGINS, _FINGERPRINT = "margins", "fingerprint"

logger = logging.getLogger(__name__)


class Reference:
    """The untrained model and its likelihoods so far.

    Saved values with another `fingerprint` of job and data are ignored.
    """

    def __init__(
        self,
        model: Any,
        folder: Path,
        fingerprint: str,
        *,
        gradients: "Gradients",
        world: World,
        interruption: Interruption,
    ) -> None:
        self._model, self._folder, self._fingerprint, self._gradients = model, folder, fingerprint, gradients
        self._world, self._interruption = world, interruption
        self._kept_at = time.monotonic()

    def fill(self, name: str, store: PairStore) -> None:
        """Fill `store.reference`; `name` is the split's.

        Raises:
            Interrupted: a stop was requested; the values so far are saved.
            TrainerError: ArtifactFailed, they cannot be saved.
        """
        known: list[float] = self._world.broadcast(f"reference {name}", lambda: self._kept(name, len(store)))
        store.reference[: len(known)] = known
        if len(known) < len(store):
            logger.info("the model before training is asked about %d pairs of %s", len(store) - len(known), name)
        for start in range(len(known), len(store), SORTED_TOGETHER):
            rows = list(range(start, min(start + SORTED_TOGETHER, len(store))))
            margins = self._margins(store, rows)
            if self._world.any_rank(self._interruption.is_requested):
                self._keep(name, store.reference[:start], at_once=True)
                self._interruption.set_by_other_rank()
                self._interruption.check()
            store.reference[rows] = margins
            self._keep(name, store.reference[: rows[-1] + 1], at_once=rows[-1] + 1 == len(store))

    def _margins(self, store: PairStore, rows: list[int]) -> list[float]:
        """The margins of these rows; each rank computes its share. Incomplete if a stop was requested."""
        found, gradients = dict.fromkeys(rows, 0.0), self._gradients
        mine = pair_groups(store, self._world.share(rows, store.lengths[rows]), gradients.cut)
        passes = gradients.with_idle([pair_pass(store, group, gradients.cut) for group in mine])
        self._model.eval()
        with torch.no_grad(), _without_adapters(self._model):
            for group, (batch, _) in zip(chain(mine, repeat([])), passes, strict=False):
                if gradients.stop_requested():
                    break
                with gradients.autocast():
                    margins = margins_of(self._model, on_device(batch, gradients.device)).tolist()
                found.update(zip(group, margins, strict=False))
        return list(self._world.sums(*found.values()))

    def _kept(self, name: str, rows: int) -> list[float]:
        """What an earlier attempt saved for the same job and data."""
        try:
            require_file(self._path(name))
            with safe_open(self._path(name), framework="numpy") as file:
                margins: list[float] = file.get_tensor(_MARGINS).tolist()
                same = file.metadata()[_FINGERPRINT] == self._fingerprint and len(margins) <= rows
        except (OSError, SafetensorError, KeyError, TypeError):
            return []
        return margins if same else []

    def _keep(self, name: str, margins: NDArray[np.float32], *, at_once: bool) -> None:
        """Save the values so far, atomically, unless that was done recently.

        Raises:
            TrainerError: ArtifactFailed.
        """
        if not self._world.is_first or not (at_once or time.monotonic() - self._kept_at > _KEEP_SECONDS):
            return
        self._interruption.before_writing()
        whole_file(self._path(name), save({_MARGINS: margins}, metadata={_FINGERPRINT: self._fingerprint}))
        self._kept_at = time.monotonic()

    def _path(self, name: str) -> Path:
        return self._folder / f"reference-{name}.safetensors"


@contextlib.contextmanager
def _without_adapters(model: Any) -> Iterator[None]:
    with model.disable_adapter() if hasattr(model, "peft_config") else contextlib.nullcontext():
        yield
