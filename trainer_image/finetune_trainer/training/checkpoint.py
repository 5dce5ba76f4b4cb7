"""Checkpoints: what a killed run needs to continue as if nothing had happened. Written atomically, and no pickle.

    checkpoints/step-00000120/
      model*.safetensors      trained parameters, unsharded, in pieces
      optimizer*.safetensors  its tensors, as INDEX.NAME
      random.safetensors      torch's random states
      state.json              everything else: optimizer groups, schedule, Python's random state, the run's notes
      trainer_state.json      transformers' TrainerState
      metrics.jsonl           the run's record up to this step
      manifest.json           checksums, written last

`intervals.py` decides when to save. The order of the data needs no state: it follows from seed and step (`batches.py`).
"""

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from finetune_trainer.attempt.metrics import FILE, Metrics
from finetune_trainer.computing.sharding import gathered, like
from finetune_trainer.storage.durable import read_manifest_or_raise, remove_unfinished, volume_error, whole_folder
from finetune_trainer.training.checkpoint_names import checkpoints_in, folder_name
from finetune_trainer.training.origin import of_another_base

KEPT = 2
"""Number of checkpoints to keep: the newest may turn out to be damaged."""

_PIECE_BYTES = 2 * 1024**3
"""Limit for gathering sharded tensors: at most this much is in memory at once."""

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
    record: Metrics,
    before_rename: Callable[[], None] = lambda: None,
) -> Path:
    """Write the checkpoint of `step` below `root` and delete all but the newest.

    `notes` is opaque here: `newest` returns it. If `before_rename` raises, no checkpoint is left.

    Raises:
        TrainerError: ArtifactFailed, it cannot be written.
    """
    final = root / folder_name(step)
    tensors, groups = _split(optimizer.state_dict())
    random_states = RandomStates.now()
    with whole_folder(final, before_rename=before_rename, step=step) as folder:
        _save(_trained(model), folder, "model")
        _save(tensors, folder, "optimizer")
        save_file(random_states.generators, folder / "random.safetensors")
        state = {
            "groups": groups,
            "schedule": scheduler.state_dict(),
            "python": random_states.python,
            "notes": notes,
        }
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        (folder / "trainer_state.json").write_text(json.dumps(trainer_state), encoding="utf-8")
        (folder / FILE).write_text(record.text(), encoding="utf-8")
    for old in checkpoints_in(root)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def join_save(model: torch.nn.Module, optimizer: Optimizer) -> None:
    """The other ranks' part of `save` on rank 0: gather the same sharded tensors in the same order."""
    for tensors in (_trained(model), _split(optimizer.state_dict())[0]):
        for value in tensors.values():
            gathered(value)


def newest(root: Path) -> tuple[Path, int, dict[str, Any]] | None:
    """The newest complete checkpoint: its folder, step and notes. Partial and damaged ones are deleted.

    Raises:
        TrainerError: StoreUnavailable or ArtifactFailed, there are checkpoints, but none can be read now.
    """
    remove_unfinished(root)
    trouble: OSError | None = None
    for folder in reversed(checkpoints_in(root)):
        try:
            manifest = read_manifest_or_raise(folder)
        except OSError as error:
            logger.warning("%s cannot be read (%s) and is passed over.", folder.name, error.strerror)
            trouble = error
            continue
        if manifest is not None:
            return folder, manifest["step"], _state(folder)["notes"]
        logger.warning("%s is damaged and is deleted; the run resumes from an earlier step.", folder.name)
        shutil.rmtree(folder, ignore_errors=True)
    if trouble is not None:  # starting over would overwrite them
        raise volume_error(f"{root} has checkpoints that cannot be read", trouble)
    return None


def load_model(folder: Path, model: torch.nn.Module) -> None:
    """Restore the trained parameters, in place.

    Raises:
        TrainerError: SpecInvalid, the base model has changed.
    """
    trained = _trained(model)
    with _saved(folder, "model") as saved, torch.no_grad():
        shapes = {name: list(value.shape) for name, value in trained.items()}
        if {name: saved.shape(name) for name in saved.names} != shapes:
            raise of_another_base(folder)
        for name, parameter in trained.items():
            parameter.copy_(like(parameter, saved.tensor(name)))


def load_optimizer(folder: Path, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Restore the states of optimizer and learning-rate schedule."""
    state = _state(folder)
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    with _saved(folder, "optimizer") as saved:
        tensors = {
            name: _sharded_if_needed(saved.tensor(name), parameters[int(name.split(".", 1)[0])]) for name in saved.names
        }
        optimizer.load_state_dict(_join(tensors, state["groups"]))
    scheduler.load_state_dict(state["schedule"])


def load_random_states(folder: Path) -> None:
    """Restore the random states of torch and Python."""
    RandomStates(load_file(folder / "random.safetensors"), _state(folder)["python"]).restore()


@dataclass(frozen=True)
class RandomStates:
    """The random states that a step may use: torch's by device, and Python's."""

    generators: dict[str, torch.Tensor]
    python: Any

    @classmethod
    def now(cls) -> Self:
        """The current states."""
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states |= {f"{_CUDA}{index}": value for index, value in enumerate(torch.cuda.get_rng_state_all())}
        return cls(states, random.getstate())

    def restore(self) -> None:
        """Restore these states."""
        version, numbers, gauss = self.python  # JSON made lists of its tuples
        random.setstate((version, tuple(numbers), gauss))
        for name, value in self.generators.items():
            if name == "cpu":
                torch.set_rng_state(value)
            elif (device := int(name.removeprefix(_CUDA))) < torch.cuda.device_count():  # there may be fewer now
                torch.cuda.set_rng_state(value, device)


def _state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state


def _trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def _sharded_if_needed(saved: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Sharded like its parameter if it has the same shape (moments); the step count is not sharded."""
    return like(parameter, saved) if saved.shape == parameter.shape else saved


def _save(tensors: dict[str, torch.Tensor], folder: Path, name: str) -> None:
    """Write NAME.safetensors, and NAME-2.safetensors, … if that is too much for one piece."""
    for number, piece in enumerate(_pieces(tensors.items()), start=1):
        save_file(piece, folder / f"{name}{f'-{number}' if number > 1 else ''}.safetensors")


def _pieces(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    piece: dict[str, torch.Tensor] = {}
    held = 0
    for name, value in tensors:
        piece[name] = whole = gathered(value).cpu()
        held += whole.nbytes
        if held >= _PIECE_BYTES:
            yield piece
            piece, held = {}, 0
    if piece:
        yield piece


class _Saved:
    """Tensors that `_save` wrote, each read on access."""

    def __init__(self, files: list[Any]) -> None:
        self._files = {name: file for file in files for name in file.keys()}  # noqa: SIM118 - it is no dict

    @property
    def names(self) -> list[str]:
        return list(self._files)

    def shape(self, name: str) -> list[int]:
        shape: list[int] = self._files[name].get_slice(name).get_shape()
        return shape

    def tensor(self, name: str) -> torch.Tensor:
        value: torch.Tensor = self._files[name].get_tensor(name)
        return value


@contextmanager
def _saved(folder: Path, name: str) -> Iterator[_Saved]:
    paths = sorted(folder.glob(f"{name}*.safetensors"))
    with ExitStack() as stack:
        yield _Saved([stack.enter_context(safe_open(path, framework="pt")) for path in paths])


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
        group["betas"] = tuple(group["betas"])  # JSON has no tuples
    return {"state": entries, "param_groups": groups}
