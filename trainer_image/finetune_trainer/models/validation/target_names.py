"""Whether lora.targetModules names linear layers of the base model, by the headers of its files: no weights, no torch.

`check` reports it before a GPU is requested, and the trainer before it loads the model. Only for model types whose
layers have the same names in memory as in the files; for others `adapters.py` reports it after loading.
"""

import difflib
import json
from pathlib import Path

from finetune_api.job import FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import model_shape
from finetune_trainer.models.kinds import KNOWN
from finetune_trainer.models.weight_files import UNREADABLE, entries_in

_HEAD, _OLD_HEAD = "lm_head", "embed_out"
"""The output head, which is in no file if it is tied to the embeddings, and GPT-NeoX's name for it in files."""

_TABLES = frozenset({
    "embed_in", "embed_positions", "embed_tokens", "global_relative_attention_bias", "relative_attention_bias",
    "shared", "word_embeddings", "wpe", "wte",
})  # fmt: skip
"""Parts with a matrix that are not linear layers."""

_COMMON_ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""In the order in which models have them; files sort them alphabetically."""

_MAX_NAMES = 24


def require(spec: FineTuneJobSpec, folder: Path) -> None:
    """Refuse names of no linear layer of the model. Passes if files or model type do not tell.

    Raises:
        TrainerError: SpecInvalid.
    """
    if spec.code is not None or spec.adapters is None or isinstance(targets := spec.adapters.targets, str):
        return
    known = _linear_paths(folder)
    unknown = [target for target in targets if target.rpartition(".")[2] != _HEAD and not _names_layer(known, target)]
    if not known or not unknown:
        return
    shape = model_shape.of_folder(folder)
    layers = {one.name for one in shape.linear} if shape else {path.rpartition(".")[2] for path in known}
    names = [name for name in _COMMON_ORDER if name in layers] + sorted(layers.difference(_COMMON_ORDER))
    last = [target.rpartition(".")[2] for target in unknown]
    near = dict.fromkeys(one for name in last for one in _near(name, names))
    meant = f"; did you mean {', '.join(near)}?" if near else ""
    problem = f"{spec.base_model} has no linear layer {', '.join(unknown)[:200]}{meant}"
    if _TABLES.issuperset(last):
        problem = f"{', '.join(unknown)[:200]} is a table of embeddings, which takes no adapter"
    raise TrainerError(
        Reason.SPEC_INVALID,
        f"spec.lora.targetModules: {problem}",
        f"Write all-linear, or some of {', '.join(names[:_MAX_NAMES])}, and apply the job under a new name.",
    )


def _near(name: str, names: list[str]) -> list[str]:
    return [_HEAD] if name == _OLD_HEAD else difflib.get_close_matches(name, names, n=1)


def _names_layer(known: set[str], target: str) -> bool:
    """Whether it names a layer, by the end of its path, or with a prefix that the files omit."""
    return any(f".{path}".endswith(f".{target}") or f".{target}".endswith(f".{path}") for path in known)


def _linear_paths(folder: Path) -> set[str]:
    """Paths of the linear layers, as in the files; empty if the files do not tell."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if kind["model_type"] not in KNOWN or "auto_map" in kind:
            return set()
        shapes = {name: entry["shape"] for name, entry in entries_in(folder).items()}
    except UNREADABLE:
        return set()
    paths = {name.rpartition(".")[0] for name, shape in shapes.items() if len(shape) > 1 and "." in name}
    return {path for path in paths if path.rpartition(".")[2] not in _TABLES | {_OLD_HEAD}}
