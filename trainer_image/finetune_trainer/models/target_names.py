"""Whether lora.targetModules names linear layers of the base model, by the headers of its files: no weights, no torch.

`check` says it before a GPU is asked for, and the trainer before it loads the model. Only kinds of models are judged
whose layers have in memory the names that they have in the files; of others `adapters.py` says it once they are loaded.
"""

import difflib
import json
from pathlib import Path

from finetune_api.job import FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import model_shape
from finetune_trainer.models.weight_files import UNREADABLE, header, weight_files

NAMED_AS_STORED = frozenset({
    "apertus", "arcee", "bart", "blenderbot", "bloom", "codegen", "cohere", "cohere2", "cwm", "exaone4", "falcon",
    "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite",
    "helium", "llama", "longt5", "mistral", "mpt", "mt5", "olmo", "olmo2", "olmo3", "opt",
    "pegasus", "persimmon", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm", "starcoder2", "t5",
    "umt5", "xglm",
})  # fmt: skip
"""Kinds of models of which transformers renames nothing, and which have no experts."""

_HEADS = frozenset({"lm_head", "embed_out"})
"""Output heads: one that is tied to the embeddings is in no file."""

_USUAL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""In the order in which models have them; files have theirs by the alphabet."""

_NAMED = 24


def require(spec: FineTuneJobSpec, folder: Path) -> None:
    """Refuse names that none of the model's linear layers has. Nothing is said where files or kind do not tell.

    Raises:
        TrainerError: SpecInvalid.
    """
    if spec.code is not None or spec.adapters is None or isinstance(targets := spec.adapters.targets, str):
        return
    known = _linear_names(folder)
    unknown = [target for target in targets if target.rpartition(".")[2] not in known | _HEADS]
    if not known or not unknown:
        return
    shape = model_shape.of_folder(folder)
    layers = {one.name for one in shape.linear} if shape else known
    names = [name for name in _USUAL if name in layers] + sorted(layers.difference(_USUAL))
    last = [target.rpartition(".")[2] for target in unknown]
    near = dict.fromkeys(one for name in last for one in difflib.get_close_matches(name, names, n=1))
    meant = f"; did you mean {', '.join(near)}?" if near else ""
    raise TrainerError(
        Reason.SPEC_INVALID,
        f"spec.lora.targetModules: {spec.base_model} has no linear layer {', '.join(unknown)[:200]}{meant}",
        f"Write all-linear, or some of {', '.join(names[:_NAMED])}, and apply the job under a new name.",
    )


def _linear_names(folder: Path) -> set[str]:
    """Last names of the modules that have a matrix; none where they cannot be told by the files."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if kind["model_type"] not in NAMED_AS_STORED or "auto_map" in kind:
            return set()
        entries = {name: entry["shape"] for path in weight_files(folder) for name, entry in header(path).items()}
    except UNREADABLE:
        return set()
    return {name.split(".")[-2] for name, shape in entries.items() if len(shape) > 1 and "." in name}
