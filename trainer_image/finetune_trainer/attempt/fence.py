"""Keeps a trainer that was given up from writing beside its successor.

A node that does not respond may still run its pod. The next attempt writes its number into the output folder when it
starts; an earlier one reads it after each step and again before a checkpoint or the artifact is renamed, and stops: a
frozen process may wake up while writing, long after its successor has ended. The number, not the clock, decides which
is newer. In an object store each attempt writes its own object, so that none is overwritten.

An attempt may have a second pod: a queue preempted the first one on a node that does not respond, or its batch Job
was deleted before the status was updated. Of pods with the same number the last one to start owns the folder.
"""

import secrets
from pathlib import Path
from typing import Protocol

from finetune_trainer.storage.durable import text_in, write_errors
from finetune_trainer.storage.store import Store

FILE = "attempt"
HOLDER = "attempt-holder"
FOLDER = "attempts"


class AttemptFence(Protocol):
    """Tells whether a newer attempt has started."""

    def take(self) -> bool:
        """Register this attempt as started; False if a newer one is already registered."""
        ...

    def is_superseded(self) -> bool:
        """Whether a newer attempt has started."""
        ...


class Fence:
    """The number of the newest attempt, in a job's output folder, and the mark of its process."""

    def __init__(self, output: Path, attempt: int) -> None:
        self._output = output
        self._attempt = attempt
        self._mark = secrets.token_hex(8)

    def take(self) -> bool:
        """Register this attempt as started; False if a newer one is already registered.

        Raises:
            TrainerError: ArtifactFailed, the volume cannot be read.
            OSError: the folder cannot be written.
        """
        if self._newest() > self._attempt:
            return False
        self._output.mkdir(parents=True, exist_ok=True)
        # The number is alone in its file: trainers of earlier releases expect nothing else.
        for name, text in ((HOLDER, self._mark), (FILE, str(self._attempt))):
            staging = self._output / f".{name}-{self._mark}"
            staging.write_text(f"{text}\n", encoding="utf-8")
            staging.replace(self._output / name)
        return True

    def is_superseded(self) -> bool:
        """Whether a newer attempt has started, or another pod of this one.

        Raises:
            TrainerError: ArtifactFailed, the volume cannot be read.
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
    """The numbers of a job's attempts, in its folder of a store, each with the mark of its process."""

    def __init__(self, store: Store, attempt: int) -> None:
        self._store, self._attempt = store, attempt
        self._object = f"{FOLDER}/{attempt:06}"
        self._mark = secrets.token_hex(8).encode()

    def take(self) -> bool:
        """Register this attempt as started; False if a newer one is already registered.

        Raises:
            TrainerError: as `Store` raises it.
        """
        if self._has_newer():
            return False
        self._store.put_bytes(self._mark, self._object)
        return True

    def is_superseded(self) -> bool:
        """Whether a newer attempt has started, or another pod of this one.

        Raises:
            TrainerError: as `Store` raises it.
        """
        return self._has_newer() or self._store.get_bytes(self._object) not in {None, b"", self._mark}

    def _has_newer(self) -> bool:
        begun = (name.rpartition("/")[2] for name in self._store.objects(FOLDER))
        return any(number.isdecimal() and int(number) > self._attempt for number in begun)
