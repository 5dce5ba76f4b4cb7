"""Keeps a trainer that was given up from writing beside its successor.

A node that does not answer may still run its pod. The next attempt puts its number into the output folder when it
starts; an earlier one reads it after each step and once more before a checkpoint or the artifact gets its name, and
stops: one that was frozen may wake in the middle of writing, long after its successor's end. The number, not the clock,
decides who is newer. In an object store each attempt leaves an object of its own, so that none is overwritten.
"""

from pathlib import Path
from typing import Protocol

from finetune_trainer.storage.durable import write_errors
from finetune_trainer.storage.store import Store

FILE = "attempt"
FOLDER = "attempts"


class Passable(Protocol):
    """What knows whether a newer attempt has begun."""

    def take(self) -> bool:
        """Say that this attempt has begun; False where a newer one has said so already."""
        ...

    def is_passed(self) -> bool:
        """Whether a newer attempt has begun."""
        ...


class Fence:
    """The number of the newest attempt, in a job's output folder.

    Args:
        output: the job's output folder, shared by its attempts.
        attempt: this one's number, from 1.
    """

    def __init__(self, output: Path, attempt: int) -> None:
        self._path = output / FILE
        self._attempt = attempt

    def take(self) -> bool:
        """Say that this attempt has begun; False where a newer one has said so already.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.is_passed():
            return False
        self._path.parent.mkdir(parents=True, exist_ok=True)
        staging = self._path.with_name(f".{FILE}-{self._attempt}")
        staging.write_text(f"{self._attempt}\n", encoding="utf-8")
        staging.replace(self._path)
        return True

    def is_passed(self) -> bool:
        """Whether a newer attempt has begun.

        Raises:
            TrainerError: ArtifactFailed, the volume does not say.
        """
        with write_errors(self._path):
            try:
                text = self._path.read_text(encoding="utf-8").strip()
            except FileNotFoundError:
                return False
        return text.isdecimal() and int(text) > self._attempt


class StoreFence:
    """The numbers of a job's attempts, in its folder of an object store."""

    def __init__(self, store: Store, attempt: int) -> None:
        self._store, self._attempt = store, attempt

    def take(self) -> bool:
        """Say that this attempt has begun; False where a newer one has said so already.

        Raises:
            TrainerError: what Store raises.
        """
        if self.is_passed():
            return False
        self._store.put_bytes(b"", f"{FOLDER}/{self._attempt:06}")
        return True

    def is_passed(self) -> bool:
        """Whether a newer attempt has begun.

        Raises:
            TrainerError: what Store raises.
        """
        begun = (name.rpartition("/")[2] for name in self._store.objects(FOLDER))
        return any(number.isdecimal() and int(number) > self._attempt for number in begun)
