"""Which code the previous attempt ran: the record continues if the same code resumes without reporting again."""

import json
from pathlib import Path

from finetune_trainer.storage.durable import text_in, whole_file

FILE = "code-ran.json"
"""In the job's output folder."""


def is_same(output: Path, ran: list[str]) -> bool:
    """Whether the previous attempt ran this code on this data."""
    try:
        return bool(json.loads(text_in(output / FILE)) == ran)
    except (OSError, ValueError):
        return False


def note(output: Path, ran: list[str]) -> None:
    """Record that this code is about to run.

    Raises:
        TrainerError: ArtifactFailed.
    """
    whole_file(output / FILE, json.dumps(ran).encode())


def forget(output: Path) -> None:
    """Delete the note once the artifact is written."""
    (output / FILE).unlink(missing_ok=True)
