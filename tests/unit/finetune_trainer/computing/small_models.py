"""Small models and rows of every architecture that supports packing."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_api.job import LoRA
from finetune_trainer.data import IGNORED
from finetune_trainer.models.adapters import with_adapters

LENGTHS = (6, 3, 9, 2, 30, 1)
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "num_attention_heads": 4}


def make_rows():
    chance = torch.Generator().manual_seed(1)
    for length in LENGTHS:
        ids = torch.randint(1, 64, (length,), generator=chance).tolist()
        yield ids, [IGNORED if place < max(1, length // 2) else token for place, token in enumerate(ids)]


def make_model(kind, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(4)  # small random weights attend to all tokens equally, which hides errors
    return model


def adapted(model, **lora):
    torch.manual_seed(3)
    tuned = with_adapters(model, LoRA(**{"r": 4, "alpha": 8, **lora}), "x")
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.1)
    return tuned


MODELS = {
    "llama": ("llama", {"num_key_value_heads": 2}),
    "llama, head width 12": ("llama", {"num_key_value_heads": 1, "head_dim": 12}),
    "qwen2": ("qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    "mistral with a window": ("mistral", {"num_key_value_heads": 2, "sliding_window": 4}),
    "gemma3": ("gemma3_text", {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4}),
    "phi3": ("phi3", {"num_key_value_heads": 2, "pad_token_id": 0}),
    "learned positions": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "attn_pdrop": 0.0}),
}
