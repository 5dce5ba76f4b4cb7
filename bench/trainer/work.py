"""The tasks: shapes of models with random weights, and rows of token ids, the same for every contender.

Weights, initial adapters and rows depend on seeds only, not on a contender's versions of libraries.
"""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

_QWEN = {"vocab_size": 151936, "rope_theta": 1e6, "tie_word_embeddings": True, "rms_norm_eps": 1e-6}

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    },
    "tiny24": {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 24,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 512,
    },
    "135M": {  # SmolLM2-135M
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "rope_theta": 1e5,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    },
    "0.5B": {  # Qwen2.5-0.5B
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, **_QWEN,
    },
    "1.5B": {  # Qwen2.5-1.5B
        "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, **_QWEN,
    },
    "8B": {  # Llama-3.1-8B
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "rope_theta": 5e5,
        "rms_norm_eps": 1e-5,
    },
}  # fmt: skip

_FOUR_BITS = "-nf4"
SHAPES |= {f"{name}{_FOUR_BITS}": SHAPES[name] for name in ("1.5B", "8B")}
"""For QLoRA: the same with a base in 4 bits."""

LORA_R, LORA_ALPHA = 16, 32
LABELLED = 0.3
"""Fraction of a ragged row that carries loss, at its end."""

IGNORED = -100
"""The label of a token without loss."""

_KNOWN_TOKENS = 256  # few tokens with uneven frequencies, which can be learned in a few steps


@dataclass(frozen=True)
class Task:
    """One contender's task."""

    contender: str
    shape: str
    lengths: str
    batch: int
    """Rows per optimizer step."""
    steps: int
    warm_up: int = 3
    """Steps before the measurement starts."""
    seconds: float = 20
    """Duration of the measurement, at least two steps."""
    precision: str = "Auto"
    each: int = 8
    """Maximum rows of a peer's forward pass."""
    learning_rate: float = 2e-4
    held_out: int = 0
    """Rows that are not trained on, whose loss is measured at the end."""
    after: str | None = None
    """File that must exist before this contender starts."""
    profile: str | None = None
    cprofile: str | None = None

    @property
    def program(self) -> str:
        """The first part of the contender's name: `trl` of `trl-packing`."""
        return self.contender.partition("-")[0]

    @property
    def four_bits(self) -> bool:
        """Whether the base is in 4 bits."""
        return self.shape.endswith(_FOUR_BITS)

    @property
    def rows(self) -> "list[Row]":
        """The rows, in the order of the steps."""
        return rows(self.lengths, self.batch * self.steps)


class Row(NamedTuple):
    """Token ids, and the length of the prompt."""

    ids: list[int]
    prompt: int

    @property
    def labels(self) -> list[int]:
        """The labels: ids of tokens with loss, at their positions."""
        return [IGNORED] * self.prompt + self.ids[self.prompt :]


class Lengths(NamedTuple):
    """Lengths of rows: log-normal with `mean` and at most `longest` tokens, or all the same if both are equal."""

    mean: int
    longest: int


LENGTHS = {"ragged-cpu": Lengths(100, 512), "ragged": Lengths(350, 2048), "fixed": Lengths(4096, 4096)}


def rows(lengths: str, count: int, *, seed: int = 7) -> list[Row]:
    """The rows: the same for the same arguments, on every machine."""
    chance = np.random.default_rng(seed)
    mean, longest = LENGTHS[lengths]
    if mean == longest:
        sizes = np.full(count, longest)
    else:
        spread = 0.8
        sizes = np.exp(chance.normal(np.log(mean) - spread**2 / 2, spread, count)).astype(int).clip(8, longest)
    chances = 1 / np.arange(1, _KNOWN_TOKENS + 1)
    made = []
    for size in sizes:
        ids = chance.choice(_KNOWN_TOKENS, int(size), p=chances / chances.sum()) + 3
        prompt = 1 if mean == longest else int(size) - max(1, int(LABELLED * size))
        made.append(Row(ids.tolist(), prompt))
    return made


def build(shape: str, dtype: Any, device: str) -> Any:
    """A model of a shape with random weights, the same for the same device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made: Any = AutoModelForCausalLM
    about = dict(SHAPES[shape])
    config = AutoConfig.for_model(about.pop("model_type"), max_position_embeddings=8192, use_cache=False, **about)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = made.from_config(config, dtype=dtype)
    finally:
        torch.set_default_dtype(before)
    chance = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.dim() > 1:
                weight.normal_(0, 0.02, generator=chance)
            else:
                weight.fill_(0 if name.endswith("bias") else 1)
    return model


def save(shape: str, dtype: Any, folder: Path) -> None:
    """Write the model to `folder` for contenders that need files; it is created on the training device, then freed."""
    import torch

    cuda = torch.cuda.is_available()
    build(shape, dtype, "cuda" if cuda else "cpu").save_pretrained(folder)
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def fill_adapters(model: Any) -> None:
    """Give every contender the same adapters, distributed like peft's initial ones: A uniform in 1/sqrt(inputs), B
    zero."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_A." in name:
                chance = torch.Generator().manual_seed(crc32(name[name.index("layers.") :].encode()))
                bound = weight.shape[1] ** -0.5
                weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=chance))
            elif ".lora_B." in name:
                weight.zero_()


def held_out_loss(model: Any, lengths: str, count: int) -> float:
    """Mean negative log likelihood in nats of the labelled tokens of `count` rows that were not trained on."""
    import torch
    from torch.nn import functional

    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for row in rows(lengths, count, seed=8):
            ids = torch.tensor([row.ids], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, row.prompt - 1 : -1].float()
            total += functional.cross_entropy(logits, ids[0, row.prompt :], reduction="sum").item()
            tokens += len(row.ids) - row.prompt
    return total / tokens


def flops_per_token(shape: str, work: list[Row]) -> float:
    """Floating-point operations of LoRA for one token of `work`, forward and backward, without recomputation.

    4 per frozen weight (forward, and the gradient of its input; none of the weight), the output head only for tokens
    that are labelled, 6 per adapter weight, and causal attention: 2 products of length/2 keys forward, 4 backward.
    """
    about = SHAPES[shape]
    hidden, inner, layers = about["hidden_size"], about["intermediate_size"], about["num_hidden_layers"]
    kv = hidden // about["num_attention_heads"] * about["num_key_value_heads"]
    linear = [
        (hidden, hidden),
        (hidden, kv),
        (hidden, kv),
        (hidden, hidden),
        (hidden, inner),
        (hidden, inner),
        (inner, hidden),
    ]
    frozen = sum(a * b for a, b in linear)
    adapters = sum(LORA_R * (a + b) for a, b in linear)
    tokens = sum(len(row.ids) for row in work)
    labelled = sum(len(row.ids) - row.prompt for row in work) / tokens
    keys = sum(len(row.ids) ** 2 for row in work) / tokens / 2
    attention = 3 * 2 * 2 * hidden * keys
    return float(layers * (4 * frozen + 6 * adapters + attention) + labelled * 4 * hidden * about["vocab_size"])
