"""Answers so far, on disk: a run that was interrupted asks nobody the same question twice.

OUTPUT/evaluation/WHO-KEY.jsonl has one line per answer. KEY stands for all that answers depend on: data, settings, who.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from finetune_trainer.durable import whole_file, write_errors

FOLDER = "evaluation"


class Answer(NamedTuple):
    """What was said to one question."""

    row: int
    """Number of the question, from 0."""
    text: str
    prompt_tokens: int | None = None
    """As an endpoint counts them."""


class KeptAnswers:
    """The answers of one contestant."""

    def __init__(self, output: Path, who: str, *depends_on: Any) -> None:
        digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
        self._path = output / FOLDER / f"{who}-{digest}.jsonl"
        self.by_row: dict[int, Answer] = {answer.row: answer for answer in _whole_lines(self._path)}
        whole_file(self._path, b"".join(map(_line, self.by_row.values())))

    def add(self, answers: Iterable[Answer]) -> None:
        """Keep more of them; the system decides when they reach the disk, but only ever as whole lines."""
        new = list(answers)
        self.by_row |= {answer.row: answer for answer in new}
        with write_errors(self._path), self._path.open("ab") as file:
            file.write(b"".join(map(_line, new)))


def forget(output: Path) -> None:
    """The answers are in the artifact, or the report, by now."""
    shutil.rmtree(output / FOLDER, ignore_errors=True)


def _line(answer: Answer) -> bytes:
    # A lone surrogate becomes the escape that JSON has for it.
    text = json.dumps(answer._asdict(), ensure_ascii=False)
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


def _whole_lines(path: Path) -> Iterator[Answer]:
    """A killed writer may have left half a line at the end."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            yield Answer(**json.loads(line))
        except (ValueError, TypeError):
            return
