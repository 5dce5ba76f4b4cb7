"""How many tokens fit into one forward and backward pass, estimated from the model's shape and the memory that is free.

An estimate errs on the safe side; what it gets wrong ends as OutOfMemory with a next step. It measures nothing itself.
"""

from dataclasses import dataclass
from typing import Any

CPU_TOKENS = 512
"""On a CPU larger passes gain nothing and cost memory."""

GPU_TOKENS = 16384
"""On a GPU larger passes gain nothing."""

_USABLE = 0.7  # of the free memory; the rest is for fragmentation, the loss head and kernels' scratch space


@dataclass(frozen=True)
class Fit:
    """What one pass may hold."""

    token_budget: int
    activation_checkpointing: bool


def fit(config: Any, *, longest_row: int, free_bytes: int | None, bytes_per_number: int) -> Fit:
    """Tokens with padding per pass; `free_bytes` is what is left beside weights, gradients and optimizer (None: CPU).

    Activation checkpointing is switched on only where the longest row would not fit without it.
    """
    if free_bytes is None:
        return Fit(CPU_TOKENS, activation_checkpointing=False)
    usable = int(free_bytes * _USABLE)
    plain = usable // bytes_per_token(config, bytes_per_number, activation_checkpointing=False)
    if plain >= longest_row:
        return Fit(min(plain, GPU_TOKENS), activation_checkpointing=False)
    tight = usable // bytes_per_token(config, bytes_per_number, activation_checkpointing=True)
    return Fit(max(1, min(tight, GPU_TOKENS)), activation_checkpointing=True)


def bytes_per_token(config: Any, bytes_per_number: int, *, activation_checkpointing: bool) -> int:
    """Memory of activations for one token: what each layer keeps for its backward pass, and the logits in float32.

    A token of an encoder-decoder goes through one of its stacks only; counting both leaves room for the padding, which
    is up to twice the tokens where long prompts and long answers meet in one pass.

    A layer keeps about 16 vectors of the hidden size (norms, projections, residuals, adapters' inputs) and 4 of the
    intermediate size; with checkpointing one vector, and one layer's worth while it is computed again.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    hidden = text.hidden_size
    intermediate = getattr(text, "intermediate_size", None) or 4 * hidden
    layer = (16 * hidden + 4 * intermediate) * bytes_per_number
    layers = text.num_hidden_layers + _decoder_layers(config)
    body = layers * hidden * bytes_per_number + layer if activation_checkpointing else layers * layer
    return int(body + 3 * 4 * text.vocab_size)


def _decoder_layers(config: Any) -> int:
    """Layers beside num_hidden_layers, which counts an encoder-decoder's encoder."""
    if not getattr(config, "is_encoder_decoder", False):
        return 0
    return int(getattr(config, "num_decoder_layers", None) or config.decoder_layers)
