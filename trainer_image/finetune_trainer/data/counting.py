"""The tokens of rows, counted: many rows at once where that is sure to be right, the others as `encode` makes them.

A row is cut behind a special token, the last before its answer. What stands before the cut is tokenised as it is when
the model is asked; behind it, the same head of the answer stands in every row. So where loss begins is known from one
pass over the row, and no row has to be made for it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat
from typing import NamedTuple

from finetune_trainer.data.encode import (
    Encoded,
    Refused,
    Tally,
    common_prefix,
    encode_all,
    encode_all_pairs,
    note_of_prompts,
)
from finetune_trainer.data.rows import Position, Role, Row, Rows
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.tokenizer.shared_parts import mark_pattern, marks, stands_alone


def count(
    found: Iterable[Rows | Row], tokenizer: ChatTokenizer, max_length: int, tally: Tally, *, pairs: bool = False
) -> Iterator[Refused]:
    """Count what `encode_all`, or `encode_all_pairs`, makes of the rows; those that the template refuses come back."""
    rest = found if pairs else _Together(tokenizer, max_length, tally).rest(found)
    for result in (encode_all_pairs if pairs else encode_all)(_one_by_one(rest), tokenizer, max_length, tally.notes):
        if isinstance(result, Refused):
            yield result
        else:
            tally.add(result)


def _one_by_one(found: Iterable[Rows | Row]) -> Iterator[Row]:
    return chain.from_iterable(one.rows() if isinstance(one, Rows) else (one,) for one in found)


class _Cut(NamedTuple):
    """What stands around the texts of rows with the same roles, before and behind the cut.

    It is written shorter than the template has it: special tokens, and what stands between two of them, are the same in
    each row. They are tokenised once for all, and one parts the texts where the template has several.
    """

    before: list[str]
    """Around the texts of all turns but the last; ends with the token at which the row is cut."""
    behind: tuple[str, str]
    """Around the answer."""
    head: list[int]
    """Token ids of what stands behind the cut when the model is asked."""
    mark: str
    """The token at which rows are cut."""
    mark_id: int
    marks: int
    """How many of them stand before the cut."""
    left_out: int
    """Tokens that were left out before the cut."""
    ended: int
    """Tokens that were left out behind the answer, without white space behind the last special one."""

    def texts(self, rows: Rows) -> list[str]:
        """Each row as text."""
        *prompts, answers = rows.contents
        first, *between = self.before
        columns = chain.from_iterable(zip(prompts, map(repeat, between), strict=True))
        start, end = self.behind
        around = repeat(first), *columns, repeat(start), answers, repeat(end)
        return list(map("".join, zip(*around, strict=False)))


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
            waiting: deque[tuple[Rows, _Cut, Future[list[list[int]]]]] = deque()
            for one in found:
                cut = self._cut(one.roles) if isinstance(one, Rows) else None
                if isinstance(one, Row) or cut is None or cut.mark in one.whole:
                    yield one
                    continue
                waiting.append((one, cut, beside.submit(self._tokenizer.ids, cut.texts(one))))
                if len(waiting) > 1:
                    yield from self._uncounted(*waiting.popleft())
            while waiting:
                yield from self._uncounted(*waiting.popleft())

    def _cut(self, roles: tuple[Role, ...]) -> _Cut | None:
        if roles not in self._cuts:
            self._cuts[roles] = cut(self._tokenizer, roles)
        return self._cuts[roles]

    def _uncounted(self, rows: Rows, cut: _Cut, ids: Future[list[list[int]]]) -> Iterator[Rows]:
        found = self._count(cut, ids.result())
        if found is not None and rows.roles not in self._proven:
            found = self._prove(rows, found)
        if found is None:
            yield rows
            return
        self._tally.count_all([tokens for tokens, _ in found], [learnt for _, learnt in found], self._max_length)
        for place, (_, loss_tokens) in zip(rows.places, found, strict=True):
            if not loss_tokens:
                self._tally.leave_out(Position.unpacked(place))

    def _count(self, cut: _Cut, found: list[list[int]]) -> list[tuple[int, int]] | None:
        """All tokens, and those with loss, of each row; None where one is not as most are.

        That is one in which the cut is not found by its id, because other text has become that token too.
        """
        counted: list[tuple[int, int]] = []
        parted = False
        mark, marks, length, head = cut.mark_id, cut.marks, self._max_length, cut.head
        for ids in found:
            if ids.count(mark) != marks:
                return None
            before = len(ids) - ids[::-1].index(mark)
            shared = len(head)
            if ids[before : before + shared] != head:
                shared = common_prefix(head, ids[before : before + shared])
                parted = True
            start, end = before + cut.left_out + shared, len(ids) + cut.left_out + cut.ended
            counted.append((end, max(0, min(end, length) - start)))
        if parted:
            self._tally.notes.add(note_of_prompts(self._tokenizer))
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
    """Where rows with these roles are cut; None where their template has no frame, no token to cut at, or no end."""
    whole = tokenizer.frame(roles, add_generation_prompt=False)
    asked = tokenizer.frame(roles[:-1], add_generation_prompt=True)
    known = marks(tokenizer)
    if whole is None or asked is None or not known or whole[: len(asked) - 1] != asked[:-1]:
        return None
    *first, head = asked
    start, end = whole[len(first) :]
    find = mark_pattern(known).finditer
    mark, tail = next(reversed(list(find(head))), None), next(find(end), None)
    if mark is None or tail is None or start[: mark.end()] != head[: mark.end()]:
        return None
    if not (stands_alone(mark[0], known) and stands_alone(tail[0], known)):
        return None
    ids, ending = tokenizer.ids([head[mark.end() :], end[tail.start() :]])
    ended = tokenizer.end_of_turn(ending)
    if ending[ended - 1] not in tokenizer.special_ids:
        return None
    before, left_out = _shorter([*first, head[: mark.end()]], tokenizer, known)
    marked = sum(text.count(mark[0]) for text in before)
    around = start[mark.end() :], end[: tail.start()]
    return _Cut(before, around, ids, mark[0], known[mark[0]][0], marked, left_out, ended)


def _shorter(texts: list[str], tokenizer: ChatTokenizer, known: Mapping[str, list[int]]) -> tuple[list[str], int]:
    """Texts before turns and before the cut, without what is sure to be the same tokens; and how many tokens that is.

    Of several special tokens the last stays, to part the turns; but for those that stand before all turns.
    """
    kept, left_out = [], []
    for index, text in enumerate(texts):
        found = list(mark_pattern(known).finditer(text))
        start = end = 0
        if found and all(stands_alone(mark[0], known) for mark in found):
            leads = index == 0 and len(texts) > 1
            start, end = (0, found[-1].end()) if leads else (found[0].start(), found[-1].start())
        kept.append(text[:start] + text[end:])
        left_out.append(text[start:end])
    return kept, sum(map(len, tokenizer.ids(left_out)))
