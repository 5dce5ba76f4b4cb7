"""The tokens of rows, counted: many rows at once where that is sure to be right, the others as `encode` makes them.

A row is cut behind a special token, the last before its answer. What stands before the cut is tokenised as it is when
the model is asked; behind it, the same head of the answer stands in every row. So where loss begins is known from one
pass over the row, and no row has to be made for it.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat
from typing import NamedTuple

from finetune_trainer.data.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.encode import (
    NOTE_PREFIX,
    Encoded,
    EncodedPair,
    Refused,
    Tally,
    common_prefix,
    encode_all,
    encode_all_pairs,
)
from finetune_trainer.data.rows import Position, Role, Row, Rows
from finetune_trainer.data.shared_parts import mark_pattern, marks, stands_alone


def count(found: Iterable[Rows | Row], tokenizer: ChatTokenizer, max_length: int, tally: Tally) -> Iterator[Refused]:
    """Count what `encode_all` would make of the rows; those that the template refuses come back."""
    rest = _Together(tokenizer, max_length, tally).rest(found)
    yield from _added(encode_all(_one_by_one(rest), tokenizer, max_length, tally.notes), tally)


def count_pairs(
    found: Iterable[Rows | Row], tokenizer: ChatTokenizer, max_length: int, tally: Tally
) -> Iterator[Refused]:
    """The same for rows with two answers, by what `encode_all_pairs` makes of them."""
    yield from _added(encode_all_pairs(_one_by_one(found), tokenizer, max_length, tally.notes), tally)


def _added(encoded: Iterable[Encoded | EncodedPair | Refused], tally: Tally) -> Iterator[Refused]:
    for result in encoded:
        if isinstance(result, Refused):
            yield result
        else:
            tally.add(result)


def _one_by_one(found: Iterable[Rows | Row]) -> Iterator[Row]:
    return chain.from_iterable(one.rows() if isinstance(one, Rows) else (one,) for one in found)


class _Cut(NamedTuple):
    """What stands around the texts of rows with the same roles, before and behind the cut."""

    before: list[str]
    """Around the texts of all turns but the last; ends with the token at which the row is cut."""
    behind: tuple[str, str]
    """Around the answer."""
    head: list[int]
    """Token ids of what stands behind the cut when the model is asked."""

    mark: str
    """The token at which rows are cut."""
    mark_id: int

    def texts(self, rows: Rows) -> list[str]:
        """Each row as text."""
        *prompts, answers = rows.contents
        first, *between = self.before
        start, end = self.behind
        columns = chain.from_iterable(zip(prompts, map(repeat, between), strict=True))
        return list(map("".join, zip(repeat(first), *columns, repeat(start), answers, repeat(end), strict=False)))

    def ends(self, rows: Rows) -> list[int]:
        """How many characters of each text stand behind the token at which it is cut."""
        around = sum(map(len, self.behind))
        return [around + len(answer) for answer in rows.contents[-1]]


class _Together:
    """Counts the rows that it can count, and gives back the rest."""

    def __init__(self, tokenizer: ChatTokenizer, max_length: int, tally: Tally) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._tally = tally
        self._cuts: dict[tuple[Role, ...], _Cut | None] = {}
        self._proven: set[tuple[Role, ...]] = set()

    def rest(self, found: Iterable[Rows | Row]) -> Iterator[Rows | Row]:
        """What is to be counted row by row. Rows are tokenised while the next ones are read."""
        with ThreadPoolExecutor(1, "count") as beside:
            waiting: deque[tuple[Rows, _Cut, list[str], Future[list[list[int]]]]] = deque()
            for one in found:
                cut = self._cut(one.roles) if isinstance(one, Rows) else None
                if isinstance(one, Row) or cut is None:
                    yield one
                    continue
                texts = cut.texts(one)
                waiting.append((one, cut, texts, beside.submit(self._tokenizer.ids, texts)))
                if len(waiting) > 1:
                    yield from self._uncounted(*waiting.popleft())
            while waiting:
                yield from self._uncounted(*waiting.popleft())

    def _cut(self, roles: tuple[Role, ...]) -> _Cut | None:
        if roles not in self._cuts:
            self._cuts[roles] = cut(self._tokenizer, roles)
        return self._cuts[roles]

    def _uncounted(self, rows: Rows, cut: _Cut, texts: list[str], ids: Future[list[list[int]]]) -> Iterator[Rows]:
        found = self._count(cut, texts, cut.ends(rows), ids.result())
        if found is not None and rows.roles not in self._proven:
            found = self._prove(rows, found)
        if found is None:
            yield rows
            return
        for place, (tokens, loss_tokens) in zip(rows.places, found, strict=True):
            if not self._tally.count(tokens, loss_tokens, longest=tokens, truncated=tokens > self._max_length):
                self._tally.leave_out(Position.unpacked(place))

    def _count(
        self, cut: _Cut, texts: list[str], ends: list[int], found: list[list[int]]
    ) -> list[tuple[int, int]] | None:
        """All tokens, and those with loss, of each row; None where one is not as most are.

        That is one whose answer has the token in it at which rows are cut, or is not ended by a special token, or one
        in which the cut is not found by its id, because other text has become that token too.
        """
        counted: list[tuple[int, int]] = []
        parted = False
        special, length, head = self._tokenizer.special_ids, self._max_length, len(cut.head)
        for text, behind, ids in zip(texts, ends, found, strict=True):
            is_last = len(text) - text.rfind(cut.mark) == behind + len(cut.mark)
            if not is_last or text.count(cut.mark) != ids.count(cut.mark_id):
                return None
            before = len(ids) - ids[::-1].index(cut.mark_id)
            end = self._tokenizer.end_of_turn(ids)
            if end <= before or ids[end - 1] not in special:
                return None
            shared = common_prefix(cut.head, ids[before : before + head])
            parted = parted or shared < head
            counted.append((end, max(0, min(end, length) - max(before + shared, 1))))
        if parted:
            self._tally.notes.add(NOTE_PREFIX)
        return counted

    def _prove(self, rows: Rows, found: list[tuple[int, int]]) -> list[tuple[int, int]] | None:
        """The first rows of their kind are counted both ways: where the two differ, none is counted together."""
        made = encode_all(rows.rows(), self._tokenizer, self._max_length, self._tally.notes)
        if [(one.tokens, one.loss_tokens) for one in made if isinstance(one, Encoded)] == found:
            self._proven.add(rows.roles)
            return found
        self._cuts[rows.roles] = None
        return None


def cut(tokenizer: ChatTokenizer, roles: tuple[Role, ...]) -> _Cut | None:
    """Where rows with these roles are cut; None where their template has no frame, or no token to cut at."""
    whole = tokenizer.frame(roles, add_generation_prompt=False)
    asked = tokenizer.frame(roles[:-1], add_generation_prompt=True)
    known = marks(tokenizer)
    if whole is None or asked is None or not known or whole[: len(asked) - 1] != asked[:-1]:
        return None
    *first, head = asked
    answer = whole[len(first)]
    mark = next(reversed(list(mark_pattern(known).finditer(head))), None)
    if mark is None or answer[: mark.end()] != head[: mark.end()] or not stands_alone(mark[0], known):
        return None
    ids = tokenizer.ids([head[mark.end() :]])[0] if head[mark.end() :] else []
    behind = answer[mark.end() :], whole[-1]
    return _Cut([*first, head[: mark.end()]], behind, ids, mark[0], known[mark[0]][0])
