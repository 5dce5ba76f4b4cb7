"""Keeps a trainer that was given up from writing beside its successor.

A node that does not answer may still run its pod. The next attempt puts its number into the output folder when it
starts; an earlier one reads it before it writes a checkpoint or the artifact, and stops. The number, not the clock,
decides who is newer.
"""

from pathlib import Path

FILE = "attempt"


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
        """Whether a newer attempt has begun."""
        try:
            text = self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return False
        return text.isdecimal() and int(text) > self._attempt
