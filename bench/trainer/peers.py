"""TRL's SFTTrainer and transformers' Trainer on the same rows. Their packages are of another environment."""

import tempfile
from typing import Any

from bench.trainer import work
from bench.trainer.clock import Clock, await_turn

# What each contender changes about the library's defaults, beside what the work itself asks for.
SETTINGS: dict[str, dict[str, Any]] = {
    "trl-defaults": {},
    "trl-grouped": {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"},
    "trl-packing": {"gradient_checkpointing": False, "packing": True},
    "trl-liger": {
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
        "use_liger_kernel": True,
    },
    "transformers": {},
}


def run(args: Any) -> None:
    """Train with the contender's settings and print the result."""
    import torch
    import trl  # noqa: F401 - imported before its turn
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import TrainerCallback

    name = args.contender
    cuda = torch.cuda.is_available()
    slim = name != "trl-defaults"
    half = torch.bfloat16 if cuda or args.precision == "BFloat16" else torch.float32
    made = work.rows(args.lengths, args.batch * args.steps)
    data = Dataset.from_list([_as_dataset_row(row, trl=name.startswith("trl")) for row in made])
    await_turn(args.after)
    model = work.build(args.shape, half if slim else torch.float32, "cuda" if cuda else "cpu")
    clock = Clock(args.warm_up, args.seconds)
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=work.LORA_R, lora_alpha=work.LORA_ALPHA, lora_dropout=0.0, target_modules="all-linear"
    )
    losses: list[float] = []

    class Watch(TrainerCallback):
        def on_log(self, *_args: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in (logs or {}):
                losses.append(float(logs["loss"]))

        def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> Any:  # noqa: ARG002
            if clock.step(counted.take()):
                control.should_training_stop = True
            return control

    with tempfile.TemporaryDirectory() as output:
        each = min(args.batch, args.each if slim else 8)
        common: dict[str, Any] = {
            "output_dir": output, "per_device_train_batch_size": each,
            "gradient_accumulation_steps": args.batch // each, "num_train_epochs": 1,
            "learning_rate": work.LEARNING_RATE, "lr_scheduler_type": "constant", "logging_steps": 10,
            "save_strategy": "no", "report_to": [], "disable_tqdm": True, "use_cpu": not cuda,
        }  # fmt: skip
        if name.startswith("trl"):
            trainer = _trl(args, model, data, lora=lora, common=common, half=half)
        else:
            trainer = _transformers(get_peft_model(model, lora), data, common, half)
        counted = _Counted(trainer)
        trainer.add_callback(Watch())
        trainer.train()
    clock.say(name, losses)


def _as_dataset_row(row: work.Row, *, trl: bool) -> dict[str, Any]:
    if trl:
        return {"input_ids": row.ids, "completion_mask": [0] * row.prompt + [1] * (len(row.ids) - row.prompt)}
    return {"input_ids": row.ids, "labels": [-100] * row.prompt + row.ids[row.prompt :]}


def _tokenizer() -> Any:
    """A tokenizer for padding alone: the rows are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, 512)}
    made: Any = PreTrainedTokenizerFast
    return made(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
    )  # fmt: skip


def _trl(args: Any, model: Any, data: Any, *, lora: Any, common: dict[str, Any], half: Any) -> Any:
    import torch
    from trl import SFTConfig, SFTTrainer

    longest = work.LENGTHS[args.lengths].longest
    own = dict(SETTINGS[args.contender])
    if own.get("packing"):
        mean = work.LENGTHS[args.lengths].mean
        rows = max(1, args.batch * mean // longest)
        common = common | {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 1}
    if args.contender != "trl-defaults":
        own["bf16"] = half is torch.bfloat16
    config = SFTConfig(max_length=longest, completion_only_loss=True, **common, **own)
    return SFTTrainer(model=model, args=config, train_dataset=data, peft_config=lora, processing_class=_tokenizer())


def _transformers(model: Any, data: Any, common: dict[str, Any], half: Any) -> Any:
    import torch
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    arguments = TrainingArguments(bf16=half is torch.bfloat16, **common)
    collator = DataCollatorForSeq2Seq(_tokenizer(), padding=True)
    return Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator)


class _Counted:
    """Counts tokens without padding as batches are made, and gives them back as steps consume them."""

    def __init__(self, trainer: Any) -> None:
        self._made: list[int] = []
        self._used = 0
        collate, step = trainer.data_collator, trainer.training_step

        def counting(rows: Any) -> Any:
            batch = collate(rows)
            mask = batch.get("attention_mask")
            self._made.append(int(mask.sum()) if mask is not None else batch["input_ids"].numel())
            return batch

        def stepping(*args: Any, **kwargs: Any) -> Any:
            self._used += 1
            return step(*args, **kwargs)

        trainer.data_collator, trainer.training_step = counting, stepping
        self._given = 0

    def take(self) -> int:
        tokens = sum(self._made[self._given : self._used])
        self._given = self._used
        return tokens
