"""A time in an HTTP header (RFC 9110). Pure."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def http_date(text: str | None) -> datetime | None:
    """The time, in UTC if it names no zone; None if it cannot be parsed."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
