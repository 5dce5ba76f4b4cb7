"""transformers' Trainer with peft, as one would use it in twenty lines."""

import tempfile
from typing import Any

from bench.trainer import watch, work
from bench.trainer.clock import Clock, await_turn


def run(task: work.Task) -> dict[str, Any]:
    """Train with the Trainer's defaults."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    cuda = torch.cuda.is_available()
    half = cuda or task.precision == "BFloat16"
    data: Any = [{"input_ids": row.ids, "labels": row.labels} for row in task.rows]
    await_turn(task.after)
    model = work.build(task.shape, torch.bfloat16 if half else torch.float32, "cuda" if cuda else "cpu")
    eye = watch.Watch(Clock(task), watch.tokens_in_order(task))
    adapters = LoraConfig(
        task_type="CAUSAL_LM", r=work.LORA_R, lora_alpha=work.LORA_ALPHA, lora_dropout=0.0, target_modules="all-linear"
    )
    with tempfile.TemporaryDirectory() as output:
        own = watch.arguments(task, output, cuda=cuda, bf16=half, train_sampling_strategy="sequential")
        Trainer(
            model=get_peft_model(model, adapters),
            args=TrainingArguments(**own),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(watch.tokenizer(), padding=True),
            callbacks=[eye],
        ).train()
    return eye.result
