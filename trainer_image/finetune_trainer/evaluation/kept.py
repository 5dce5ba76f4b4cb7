"""Answers so far, on disk: a resumed run asks no question twice.

OUTPUT/evaluation/WHO-KEY.jsonl has one line per answer. KEY is a hash of everything that answers depend on: data,
settings, model. Memory holds only the offset of each line, 8 bytes.
"""

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from finetune_trainer.evaluation.stored import Portioned
from finetune_trainer.storage.durable import require_file, whole_file, write_errors

FOLDER = "evaluation"


class Answer(NamedTuple):
    """The answer to one question."""

    row: int
    """Number of the question, from 0."""
    text: str
    prompt_tokens: int | None = None
    """As counted by the endpoint."""


class KeptAnswers:
    """The answers of one contestant."""

    def __init__(self, output: Path, who: str, *depends_on: Any) -> None:
        digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
        self._path = output / FOLDER / f"{who}-{digest}.jsonl"
        self._places = _Places()
        self._size = 0
        self._prompt_tokens, self._counted = 0, 0
        if not self._path.exists():
            whole_file(self._path, b"")
        with write_errors(self._path):
            require_file(self._path)
            with self._path.open("rb") as file:
                for answer, line in _whole_lines(file):
                    self._note(answer, line)
            os.truncate(self._path, self._size)  # a killed writer may have left half a line at the end

    def __contains__(self, row: int) -> bool:
        """Whether the question has an answer."""
        return self._places[row] >= 0

    def __len__(self) -> int:
        """How many questions have an answer."""
        return self._places.count

    def texts(self, rows: int) -> Portioned[str | None]:
        """The answers to questions 0 to `rows`; None for unanswered ones."""
        return _Texts(self._path, self._places, rows)

    @property
    def prompt_tokens(self) -> float | None:
        """The mean of the known counts; None if there are none."""
        return self._prompt_tokens / self._counted if self._counted else None

    def add(self, answers: Iterable[Answer]) -> None:
        """Append answers. The system decides when they reach the disk, but always as complete lines."""
        new = [(answer, _line(answer)) for answer in answers]
        with write_errors(self._path), self._path.open("ab") as file:
            self._size = file.tell()  # a pod that is being replaced may still have appended
            file.write(b"".join(line for _, line in new))
        for answer, line in new:
            self._note(answer, line)

    def _note(self, answer: Answer, line: bytes) -> None:
        if answer.prompt_tokens is not None and self._places[answer.row] < 0:
            self._prompt_tokens += answer.prompt_tokens
            self._counted += 1
        self._places[answer.row] = self._size
        self._size += len(line)


class _Places:
    """Offset of each row's line in the file; -1 if there is none."""

    def __init__(self) -> None:
        self.starts = array("q")
        self.count = 0

    def __getitem__(self, row: int) -> int:
        return self.starts[row] if 0 <= row < len(self.starts) else -1

    def __setitem__(self, row: int, start: int) -> None:
        if row >= len(self.starts):
            self.starts.extend(array("q", [-1]) * (row + 1 - len(self.starts)))
        self.count += self.starts[row] < 0
        self.starts[row] = start


class _Texts(Portioned[str | None]):
    def __init__(self, path: Path, places: _Places, rows: int) -> None:
        self._path, self._places, self._rows = path, places, rows

    def __len__(self) -> int:
        return self._rows

    def portion(self, places: range) -> list[str | None]:
        with self._path.open("rb") as file:
            starts = (self._places[row] for row in places)
            return [None if start < 0 else _read(file, start).text for start in starts]


def forget(output: Path) -> None:
    """Delete the answers, once they are in the artifact or the report."""
    shutil.rmtree(output / FOLDER, ignore_errors=True)


def _line(answer: Answer) -> bytes:
    # Writes a lone surrogate as its JSON escape.
    text = json.dumps(answer._asdict(), ensure_ascii=False)
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


def _read(file: BinaryIO, start: int) -> Answer:
    file.seek(start)
    return Answer(**json.loads(file.readline()))


def _whole_lines(file: BinaryIO) -> Iterator[tuple[Answer, bytes]]:
    """The lines before the first incomplete one."""
    for line in file:
        try:
            answer = Answer(**json.loads(line))
        except (ValueError, TypeError):
            return
        if not line.endswith(b"\n"):
            return
        yield answer, line
