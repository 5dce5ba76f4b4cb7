"""The structure of a base model, from its config and the headers of its safetensors: without weights or torch.

The role of a tensor is derived from its name, as in transformers' causal models, T5 and BART. If names are unclear, the
shape is marked as uncertain and no job is refused because of it. What this means for memory is in `memory.py`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from finetune_trainer.data.row_limit import positions_of
from finetune_trainer.models.weight_files import FLOATS, UNREADABLE, header, shapes_as_loaded, weight_files

Tensors = Mapping[str, tuple[int, ...]]
"""Shapes of the weights by name."""

_BLOCK = re.compile(r"^(.*?\.)?(\d+)\.(.+?)(\.weight)?$")
_ENCODER = re.compile(r"(^|\.)encoder\.")
_NORM = re.compile(r"norm|(^|\.)ln_?\w*$|layer_?norm", re.IGNORECASE)
_TO_RESIDUAL = frozenset(
    {"o_proj", "out_proj", "dense", "down_proj", "c_proj", "wo", "o", "fc2", "fc_out", "w2", "dense_4h_to_h"}
)
_GATES = frozenset({"gate_proj", "wi_0", "w1"})
_ACTIVATED = frozenset({"fc1", "c_fc", "fc_in", "dense_h_to_4h", "wi"})
_FUSED_GATES = frozenset({"gate_up_proj"})
_NOT_LINEAR = ("relative_attention_bias", "embed", "conv")
_TRANSPOSED = frozenset({"gpt2"})
_UNFUSED_ATTENTION = frozenset({"bloom", "codegen", "gpt_neo", "gptj", "mpt"})
"""Model types whose attention transformers computes step by step, without a fused kernel."""
_EXPLICIT_MASK = frozenset({"falcon"})
"""Model types that pass attention a mask of all pairs of positions even if nothing is masked."""
_RESIDUAL_DROPOUTS = ("resid_pdrop", "dropout", "hidden_dropout")
_DROPOUTS = ("dropout_rate", "attn_pdrop", "attention_dropout", "attn_dropout")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_UNCOUNTED = ("experts", "A_log", "conv1d", "vision")
"""Parts of tensor names whose layers keep other activations than assumed here."""
_HEADS = ("num_attention_heads", "num_heads", "n_head", "encoder_attention_heads")
_ACTIVATIONS = ("dense_act_fn", "feed_forward_proj", "hidden_act", "activation_function", "hidden_activation")


@dataclass(frozen=True)
class Matrix:
    """A linear layer of a block, or the same layer of all its experts: `outputs` x `inputs` numbers."""

    path: str
    outputs: int
    inputs: int
    in_encoder: bool = False
    share: float = 1.0
    """How often a token passes through it: layers of experts see only some tokens."""
    is_layer: bool = True
    """Whether it is a module, which can have adapters and be loaded in 4 bits; experts are not."""

    @property
    def name(self) -> str:
        """The module's own name, which adapters target."""
        return self.path.rsplit(".", 1)[-1]

    @property
    def parent(self) -> str:
        """Path of the containing module: layers with the same parent mostly have the same input."""
        return self.path.rpartition(".")[0]

    @property
    def to_residual(self) -> bool:
        """Whether its output is only added to the residual stream, which keeps nothing for the backward pass."""
        return self.name in _TO_RESIDUAL

    @property
    def ends_attention(self) -> bool:
        """Whether its input is the output of attention."""
        return self.to_residual and "att" in self.parent.rpartition(".")[2].lower()

    @property
    def activated(self) -> int:
        """Width of the part of its output that is input to an activation function."""
        return self.gate or (self.outputs if self.name in _ACTIVATED else 0)

    @property
    def gate(self) -> int:
        """Width of the gate in its output; 0 if there is none."""
        if self.name in _FUSED_GATES:
            return self.outputs // 2
        return self.outputs if self.name in _GATES else 0


@dataclass(frozen=True)
class Norm:
    """A normalization layer of a block: numbers per token that pass through it."""

    width: int
    in_encoder: bool
    has_bias: bool
    """True for a LayerNorm, which is a single operation; other norms are several."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model."""

    parameters: int
    """All of them, tied ones once."""
    matrices: tuple[Matrix, ...]
    norms: tuple[Norm, ...]
    blocks: int
    hidden: int
    vocabulary: int
    heads: int
    activation: str
    """Name of the feed-forward layers' activation function."""
    is_encoder_decoder: bool
    scores_kept: bool
    """Whether attention keeps its scores of all pairs of positions, because of soft-capping."""
    scores_by_hand: bool
    """The same, because its attention has no fused kernel at all."""
    biased: bool
    """Whether attention adds a bias to all pairs of positions, as in T5."""
    dropout: float
    """Of attention scores."""
    certain: bool
    """Whether the model is fully understood here."""
    masked: bool = False
    """Whether each block's attention keeps a mask of all pairs of positions."""
    alibi: bool = False
    """Whether that mask is per head: a bias by distance."""
    positions: int | None = None
    """Size of its table of positions, if it has one."""
    residual_dropout: float = 0.0
    """Of what attention and feed-forward layers add to the residual stream."""

    @cached_property
    def linear(self) -> tuple[Matrix, ...]:
        """The blocks' linear layers."""
        return tuple(one for one in self.matrices if one.is_layer)

    @cached_property
    def linear_parameters(self) -> int:
        """Parameters of the blocks' linear layers, which 4-bit loading shrinks."""
        return sum(one.outputs * one.inputs for one in self.linear)


def of_folder(folder: Path) -> ModelShape | None:
    """The shape of the model in `folder`; None if its config or headers cannot be read.

    The code that loads such a folder reports what is wrong with it.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors, plain = _headers(weight_files(folder))
        return _shape(config, tensors, certain=plain and "auto_map" not in config) if tensors else None
    except UNREADABLE:
        return None


def of_model(model: Any) -> ModelShape | None:
    """The shape of a loaded model; adapters and 4-bit layers do not change it."""
    tensors: dict[str, tuple[int, ...]] = {}
    for name, value in model.named_parameters():
        if "lora_" not in name:
            tensors[name.replace(".base_layer.", ".").removeprefix("base_model.model.")] = tuple(value.shape)
    for name, module in model.named_modules():
        weight = f"{name.replace('.base_layer', '').removeprefix('base_model.model.')}.weight"
        if hasattr(module, "in_features") and "lora_" not in name and weight in tensors:
            whole = module.out_features, module.in_features
            if prod(tensors[weight]) != prod(whole):  # 4-bit weights are packed
                tensors[weight] = whole
    return _shape(model.config.to_dict(), tensors, certain=True)


def _headers(files: Iterable[Path]) -> tuple[dict[str, tuple[int, ...]], bool]:
    """Shapes by name, and whether all numbers are plain floating-point ones."""
    tensors: dict[str, tuple[int, ...]] = {}
    plain = True
    for path in files:
        tensors |= shapes_as_loaded(path)
        plain = plain and all(entry["dtype"] in FLOATS for entry in header(path).values())
    return tensors, plain


def _shape(config: Mapping[str, Any], tensors: Tensors, *, certain: bool) -> ModelShape | None:
    text: Mapping[str, Any] = config.get("text_config") or config
    hidden, vocabulary = _first(text, "hidden_size", "d_model", "n_embd"), _first(text, "vocab_size")
    blocks = {match.group(1, 2) for name in tensors if (match := _BLOCK.match(name))}
    if not hidden or not vocabulary or not blocks:
        return None
    flip = config.get("model_type") in _TRANSPOSED
    experts = _first(text, "num_experts_per_tok", "num_experts_per_token"), _first(text, *_EXPERTS)
    found = (_matrix(name, shape, flip=flip, experts=experts) for name, shape in tensors.items())
    matrices = tuple(one for one in found if one)
    has_uncounted = any(part in name for name in tensors for part in _UNCOUNTED) or "vision_config" in config
    return ModelShape(
        parameters=_parameters(config, tensors),
        matrices=matrices,
        norms=tuple(_norms(tensors, matrices)),
        blocks=len(blocks),
        hidden=hidden,
        vocabulary=vocabulary,
        heads=_first(text, *_HEADS) or 1,
        activation=str(next((text[name] for name in _ACTIVATIONS if text.get(name)), "")),
        is_encoder_decoder=bool(config.get("is_encoder_decoder")),
        scores_kept=bool(text.get("attn_logit_softcapping")),
        scores_by_hand=config.get("model_type") in _UNFUSED_ATTENTION,
        biased=any("relative_attention_bias" in name for name in tensors),
        dropout=float(next((text[name] for name in _DROPOUTS if text.get(name)), 0)),
        certain=certain and not has_uncounted,
        masked=config.get("model_type") in _EXPLICIT_MASK,
        alibi=bool(text.get("alibi")),
        positions=positions_of(config),
        residual_dropout=float(next((text[name] for name in _RESIDUAL_DROPOUTS if text.get(name)), 0)),
    )


def _first(config: Mapping[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if config.get(name)), 0)


def _parameters(config: Mapping[str, Any], tensors: Tensors) -> int:
    """Number of parameters; a head tied to the embedding does not count, even if the file contains both."""
    tied = bool(config.get("tie_word_embeddings")) and any("embed" in name or "shared" in name for name in tensors)
    return sum(prod(shape) for name, shape in tensors.items() if not (tied and name.endswith("lm_head.weight")))


def _matrix(name: str, shape: tuple[int, ...], *, flip: bool, experts: tuple[int, int]) -> Matrix | None:
    """The linear layer of a weight tensor. `experts`: how many experts a token uses, and how many there are."""
    if not _BLOCK.match(name) or len(shape) not in (2, 3) or any(part in name for part in _NOT_LINEAR):
        return None
    is_expert, (used, there) = "experts." in name and "shared" not in name, experts
    share = used / there if is_expert and there else 1.0
    path, in_encoder = name.removesuffix(".weight"), bool(_ENCODER.search(name))
    if len(shape) == 3:
        return Matrix(path, shape[1], shape[2], in_encoder, share * shape[0], is_layer=False) if is_expert else None
    outputs, inputs = (shape[1], shape[0]) if flip else shape
    return Matrix(path, outputs, inputs, in_encoder, share, is_layer=not is_expert)  # experts load as one tensor


def _norms(tensors: Tensors, matrices: Iterable[Matrix]) -> Iterable[Norm]:
    """One norm for each weight vector; those of queries and keys apply to every head."""
    outputs = {one.path: one.outputs for one in matrices}
    for name, shape in tensors.items():
        found = _BLOCK.match(name)
        if found is None or len(shape) != 1 or name.endswith(".bias") or not _NORM.search(found.group(3)):
            continue
        norm_width = outputs.get(name.removesuffix("_norm.weight") + "_proj", shape[0])
        yield Norm(norm_width, bool(_ENCODER.search(name)), f"{name.removesuffix('weight')}bias" in tensors)
