"""Checkpoints: what a killed run needs to go on as if nothing had happened. Whole or not at all, and no pickle.

    checkpoints/step-00000120/
      model.safetensors       parameters that are trained
      optimizer.safetensors   its tensors, as INDEX.NAME
      random.safetensors      torch's random states
      state.json              what is no tensor: optimizer groups, schedule, Python's random state, the run's own notes
      trainer_state.json      transformers' TrainerState
      manifest.json           checksums, written last

When to save is not decided here. The order of the data needs no state: it follows from seed and step (`batches.py`).
"""

import json
import logging
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from finetune_api.reasons import Reason
from finetune_trainer.durable import read_manifest, remove_unfinished, whole_folder
from finetune_trainer.errors import TrainerError

KEPT = 2
"""Checkpoints that are kept: the newest may turn out to be damaged."""

_PREFIX = "step-"
_CUDA = "cuda"

logger = logging.getLogger(__name__)


def save(
    root: Path,
    step: int,
    *,
    model: torch.nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    trainer_state: dict[str, Any],
    notes: dict[str, Any],
) -> Path:
    """Write the checkpoint of `step` below `root` and delete all but the newest.

    `notes` is the run's own: `newest` gives it back.

    Raises:
        TrainerError: ArtifactFailed, it cannot be written.
    """
    final = root / f"{_PREFIX}{step:08d}"
    tensors, groups = _split(optimizer.state_dict())
    random_states = RandomStates.now()
    with whole_folder(final, step=step) as folder:
        save_file(_trained(model), folder / "model.safetensors")
        save_file(tensors, folder / "optimizer.safetensors")
        save_file(random_states.generators, folder / "random.safetensors")
        state = {
            "groups": groups,
            "schedule": scheduler.state_dict(),
            "python": random_states.python,
            "notes": notes,
        }
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        (folder / "trainer_state.json").write_text(json.dumps(trainer_state), encoding="utf-8")
    for old in _all(root)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest(root: Path) -> tuple[Path, int, dict[str, Any]] | None:
    """The newest whole checkpoint: its folder, step and notes. Half-written and damaged ones are deleted."""
    remove_unfinished(root)
    for folder in reversed(_all(root)):
        manifest = read_manifest(folder)
        if manifest is not None:
            return folder, manifest["step"], _state(folder)["notes"]
        logger.warning("%s is damaged and is deleted; the run goes on from an earlier step.", folder.name)
        shutil.rmtree(folder, ignore_errors=True)
    return None


def load_model(folder: Path, model: torch.nn.Module) -> None:
    """Put the trained parameters back, in place.

    Raises:
        TrainerError: SpecInvalid, the base model is another one by now.
    """
    saved = load_file(folder / "model.safetensors")
    trained = _trained(model)
    if _shapes(saved) != _shapes(trained):
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{folder} is a checkpoint of another base model of the same name",
            "Choose another output folder, or delete that one.",
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved[name])


def load_optimizer(folder: Path, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Put the states of optimizer and learning-rate schedule back."""
    state = _state(folder)
    optimizer.load_state_dict(_join(load_file(folder / "optimizer.safetensors"), state["groups"]))
    scheduler.load_state_dict(state["schedule"])


def load_random_states(folder: Path) -> None:
    """Put the random states of torch and Python back."""
    RandomStates(load_file(folder / "random.safetensors"), _state(folder)["python"]).restore()


@dataclass(frozen=True)
class RandomStates:
    """Those that a step may draw from: torch's by device, and Python's own."""

    generators: dict[str, torch.Tensor]
    python: Any

    @classmethod
    def now(cls) -> Self:
        """As they are at this moment."""
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states |= {f"{_CUDA}{index}": value for index, value in enumerate(torch.cuda.get_rng_state_all())}
        return cls(states, random.getstate())

    def restore(self) -> None:
        """Put them back."""
        version, numbers, gauss = self.python  # JSON made lists of its tuples
        random.setstate((version, tuple(numbers), gauss))
        for name, value in self.generators.items():
            if name == "cpu":
                torch.set_rng_state(value)
            else:
                torch.cuda.set_rng_state(value, int(name.removeprefix(_CUDA)))


def _all(root: Path) -> list[Path]:
    return sorted(path for path in root.glob(f"{_PREFIX}*") if path.is_dir()) if root.is_dir() else []


def _state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state


def _trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


def _split(state: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """An optimizer's state as flat tensors and JSON-ready groups."""
    tensors = {f"{index}.{name}": value for index, entry in state["state"].items() for name, value in entry.items()}
    return tensors, state["param_groups"]


def _join(tensors: dict[str, torch.Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The inverse of `_split`."""
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    for group in groups:
        group["betas"] = tuple(group["betas"])  # JSON knows lists only
    return {"state": entries, "param_groups": groups}
