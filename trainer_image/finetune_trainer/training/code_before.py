"""Which code the attempt before has run: what the same code has reported counts on where it goes on and is silent."""

import json
from pathlib import Path

from finetune_trainer.storage.durable import text_in, whole_file

FILE = "code-ran.json"
"""Below the job's output."""


def is_same(output: Path, ran: list[str]) -> bool:
    """Whether it was this code, on this data."""
    try:
        return bool(json.loads(text_in(output / FILE)) == ran)
    except (OSError, ValueError):
        return False


def note(output: Path, ran: list[str]) -> None:
    """This code is about to be run.

    Raises:
        TrainerError: ArtifactFailed.
    """
    whole_file(output / FILE, json.dumps(ran).encode())


def forget(output: Path) -> None:
    """The artifact is there."""
    (output / FILE).unlink(missing_ok=True)
