"""LLaMA-Factory, called through the function of its command line. It has its own environment.

It needs files: the model with its tokenizer, and tokenised rows in its own format.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from bench.trainer import watch, work
from bench.trainer.clock import Clock, await_turn


def run(task: work.Task) -> dict[str, Any]:
    """Train with LLaMA-Factory's defaults; `-slim` without activation checkpointing."""
    os.environ["DISABLE_VERSION_CHECK"] = "1"  # the lock file ensures that versions fit
    import torch
    from llamafactory.train.tuner import run_exp

    cuda = torch.cuda.is_available()
    half = cuda or task.precision == "BFloat16"
    with tempfile.TemporaryDirectory() as folder:
        model, rows = Path(folder) / "model", Path(folder) / "rows"
        _write(task, rows)
        await_turn(task.after)
        work.save(task.shape, torch.bfloat16 if half else torch.float32, model)
        watch.tokenizer().save_pretrained(model)
        eye = watch.Watch(Clock(task), watch.tokens_in_order(task))
        about = watch.arguments(task, f"{folder}/out", cuda=cuda, bf16=half)
        own = {
            "stage": "sft", "do_train": True, "model_name_or_path": str(model), "template": "empty",
            "dataset": "bench", "tokenized_path": str(rows), "cutoff_len": work.LENGTHS[task.lengths].longest,
            "finetuning_type": "lora", "lora_target": "all", "lora_rank": work.LORA_R, "lora_alpha": work.LORA_ALPHA,
            "lora_dropout": 0.0, "disable_shuffling": True,
            "disable_gradient_checkpointing": task.contender.endswith("-slim"), "report_to": "none",
        }  # fmt: skip
        run_exp(about | own, callbacks=[eye])
    return eye.result


def _write(task: work.Task, rows: Path) -> None:
    from datasets import Dataset, DatasetDict

    made = [
        {"input_ids": row.ids, "attention_mask": [1] * len(row.ids), "labels": row.labels, "images": None}
        for row in task.rows
    ]
    DatasetDict({"train": Dataset.from_list(made)}).save_to_disk(rows)
