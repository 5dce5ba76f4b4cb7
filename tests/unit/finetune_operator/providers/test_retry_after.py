"""How long providers ask to be left alone: in every form that HTTP and the SDKs know, and with clocks that differ."""

from datetime import UTC, datetime

import pytest

from finetune_operator.providers.calls.retry_after import asked_pause

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
AT = "Sat, 21 Nov 2026 12:00:30 GMT"

PAUSES: dict[str, tuple[dict[str, str], float | None]] = {
    "seconds": ({"Retry-After": "20"}, 20.0),
    "a part of one": ({"retry-after": "0.2"}, 1.0),
    "milliseconds": ({"retry-after-ms": "2500", "retry-after": "60"}, 2.5),
    "a date": ({"Retry-After": AT}, 30.0),
    "a date, and the provider's clock is an hour late": (
        {"Retry-After": "Sat, 21 Nov 2026 11:00:30 GMT", "Date": "Sat, 21 Nov 2026 11:00:00 GMT"},
        30.0,
    ),
    "a date that is over": ({"Retry-After": "Sat, 21 Nov 2026 11:00:00 GMT"}, 1.0),
    "a day": ({"Retry-After": "86400"}, 3600.0),
    "less than nothing": ({"Retry-After": "-5"}, None),
    "words": ({"Retry-After": "soon"}, None),
    "not a number": ({"Retry-After": "nan"}, None),
    "without end": ({"Retry-After": "inf"}, None),
    "nothing": ({"Retry-After": ""}, None),
    "no header": ({}, None),
}


@pytest.mark.parametrize("name", PAUSES)
def test_a_pause_is_read_in_every_form(name: str) -> None:
    headers, seconds = PAUSES[name]
    assert asked_pause(headers, NOON) == seconds
