"""transformers' own training loop, as it is told to run: its arguments, and what follows each of its steps."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainingArguments

from finetune_api.job import Hyperparameters

if TYPE_CHECKING:
    from finetune_trainer.step_trainer import StepTrainer


def arguments(
    hyper: Hyperparameters, *, learning_rate: float, total_steps: int, output: Path, activation_checkpointing: bool
) -> TrainingArguments:
    """Transformers' arguments: its loop and optimizer; schedule and everything between steps are ours."""
    made = TrainingArguments(
        output_dir=str(output),
        max_steps=total_steps,
        per_device_train_batch_size=1,  # of Steps, whose item is a whole optimizer step
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
        made._n_gpu = 1  # noqa: SLF001 - a step's passes go to one device; DataParallel would tear them apart
    return made


class Pacer(TrainerCallback):
    """Tells the loop what follows a step."""

    def __init__(self, trainer: "StepTrainer") -> None:
        self._trainer = trainer
        self._learning_rate = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        """A validation that the interruption of an earlier attempt cut off comes first."""
        if state.global_step and self._trainer.pace.validates(state.global_step):
            self._trainer.evaluate()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        """Look at the learning rate while it is this step's."""
        self._learning_rate = self._trainer._get_learning_rate()  # noqa: SLF001 - transformers' own accessor

    def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> Any:  # noqa: ARG002
        """Write the step down, and say what comes now: validation, a checkpoint, the end."""
        self._trainer.record_step(self._learning_rate)
        step, stopping = state.global_step, self._trainer.stopping()
        control.should_evaluate = self._trainer.pace.validates(step) and not stopping
        control.should_save = self._trainer.pace.saves(step) or stopping
        control.should_training_stop = control.should_training_stop or stopping
        return control
