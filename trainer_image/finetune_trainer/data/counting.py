"""Counts the tokens of rows: in bulk where the result is provably the same, otherwise with `encode`.

A row is cut after the last special token before its answer. The tokens before the cut are the same as in the inference
prompt; after it, every row has the same head of the answer. So one encoding of the row tells where the loss begins, and
the prompt need not be encoded separately.
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
    prompt_note,
)
from finetune_trainer.data.rows import Position, Role, Row, Rows
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.tokenizer.shared_parts import mark_pattern, marks, stands_alone


def count(
    found: Iterable[Rows | Row], tokenizer: ChatTokenizer, max_length: int, tally: Tally, *, pairs: bool = False
) -> Iterator[Refused]:
    """Count what `encode_all`, or `encode_all_pairs`, makes of the rows. Yields those that the template refuses."""
    uncounted = found if pairs else _BulkCounter(tokenizer, max_length, tally).uncounted(found)
    for result in (encode_all_pairs if pairs else encode_all)(
        _one_by_one(uncounted), tokenizer, max_length, tally.notes
    ):
        if isinstance(result, Refused):
            yield result
        else:
            tally.add(result)


def _one_by_one(found: Iterable[Rows | Row]) -> Iterator[Row]:
    return chain.from_iterable(one.rows() if isinstance(one, Rows) else (one,) for one in found)


class _Cut(NamedTuple):
    """The text around the turns of rows with the same roles, before and after the cut.

    Shorter than the template's: special tokens and the text between them are the same in each row, so they are encoded
    once for all rows. Where the template has several special tokens, one remains to separate the texts.
    """

    before: list[str]
    """Around all turns but the last; ends with the token at which the row is cut."""
    after: tuple[str, str]
    """Before and after the answer."""
    head: list[int]
    """Token ids of the inference prompt after the cut."""
    mark: str
    """The token at which rows are cut."""
    mark_id: int
    marks: int
    """How often it occurs up to the cut."""
    omitted: int
    """Number of tokens omitted before the cut."""
    omitted_after: int
    """Number of tokens omitted after the answer, without white space after the last special token."""

    def texts(self, rows: Rows) -> list[str]:
        """Each row as text."""
        *prompts, answers = rows.contents
        first, *between = self.before
        columns = chain.from_iterable(zip(prompts, map(repeat, between), strict=True))
        start, end = self.after
        around = repeat(first), *columns, repeat(start), answers, repeat(end)
        return list(map("".join, zip(*around, strict=False)))


class _BulkCounter:
    """Counts the rows that can be counted in bulk, and returns the rest."""

    def __init__(self, tokenizer: ChatTokenizer, max_length: int, tally: Tally) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._tally = tally
        self._cuts: dict[tuple[Role, ...], _Cut | None] = {}
        self._proven: set[tuple[Role, ...]] = set()

    def uncounted(self, found: Iterable[Rows | Row]) -> Iterator[Rows | Row]:
        """The rows to count one by one. Rows are tokenized while the next ones are read."""
        with ThreadPoolExecutor(1, "count") as pool:
            waiting: deque[tuple[Rows, _Cut, Future[list[list[int]]]]] = deque()
            for one in found:
                cut = self._cut(one.roles) if isinstance(one, Rows) else None
                if isinstance(one, Row) or cut is None or cut.mark in one.all_text:
                    yield one
                    continue
                waiting.append((one, cut, pool.submit(self._tokenizer.ids, cut.texts(one))))
                if len(waiting) > 1:
                    yield from self._finish(*waiting.popleft())
            while waiting:
                yield from self._finish(*waiting.popleft())

    def _cut(self, roles: tuple[Role, ...]) -> _Cut | None:
        if roles not in self._cuts:
            self._cuts[roles] = cut(self._tokenizer, roles)
        return self._cuts[roles]

    def _finish(self, rows: Rows, cut: _Cut, ids: Future[list[list[int]]]) -> Iterator[Rows]:
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
        """Tokens and loss tokens of each row; None if the cut is ambiguous in one of them.

        That is the case if its token occurs more often than expected, because other text became that token too.
        """
        counted: list[tuple[int, int]] = []
        prefix_differs = False
        mark, marks, length, head = cut.mark_id, cut.marks, self._max_length, cut.head
        for ids in found:
            if ids.count(mark) != marks:
                return None
            before = len(ids) - ids[::-1].index(mark)
            shared = len(head)
            if ids[before : before + shared] != head:
                shared = common_prefix(head, ids[before : before + shared])
                prefix_differs = True
            start, end = before + cut.omitted + shared, len(ids) + cut.omitted + cut.omitted_after
            counted.append((end, max(0, min(end, length) - start)))
        if prefix_differs:
            self._tally.notes.add(prompt_note(self._tokenizer))
        return counted

    def _prove(self, rows: Rows, found: list[tuple[int, int]]) -> list[tuple[int, int]] | None:
        """Count the first rows with these roles both ways. If the results differ, none are counted in bulk."""
        made = encode_all(rows.rows(), self._tokenizer, self._max_length, self._tally.notes)
        if [(one.tokens, one.loss_tokens) for one in made if isinstance(one, Encoded)] == found:
            self._proven.add(rows.roles)
            return found
        self._cuts[rows.roles] = None
        return None


def cut(tokenizer: ChatTokenizer, roles: tuple[Role, ...]) -> _Cut | None:
    """Where rows with these roles are cut; None if the template has no frame, no token to cut at, or no end."""
    full = tokenizer.frame(roles, add_generation_prompt=False)
    prompt = tokenizer.frame(roles[:-1], add_generation_prompt=True)
    known = marks(tokenizer)
    if full is None or prompt is None or not known or full[: len(prompt) - 1] != prompt[:-1]:
        return None
    *first, head = prompt
    start, end = full[len(first) :]
    find = mark_pattern(known).finditer
    mark, tail = next(reversed(list(find(head))), None), next(find(end), None)
    if mark is None or tail is None or start[: mark.end()] != head[: mark.end()]:
        return None
    if not (stands_alone(mark[0], known) and stands_alone(tail[0], known)):
        return None
    ids, ending = tokenizer.ids([head[mark.end() :], end[tail.start() :]])
    omitted_after = tokenizer.end_of_turn(ending)
    if ending[omitted_after - 1] not in tokenizer.special_ids:
        return None
    before, omitted = _shortened([*first, head[: mark.end()]], tokenizer, known)
    marked = sum(text.count(mark[0]) for text in before)
    around = start[mark.end() :], end[: tail.start()]
    return _Cut(before, around, ids, mark[0], known[mark[0]][0], marked, omitted, omitted_after)


def _shortened(texts: list[str], tokenizer: ChatTokenizer, known: Mapping[str, list[int]]) -> tuple[list[str], int]:
    """Texts before the turns and the cut, without what always gives the same tokens; and the number of those tokens.

    Of several special tokens the last stays, to separate the turns; before the first turn none is needed.
    """
    kept, omitted = [], []
    for index, text in enumerate(texts):
        found = list(mark_pattern(known).finditer(text))
        start = end = 0
        if found and all(stands_alone(mark[0], known) for mark in found):
            leads = index == 0 and len(texts) > 1
            start, end = (0, found[-1].end()) if leads else (found[0].start(), found[-1].start())
        kept.append(text[:start] + text[end:])
        omitted.append(text[start:end])
    return kept, sum(map(len, tokenizer.ids(omitted)))
