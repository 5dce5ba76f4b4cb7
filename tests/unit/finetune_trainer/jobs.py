"""Jobs for the trainer's tests: rows that a tiny model can learn, and their TrainerJob."""

import json
import random
from pathlib import Path
from typing import Any

from finetune_api.trainer import TrainerJob

COLOURS = ("red", "green", "blue")


def write_rows(path: Path, count: int, *, seed: int) -> Path:
    """Write rows of various lengths whose answer is the colour in the prompt."""
    chance = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            colour = chance.choice(COLOURS)
            prompt = f"What colour is number {chance.randint(0, 99999)}{' very' * chance.randint(0, 12)} {colour}?"
            file.write(json.dumps({"prompt": prompt, "completion": colour, "system": "Answer with one word."}) + "\n")
    return path


def make_job(
    folder: Path, cache: Path, *, splits: tuple[str, ...] = ("train", "validation"), **spec: Any
) -> TrainerJob:
    """A job with its own rows below `folder`; `spec` overrides parts of its spec.

    It uses float32, as tests compare numbers; `test_precision.py` tests the defaults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": 40, "validation": 12, "test": 12}
    data = {
        split: {"uri": write_rows(folder / f"{split}.jsonl", sizes[split], seed=index).as_uri()}
        for index, split in enumerate(splits)
    }
    usual = {"epochs": 3, "learningRate": 0.01, "batchSize": 8, "precision": "Float32"}
    hyperparameters = usual | spec.pop("hyperparameters", {})
    return TrainerJob.model_validate(
        {
            "namespace": "team-a",
            "name": "colours",
            "uid": "1234",
            "attempt": 1,
            "output": str(folder / "output"),
            "artifactURI": "pvc://models/colours",
            "modelCache": str(cache),
            "airGapped": True,
            "spec": {
                "connectionRef": {"name": "local"},
                "baseModel": "test/tiny-llama",
                "modelRef": {"name": "colours"},
                "dataset": data,
                "hyperparameters": hyperparameters,
                **spec,
            },
        }
    )


def write_pairs(path: Path, count: int, *, seed: int) -> Path:
    """Write rows of various lengths whose chosen answer is the colour in the prompt; the rejected one avoids it."""
    chance = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            chosen, rejected = chance.choice(COLOURS), "that is hard to say" + " indeed" * chance.randint(0, 3)
            prompt = f"What colour is number {chance.randint(0, 99999)}{' very' * chance.randint(0, 12)} {chosen}?"
            row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "system": "Answer with one word."}
            file.write(json.dumps(row) + "\n")
    return path


def make_preference_job(
    folder: Path, cache: Path, *, splits: tuple[str, ...] = ("train", "validation"), **spec: Any
) -> TrainerJob:
    """As `make_job`, with preference pairs."""
    spec = {"preference": {}, **spec}
    job = make_job(folder, cache, splits=splits, **spec)
    for index, split in enumerate(splits):
        write_pairs(folder / f"{split}.jsonl", 40 if split == "train" else 12, seed=index)
    return job
