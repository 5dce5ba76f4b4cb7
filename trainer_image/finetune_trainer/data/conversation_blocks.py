"""Fast path for many conversations at once, whose messages have nothing but a role and text.

Conversations with the same roles, whose only answer is the last message, stay together. The others become single rows,
and their messages need no further checks.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from finetune_trainer.data.rows import Position, Role, Row, Rows, Turn
from finetune_trainer.data.turns import MESSAGES_LIMIT, ROLE_OF, are_text

_NAMES = (("role", "content"), ("from", "value"))
"""Field names for role and text, of chat APIs and of ShareGPT."""


def together(places: Sequence[int], conversations: Sequence[Any]) -> Iterator[Rows | Row] | None:
    """The rows, in order; None if any of them is not plainly a conversation that ends with an answer."""
    if set(map(type, conversations)) != {list}:
        return None
    messages = list(chain.from_iterable(conversations))
    for role, content in _NAMES:
        try:
            roles = list(map(ROLE_OF.get, map(itemgetter(role), messages)))
            contents = list(map(itemgetter(content), messages))
        except (KeyError, TypeError):
            continue
        is_plain = set(map(len, messages)) == {2} and set(map(type, messages)) == {dict} and are_text(contents)
        return _rows(places, list(map(len, conversations)), roles, contents) if is_plain else None
    return None


def _rows(
    places: Sequence[int], lengths: list[int], roles: list[Role | None], contents: list[str]
) -> Iterator[Rows | Row] | None:
    shapes, start = [], 0
    for length in lengths:
        shapes.append(tuple(roles[start : start + length]))
        start += length
    return _in_order(places, shapes, contents) if all(map(_is_answered, set(shapes))) else None


def _is_answered(shape: tuple[Role | None, ...]) -> bool:
    known = None not in shape and len(shape) <= MESSAGES_LIMIT
    return known and "user" in shape and shape[-1] == "assistant"


def _in_order(places: Sequence[int], shapes: list[Any], contents: list[str]) -> Iterator[Rows | Row]:
    row = start = 0
    for shape, same_shape in groupby(shapes):
        count, width = sum(1 for _ in same_shape), len(shape)
        end = start + count * width
        if shape.count("assistant") == 1:
            columns = tuple(contents[start + turn : end : width] for turn in range(width))
            yield Rows(places[row : row + count], shape, columns)
        else:
            for place, first in zip(places[row : row + count], range(start, end, width), strict=True):
                turns = tuple(map(Turn, shape, contents[first : first + width]))
                yield Row(Position.unpacked(place), turns)
        row, start = row + count, end
