"""Whether all ranks of an attempt have the same base model: each node may have its own cache.

A cache that was filled on another day may hold another revision under the same name. It would load and be used: each
rank would compute gradients of its own base model, and tokens with its own tokenizer.
"""

from pathlib import Path
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.computing.ranks import World
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_probe import differs, probe
from finetune_trainer.storage.durable import sha256_of

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_STEP = (
    "Put the same revision into the model cache of each node (finetune-trainer cache --revision, or one cache on a "
    "volume that all nodes mount), and try again (in a cluster by spec.retryNonce)."
)


def require(world: World, folder: Path) -> None:
    """Raise unless this rank's base model is the same as that of rank 0.

    Raises:
        TrainerError: ModelUnusable.
    """
    if world.size == 1:
        return
    first: dict[str, Any] = world.broadcast("base", lambda: {"weights": probe(folder), "files": _files(folder)})
    own = _files(folder)
    other = next((name for name in _TOKENIZER_FILES if first["files"].get(name) != own.get(name)), None)
    if other := other or differs(first["weights"], probe(folder, first["weights"])):
        message = (
            f"{folder} is another model than the one of this name that the first of the pods has: its {other} differs"
        )
        raise TrainerError(Reason.MODEL_UNUSABLE, message, _STEP)


def _files(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in _TOKENIZER_FILES if (folder / name).is_file()}
