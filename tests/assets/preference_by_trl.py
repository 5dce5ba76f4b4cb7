"""Reference figures of TRL's DPOTrainer for one batch of pairs and a model with fixed weights, in a file.

TRL is not a dependency: it needs pandas, which pyarrow then imports wherever it is used. To regenerate the figures
run `python -m tests.assets.preference_by_trl` in the environment of `make bench-trainer`.
"""

import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

FIGURES = Path(__file__).with_suffix(".json")
BETA = 0.3
RANK, ALPHA = 4, 8
IGNORED = -100
PAIRS = [
    ([5, 6, 7, 8], [9, 10], [11, 12, 13, 2]),
    ([3, 4], [5, 2], [6]),
    ([20, 21, 22, 23, 24, 25, 26], [27, 28, 29, 30, 31, 2], [27, 28, 29, 30, 30, 2]),
    ([1, 14, 15], [16, 17, 18, 19, 20, 21, 22, 2], [2]),
    ([8, 9, 8, 9], [1, 2], [3, 2]),
]
"""Prompt, chosen and rejected, as tokens."""


def documents() -> list[tuple[list[int], list[int]]]:
    """Ids and labels, chosen and rejected in turn."""
    texts = [(prompt, answer) for prompt, *answers in PAIRS for answer in answers]
    return [(prompt + answer, [IGNORED] * len(prompt) + answer) for prompt, answer in texts]


def base() -> Any:
    """A Llama of two layers."""
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, eos_token_id=2, bos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def fill(model: Any) -> Any:
    """Set weights, including adapters', that depend only on the order of their names."""
    with torch.no_grad():
        for number, (_, value) in enumerate(sorted(model.named_parameters())):
            if value.dim() > 1:
                value.copy_(0.4 * direction(value, number))
    return model


def direction(value: torch.Tensor, number: int) -> torch.Tensor:
    """Numbers between -1 and 1 in the shape of a parameter."""
    return torch.sin(torch.arange(1.0, value.numel() + 1) * (1.7 + 0.1 * number)).view(value.shape)


def said_of(model: Any) -> dict[str, list[float]]:
    """Each gradient's norm, and its projection onto one direction."""
    found = {}
    for number, (name, value) in enumerate(sorted(model.named_parameters())):
        if value.grad is not None:
            found[name] = [float(value.grad.norm()), float((value.grad * direction(value, number)).sum())]
    return found


def by_trl() -> dict[str, Any]:
    """Loss, measures and gradients of the batch, each way round."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig

    from tests.assets.tiny_model import make_tiny_tokenizer

    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
    with tempfile.TemporaryDirectory() as out:
        trainer = trl.DPOTrainer(
            base(),
            args=trl.DPOConfig(out, beta=BETA, report_to=[], bf16=False, use_cpu=True, activation_checkpointing=False),
            train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
            processing_class=make_tiny_tokenizer(),
            peft_config=lora,
        )
    model = fill(trainer.model)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [dict(zip(names, pair, strict=True)) for pair in PAIRS]
    swapped = [row | {"chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]} for row in rows]
    loss = trainer.compute_loss(model, trainer.data_collator(rows))
    measures = [trainer._metrics["train"][f"rewards/{name}"][0] for name in ("accuracies", "margins")]
    loss.backward()
    other = trainer.compute_loss(model, trainer.data_collator(swapped))
    return {
        "trl": trl.__version__,
        "loss": loss.item(),
        "swapped": other.item(),
        "measures": measures,
        "gradients": said_of(model),
    }


def main() -> None:
    """Write the figures."""
    try:
        import trl  # noqa: F401
    except ImportError:
        from bench.trainer.__main__ import peers_python

        os.execv(peers_python(), [str(peers_python()), "-m", "tests.assets.preference_by_trl"])
    figures = by_trl()
    assert math.isfinite(figures["loss"]), figures
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"{FIGURES.name}: TRL {figures['trl']}, loss {figures['loss']:.6f}\n")


if __name__ == "__main__":
    main()
