"""Conversations split over two places of a row, as services log them: the request in one, the response in the other.

Recognized by their shape, whatever program writes them: a list of messages that does not end with an answer, and a
message of the assistant elsewhere, both possibly nested or JSON text. The command joins them.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from finetune_trainer.data.fixes.column_names import may_be_shown
from finetune_trainer.data.fixes.jq import jq_rows, key
from finetune_trainer.data.turns import ROLE_OF, is_message

_DEPTH, _MOST_ELEMENTS, _MOST_PLACES = 8, 4, 4096
_FROM_JSON = ' // "null" | fromjson'
_SYSTEMS = ("system", "systemInstruction", "system_instruction", "instructions")

_Place = tuple[str, Any]
"""The jq path to a value, and the value."""


def join_step(first: Mapping[str, Any], file_format: str, *, may_be_mapped: bool = False) -> str | None:
    """The next step for such rows, judged by the first; None if it is not one.

    `may_be_mapped`: also None if both are top-level columns, which can be mapped instead.
    """
    places = list(islice(_places(("", first), _DEPTH), _MOST_PLACES))
    request = next((one for one in places if _is_request(one[1])), None)
    answer = next((way for way, value in places if _is_answer(value)), None)
    if request is None or answer is None or (may_be_mapped and _is_column(request[0]) and _is_column(answer)):
        return None
    above = request[0].rpartition("[")[0]
    systems = (f"{above}[{key(name)}]" for name in _SYSTEMS)
    system = next((f"system: ({way}), " for way in systems if any(way == place for place, _ in places)), "")
    how = jq_rows(
        file_format,
        f'{{{system}messages: ((({request[0]}) // [] | map({{role: "user"}} + .)) + '
        f'[({answer}) | {{role: "assistant"}} + .])}}',
    )
    return f"A conversation must be in one place, with its answer: `{how}` puts the answers after what was asked."


def _places(place: _Place, depth: int) -> Iterator[_Place]:
    """A value and everything in it, following only names that may be shown; messages are not descended into."""
    way, value = place
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        way, value = f"{way}{_FROM_JSON} | .", _decoded(value)
    yield way, value
    if depth == 0 or _is_request(value) or _is_answer(value):
        return
    if isinstance(value, Mapping):
        for name, one in value.items():
            if may_be_shown(name):
                yield from _places((f"{way or '.'}[{key(name)}]", one), depth - 1)
    elif isinstance(value, list):
        for at, one in enumerate(value[:_MOST_ELEMENTS]):
            yield from _places((f"{way}[{at}]", one), depth - 1)


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _is_request(value: Any) -> bool:
    """Whether it is a list of messages without an answer yet."""
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value)) and not _is_answer(value[-1])


def _is_answer(value: Any) -> bool:
    """Whether it is a message of the assistant, or has text parts and no role, as in Bedrock's logs."""
    if not isinstance(value, dict) or not {"content", "parts"} & value.keys():
        return False
    parts = value.get("content") if value.get("role") is None else None
    if isinstance(parts, list) and parts:
        return all(isinstance(part, dict) and "text" in part for part in parts)
    return ROLE_OF.get(str(value.get("role"))) == "assistant"


def _is_turn(value: Any) -> bool:
    return is_message(value) or (isinstance(value, dict) and "parts" in value)  # Gemini: no role needed for a question


def _is_column(way: str) -> bool:
    """Whether it is a top-level column, or an element of a list that is one: these can be mapped."""
    return re.fullmatch(r'\.\["[^"]+"\](\[\d\])?', way) is not None
