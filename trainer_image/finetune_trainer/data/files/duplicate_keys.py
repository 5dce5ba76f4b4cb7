"""Objects of JSON in which a name stands twice. Decoders keep its last value, unsaid; such a row says two things.

Counting quotes tells whether there is any, in a tenth of the time that a decoder needs which shows all names.
"""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any


def are_told_apart(
    text: bytes | bytearray, values: Sequence[Any], *, quotes: int | None = None, parts: int | None = None
) -> bool:
    """Whether no object of some JSON has a name twice; `values` is what was decoded of it.

    Who knows it says how many `quotes` it has, and how many names and texts (`parts`) the values have.

    Two quotes that are no escapes stand around each name and each text. So a name that was dropped leaves quotes over,
    as escapes do too, which are looked for only then.
    """
    known = 2 * (_names_and_texts(values) if parts is None else parts)
    if (text.count(b'"') if quotes is None else quotes) == known:
        return True
    return b"\\" in text and text.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') == known


def _names_and_texts(values: Sequence[Any]) -> int:
    """How many there are, level by level: within objects and lists too."""
    count = 0
    while values:
        types = list(map(type, values))
        texts = types.count(str)
        count += texts
        if texts == len(types):
            break
        objects = values if types.count(dict) == len(types) else [one for one in values if type(one) is dict]
        count += sum(map(len, objects))
        lists = (one for one in values if type(one) is list) if list in types else ()
        values = [*chain.from_iterable(map(dict.values, objects)), *chain.from_iterable(lists)]
    return count


def repeated_name(text: bytes | bytearray) -> str:
    """The name that stands twice in the outermost object; an empty one where only objects within have such."""
    found = [""]

    def look(pairs: list[tuple[str, Any]]) -> None:
        (name, count), *_ = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
        found.append(name if count > 1 else "")

    json.loads(text, object_pairs_hook=look, parse_int=str, parse_float=str)
    return found[-1]
