"""TRL's SFTTrainer. It has its own environment."""

import tempfile
from typing import Any

from bench.trainer import watch, work
from bench.trainer.clock import Clock, await_turn

_SLIM = {"gradient_checkpointing": False}
_GROUPED = {"train_sampling_strategy": "group_by_length"}
SETTINGS: dict[str, dict[str, Any]] = {
    "trl-defaults": {},
    "trl-in-order": _SLIM,
    "trl-grouped": _SLIM | _GROUPED,
    "trl-packing": _SLIM | {"packing": True},
    "trl-liger": _SLIM | _GROUPED | {"use_liger_kernel": True},
    "trl-packing-liger": _SLIM | {"packing": True, "use_liger_kernel": True},
}
"""What each contender changes in TRL's defaults, besides the task's settings; all but the first also use bf16."""


def run(task: work.Task) -> dict[str, Any]:
    """Train with the contender's settings."""
    import torch
    import trl  # noqa: F401 - imported before its turn
    from peft import LoraConfig

    cuda = torch.cuda.is_available()
    slim = task.contender != "trl-defaults"
    half = slim and (cuda or task.precision == "BFloat16")
    data = dataset(task)
    await_turn(task.after)
    model = work.build(task.shape, torch.bfloat16 if half else torch.float32, "cuda" if cuda else "cpu")
    if task.four_bits:
        from bench.four_bits import quantise

        quantise(model)
    clock = Clock(task)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=work.LORA_R, lora_alpha=work.LORA_ALPHA, lora_dropout=0.0, target_modules="all-linear"
    )
    own = SETTINGS[task.contender] | ({"bf16": half} if slim else {})
    return trained(task, model, data, clock, peft_config=lora, **own)


def dataset(task: work.Task) -> Any:
    """The rows in TRL's format for tokens."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {"input_ids": row.ids, "completion_mask": [0] * row.prompt + [1] * (len(row.ids) - row.prompt)}
            for row in task.rows
        ]
    )


def trained(task: work.Task, model: Any, data: Any, clock: Clock, *, peft_config: Any, **own: Any) -> dict[str, Any]:
    """Train `model` with SFTTrainer; `own` are arguments of SFTConfig besides the task's settings."""
    import torch
    from trl import SFTConfig, SFTTrainer

    kind = work.LENGTHS[task.lengths]
    if own.get("packing"):
        rows = max(1, task.batch * kind.mean // kind.longest)
        own |= {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 1}
    own = {"train_sampling_strategy": "sequential"} | own
    with tempfile.TemporaryDirectory() as output:
        about = watch.arguments(task, output, cuda=torch.cuda.is_available(), **own)
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(max_length=kind.longest, completion_only_loss=True, **about),
            train_dataset=data,
            peft_config=peft_config,
            processing_class=watch.tokenizer(),
        )
        eye = watch.Watch(clock, watch.Counted(trainer))
        trainer.add_callback(eye)
        trainer.train()
    return eye.result
