"""Unsloth's model with TRL's SFTTrainer, as in its notebooks. It has its own environment."""

import tempfile
from pathlib import Path
from typing import Any

from bench.trainer import by_trl, watch, work
from bench.trainer.clock import Clock, await_turn


def run(task: work.Task) -> dict[str, Any]:
    """Train with Unsloth's defaults in 16 or 32 bits; `-slim` without activation checkpointing."""
    from unsloth import FastLanguageModel  # isort: skip - before trl and transformers, which it patches
    import torch

    cuda = torch.cuda.is_available()
    half = cuda or task.precision == "BFloat16"
    dtype = torch.bfloat16 if half else torch.float32
    data = by_trl.dataset(task)
    with tempfile.TemporaryDirectory() as folder:
        await_turn(task.after)
        work.save(task.shape, dtype, Path(folder))
        watch.tokenizer().save_pretrained(folder)
        model, _ = FastLanguageModel.from_pretrained(
            str(Path(folder)),
            max_seq_length=work.LENGTHS[task.lengths].longest,
            dtype=dtype,
            load_in_4bit=task.four_bits,
        )
    clock = Clock(task)
    model = FastLanguageModel.get_peft_model(
        model,
        r=work.LORA_R,
        lora_alpha=work.LORA_ALPHA,
        lora_dropout=0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing=False if task.contender.endswith("-slim") else "unsloth",
    )
    return by_trl.trained(task, model, data, clock, peft_config=None, bf16=half)
