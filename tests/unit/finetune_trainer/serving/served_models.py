"""Models for the server's tests: the tiny base model with a random LoRA adapter, strong enough to vary answers."""

import json
from pathlib import Path

import torch

from tests.assets.tiny_model import NAME


def make_adapter(cache: Path, folder: Path, *, base_name: str = NAME, targets: str | list[str] = "all-linear") -> Path:
    """Write a LoRA adapter for the tiny model of `cache` to `folder`; the same each time."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(cache / NAME)
    tuned = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    random = torch.Generator().manual_seed(7)
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=random) * 0.5
    tuned.save_pretrained(folder)
    AutoTokenizer.from_pretrained(cache / NAME).save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base_name
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def load_reference(cache: Path, folder: Path):
    """The unmerged adapter on its base, as reference for the server's answers, and its tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(cache / NAME, dtype=torch.float32)
    return PeftModel.from_pretrained(base, folder).eval(), AutoTokenizer.from_pretrained(folder)


def greedy(model, prompt: list[int], count: int) -> list[int]:
    """The tokens from transformers' own `generate`."""
    ids = torch.tensor([prompt])
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, use_cache=True
    )
    return made[0, len(prompt) :].tolist()
