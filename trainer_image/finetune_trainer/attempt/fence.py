"""Keeps a trainer that was given up from writing beside its successor.

A node that does not answer may still run its pod. The next attempt puts its number into the output folder when it
starts; an earlier one reads it after each step and once more before a checkpoint or the artifact gets its name, and
stops: one that was frozen may wake in the middle of writing, long after its successor's end. The number, not the clock,
decides who is newer. In an object store each attempt leaves an object of its own, so that none is overwritten.

An attempt may have a second pod: a queue took its first one away and it stands on a node that does not answer, or its
batch Job was deleted before status spoke of it. Of pods with the same number the one that came last has the folder.
"""

import secrets
from pathlib import Path
from typing import Protocol

from finetune_trainer.storage.durable import text_in, write_errors
from finetune_trainer.storage.store import Store

FILE = "attempt"
HOLDER = "attempt-holder"
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
    """The number of the newest attempt, in a job's output folder, and the mark of the process that has it."""

    def __init__(self, output: Path, attempt: int) -> None:
        self._output = output
        self._attempt = attempt
        self._mark = secrets.token_hex(8)

    def take(self) -> bool:
        """Say that this attempt has begun; False where a newer one has said so already.

        Raises:
            TrainerError: ArtifactFailed, the volume does not say.
            OSError: the folder cannot be written.
        """
        if self._newest() > self._attempt:
            return False
        self._output.mkdir(parents=True, exist_ok=True)
        # The number stays alone in its file: trainers of earlier releases look for nothing else.
        for name, text in ((HOLDER, self._mark), (FILE, str(self._attempt))):
            staging = self._output / f".{name}-{self._mark}"
            staging.write_text(f"{text}\n", encoding="utf-8")
            staging.replace(self._output / name)
        return True

    def is_passed(self) -> bool:
        """Whether a newer attempt has begun, or another pod of this one.

        Raises:
            TrainerError: ArtifactFailed, the volume does not say.
        """
        newest = self._newest()
        return newest > self._attempt or (newest == self._attempt and self._read(HOLDER) not in {"", self._mark})

    def _newest(self) -> int:
        text = self._read(FILE)
        return int(text) if text.isdecimal() else 0

    def _read(self, name: str) -> str:
        with write_errors(self._output / name):
            try:
                return text_in(self._output / name, errors="replace").strip()
            except FileNotFoundError:
                return ""


class StoreFence:
    """The numbers of a job's attempts, in its folder of a store, each with the mark of the process that has it."""

    def __init__(self, store: Store, attempt: int) -> None:
        self._store, self._attempt = store, attempt
        self._object = f"{FOLDER}/{attempt:06}"
        self._mark = secrets.token_hex(8).encode()

    def take(self) -> bool:
        """Say that this attempt has begun; False where a newer one has said so already.

        Raises:
            TrainerError: what Store raises.
        """
        if self._has_newer():
            return False
        self._store.put_bytes(self._mark, self._object)
        return True

    def is_passed(self) -> bool:
        """Whether a newer attempt has begun, or another pod of this one.

        Raises:
            TrainerError: what Store raises.
        """
        return self._has_newer() or self._store.get_bytes(self._object) not in {None, b"", self._mark}

    def _has_newer(self) -> bool:
        begun = (name.rpartition("/")[2] for name in self._store.objects(FOLDER))
        return any(number.isdecimal() and int(number) > self._attempt for number in begun)
