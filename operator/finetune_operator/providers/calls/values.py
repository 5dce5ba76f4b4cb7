"""Parses values in providers' answers: messages, timestamps, numbers, CSV rows. Pure."""

import codecs
import csv
import io
import logging
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from finetune_api.job_status import LOSS_POINTS
from finetune_operator.decide.job.remote import at
from finetune_operator.runtime.logs import redact

logger = logging.getLogger(__name__)

T = TypeVar("T")

Wire = Mapping[str, Any]
"""Part of a provider's answer or of a request."""

KEPT_POINTS = 4 * LOSS_POINTS
"""Maximum points kept of a provider's loss curve; status thins them further, together with its own."""

RESULTS_MAX_BYTES = 16 * 1024 * 1024
"""Maximum bytes read of a record of losses."""

_MESSAGE_LIMIT, _READ_LIMIT = 500, 16 * 1024
_WORD_LIMIT = 64
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
"""Control and invisible characters."""
_BETWEEN_WORDS = re.compile(r"[\s-]+")
_MILLISECONDS = 1e11
"""Larger numbers are milliseconds: as seconds they would be past the year 5138."""
_LARGEST = 2**53
"""The largest integer that JSON numbers represent exactly."""


def sanitized(message: str) -> str:
    """A provider's message on one line, truncated, without secrets, control characters or invalid Unicode."""
    readable = message[:_READ_LIMIT].encode("utf-8", "replace").decode()
    return _UNSEEN.sub(" ", redact(readable)).strip()[:_MESSAGE_LIMIT]


def unknown_state(word: str) -> str:
    """The note for a job in a state that the operator does not know."""
    return f"the provider calls its state {sanitized(word)[:_WORD_LIMIT]!r}"


def parse_time(value: Any) -> datetime | None:
    """Parse a time in seconds or milliseconds since 1970 or in ISO 8601; None for anything else."""
    found = number(value)
    try:
        if found is not None:
            seconds = found / 1000 if found > _MILLISECONDS else found
            return at(seconds) if seconds > 0 else None
        moment = datetime.fromisoformat(str(value or ""))
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def number(value: Any) -> float | None:
    """Parse a finite number; None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if found == found and abs(found) != float("inf") else None  # noqa: PLR0124 - NaN is not itself


def parse_int(value: Any) -> int | None:
    """A number without its fraction; None for anything else, or beyond what JSON represents exactly."""
    found = number(value)
    return None if found is None or abs(found) > _LARGEST else int(found)


class EvenSample(Generic[T]):
    """An evenly spaced sample of a stream, including the first and last items.

    A record of losses has a row for each of up to millions of steps, and status shows a hundred.
    """

    def __init__(self) -> None:
        self._every, self._seen = 1, 0
        self._kept: list[T] = []
        self._last: list[T] = []

    def add(self, thing: T) -> None:
        """Add the next item."""
        self._last = [thing]
        if self._seen % self._every == 0:
            self._kept.append(thing)
        self._seen += 1
        if len(self._kept) > KEPT_POINTS:
            self._kept, self._every = self._kept[::2], 2 * self._every

    def found(self) -> list[T]:
        """The sample."""
        return self._kept if self._kept[-1:] == self._last else self._kept + self._last


def complete_lines(record: bytes, *, read: int) -> bytes:
    """Drop the incomplete last line of a truncated record of losses: half a number would be a wrong number.

    Args:
        record: the part that was read.
        read: its size in bytes before decoding.
    """
    return record if read < RESULTS_MAX_BYTES else record[: record.rfind(b"\n") + 1]


def csv_rows(content: bytes) -> Iterator[dict[str, str]]:
    """CSV rows as dicts by column name in the form `train_loss`, up to the first invalid line.

    The delimiter is the most frequent of comma, semicolon and tab in the first line.
    """
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = io.TextIOWrapper(io.BytesIO(content), encoding, errors="replace", newline="")
    head = text.readline(_READ_LIMIT)
    text.seek(0)
    rows = csv.reader(text, delimiter=max(",;\t", key=head.count))
    try:
        names = [_BETWEEN_WORDS.sub("_", name.strip().casefold()) for name in next(rows, ())]
        for row in rows:
            yield dict(zip(names, row, strict=False))
    except csv.Error:
        logger.warning("a provider's record of losses is not CSV from some line on")
