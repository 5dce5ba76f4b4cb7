"""Values in the answers of every provider: sentences, moments, numbers, rows of CSV. Pure."""

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
"""Part of a provider's answer, or of what it is sent."""

KEPT_POINTS = 4 * LOSS_POINTS
"""Of a curve at its provider: status thins them once more, together with what it has."""

RESULTS_MAX_BYTES = 16 * 1024 * 1024
"""Of a record of losses that is read."""

_MESSAGE_LIMIT, _READ_LIMIT = 500, 16 * 1024
_WORD_LIMIT = 64
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
"""What steers terminals, or cannot be seen."""
_BETWEEN_WORDS = re.compile(r"[\s-]+")
_MILLISECONDS = 1e11
"""As seconds a number from here on would be in the year 5138."""
_LARGEST = 2**53
"""What JSON's numbers hold exactly."""


def plain(message: str) -> str:
    """A provider's sentence, cut short, on one line, without what looks like a secret, or is none of Unicode's text."""
    readable = message[:_READ_LIMIT].encode("utf-8", "replace").decode()
    return _UNSEEN.sub(" ", redact(readable)).strip()[:_MESSAGE_LIMIT]


def unknown_state(word: str) -> str:
    """What is said of a job whose provider has a word for its state that nobody here knows."""
    return f"the provider calls its state {plain(word)[:_WORD_LIMIT]!r}"


def when(value: Any) -> datetime | None:
    """A moment in seconds or milliseconds since 1970, or as ISO 8601 has it; None where it is none of these."""
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
    """A finite number; None where it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if found == found and abs(found) != float("inf") else None  # noqa: PLR0124 - NaN is not itself


def whole(value: Any) -> int | None:
    """A number without its fraction; None where it is none, or beyond what JSON holds exactly."""
    found = number(value)
    return None if found is None or abs(found) > _LARGEST else int(found)


class Spread(Generic[T]):
    """Some of many things that come one after the other, evenly spread, the first and the last among them.

    A record of losses has a row for each step, of which there may be millions, and status shows a hundred.
    """

    def __init__(self) -> None:
        self._every, self._seen = 1, 0
        self._kept: list[T] = []
        self._last: list[T] = []

    def add(self, thing: T) -> None:
        """What comes next."""
        self._last = [thing]
        if self._seen % self._every == 0:
            self._kept.append(thing)
        self._seen += 1
        if len(self._kept) > KEPT_POINTS:
            self._kept, self._every = self._kept[::2], 2 * self._every

    def found(self) -> list[T]:
        """Those that are kept."""
        return self._kept if self._kept[-1:] == self._last else self._kept + self._last


def whole_lines(record: bytes, *, read: int) -> bytes:
    """A record of losses without the line in which reading it ended: half a number is another one.

    Args:
        record: as far as it was read.
        read: so many bytes, before they were decoded.
    """
    return record if read < RESULTS_MAX_BYTES else record[: record.rfind(b"\n") + 1]


def csv_rows(content: bytes) -> Iterator[dict[str, str]]:
    """Rows of CSV by the names of their columns, as `train_loss`; up to where it is none any more.

    What parts its columns is what there is most of in its first line: a comma, a semicolon, a tab.
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
