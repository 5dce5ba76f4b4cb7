"""A time in the head of an answer, as HTTP writes it (RFC 9110). Pure."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def http_date(text: str | None) -> datetime | None:
    """The time, of UTC where it names no zone; None where it is none."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
