"""transformers' own Trainer with all weights, reading the checked JSON Lines itself: code from elsewhere, wrapped.

Its checkpoints go into the folder that outlives the pod, and a callback reports and asks whether to stop.
"""

from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from finetune_trainer import recipe

run = recipe.context()
tokenizer = AutoTokenizer.from_pretrained(run.base_model)
model = AutoModelForCausalLM.from_pretrained(run.base_model)


def encoded(row):
    """Token ids of the whole row, and labels of its completion alone."""
    turns = [{"role": "system", "content": row["system"]}] if "system" in row else []
    turns.append({"role": "user", "content": row["prompt"]})
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    turns.append({"role": "assistant", "content": row["completion"]})
    ids = tokenizer.apply_chat_template(turns, return_dict=False)
    return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}


class Tell(TrainerCallback):
    """Passes losses on to the job's status, and the pod's wish to end to the Trainer."""

    def on_log(self, args, state, control, logs=None, **kwargs):  # noqa: D102
        if logs and "loss" in logs:
            run.report(step=state.global_step, total_steps=state.max_steps, epoch=state.epoch, loss=float(logs["loss"]))

    def on_step_end(self, args, state, control, **kwargs):  # noqa: D102
        control.should_save = control.should_training_stop = control.should_training_stop or run.stop_requested


arguments = TrainingArguments(
    output_dir=str(run.checkpoints),
    num_train_epochs=run.spec.hyperparameters.epochs,
    learning_rate=run.spec.hyperparameters.learning_rate or 2e-5,
    per_device_train_batch_size=1,
    gradient_accumulation_steps=run.spec.hyperparameters.batch_size,
    logging_steps=1,
    save_steps=20,
    save_total_limit=2,
    report_to=[],
    disable_tqdm=True,
)
trainer = Trainer(model, arguments, train_dataset=[encoded(row) for row in run.rows()], callbacks=[Tell()])
trainer.train(resume_from_checkpoint=get_last_checkpoint(run.checkpoints))
if run.stop_requested:
    run.stop()
trainer.save_model(run.output)
