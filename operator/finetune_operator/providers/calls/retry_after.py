"""The pause that a provider asks for in the headers of its answer. Pure."""

from collections.abc import Mapping
from datetime import datetime

from finetune_operator.runtime.http_date import http_date

SHORTEST, LONGEST = 1.0, 3600.0


def asked_pause(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds, clamped, by `retry-after-ms`, or by `Retry-After` as a number or a date (RFC 9110).

    Args:
        headers: of the answer; names are case-insensitive.
        now: used if the answer has no `Date`. A date in `Retry-After` is relative to that, since clocks differ.
    """
    told = {name.casefold(): value.strip() for name, value in headers.items()}
    milliseconds, seconds = _number(told.get("retry-after-ms")), _number(told.get("retry-after"))
    if milliseconds is not None:
        seconds = milliseconds / 1000
    if seconds is None:
        until = http_date(told.get("retry-after"))
        seconds = (until - (http_date(told.get("date")) or now)).total_seconds() if until else None
    return None if seconds is None else min(max(seconds, SHORTEST), LONGEST)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
