"""A training loop of one's own in plain PyTorch, with checkpoints, resume, the wish to stop and reports spelled out."""

import json
import random

import torch
from safetensors.torch import load_file, save_file

from finetune_trainer import recipe

BATCH = 8

run = recipe.context()
epochs = max(1, round(run.spec.hyperparameters.epochs))
model = recipe.load_model(run)
device = "cuda" if torch.cuda.is_available() else "cpu"
model.to(device).train()
trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
optimizer = torch.optim.SGD(trained.values(), lr=run.spec.hyperparameters.learning_rate or 0.01)

# Rows as token ids and labels; only completions carry loss.
store = recipe.tokenised(run)
order = [row for epoch in range(epochs) for row in random.Random(epoch).sample(range(len(store)), len(store))]
steps = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def save_checkpoint(step):
    """Write under another name and rename: a checkpoint is there as a whole or not at all."""
    draft = run.checkpoints / "draft"
    save_file({name: value.detach().cpu() for name, value in trained.items()}, draft)
    draft.rename(run.checkpoints / f"{step:06}.safetensors")
    (run.checkpoints / "newest.json").write_text(json.dumps(step))


def resume():
    """The step to go on with: 0 at the first attempt."""
    newest = run.checkpoints / "newest.json"
    if not newest.exists():
        return 0
    step = json.loads(newest.read_text())
    for name, value in load_file(run.checkpoints / f"{step:06}.safetensors").items():
        trained[name].data.copy_(value)
    return step


for step, rows in enumerate(steps[(done := resume()) :], start=done + 1):
    if run.stop_requested:
        save_checkpoint(step - 1)
        run.stop()
    total, tokens = 0.0, 0
    for row in rows:
        ids, labels = (torch.from_numpy(part)[None].to(device) for part in store.row(row))
        loss = model(input_ids=ids, labels=labels).loss / len(rows)
        loss.backward()
        total, tokens = total + float(loss.detach()), tokens + ids.numel()
    optimizer.step()
    optimizer.zero_grad()
    run.report(step=step, total_steps=len(steps), epoch=step * epochs / len(steps), loss=total, tokens=tokens)
    if step % 20 == 0:
        save_checkpoint(step)

recipe.save(run, model)
