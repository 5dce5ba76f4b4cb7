"""Settings of transformers' own training loop."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from finetune_api.job import Hyperparameters


def arguments(
    hyper: Hyperparameters, *, learning_rate: float, total_steps: int, output: Path, activation_checkpointing: bool
) -> TrainingArguments:
    """Use transformers' loop and optimizer only; the schedule and everything between steps are ours."""
    made = TrainingArguments(
        output_dir=str(output),
        max_steps=total_steps,
        per_device_train_batch_size=1,  # an item of Steps is a whole optimizer step
        learning_rate=learning_rate,
        weight_decay=hyper.weight_decay,
        max_grad_norm=hyper.max_grad_norm,
        seed=hyper.seed,
        data_seed=hyper.seed,
        activation_checkpointing=activation_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if activation_checkpointing else None,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    if made.n_gpu > 1:
        made._n_gpu = 1  # noqa: SLF001 - DataParallel would split a step's passes among devices
    return made
