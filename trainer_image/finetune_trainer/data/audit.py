"""Rows as the model sees them, piece by piece, showing which tokens carry loss. For people to inspect.

It shows the data itself. So it is only printed to the caller's terminal and written into the artifact.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple

from finetune_trainer.data.encode import IGNORED, Encoded, encode, encode_pairs
from finetune_trainer.data.rows import Position, Row
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer

SHOWN_TOKENS = 2000
"""Maximum tokens to show of a row."""

_SCRIPTS_OWN = frozenset("\n\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}\N{IDEOGRAPHIC SPACE}")
"""Not printable by Unicode's categories, but part of words in Persian and Hindi, of emoji, and of Japanese text."""

_HALF = "\N{REPLACEMENT CHARACTER}"

Answer = Literal["chosen", "rejected"]
_ANSWERS: tuple[Answer, ...] = ("chosen", "rejected")


class Piece(NamedTuple):
    """A token as text, or several that form whole characters only together."""

    text: str
    carries_loss: bool


class Audited(NamedTuple):
    """One row, split into pieces."""

    position: Position
    pieces: list[Piece]
    tokens: int
    """Before truncation."""
    loss_tokens: int
    truncated: bool
    hidden: int
    """Number of tokens beyond SHOWN_TOKENS."""
    answer: Answer | None = None
    """Which answer of a preference pair it is."""


def audit(
    rows: Iterable[Row], tokenizer: ChatTokenizer, max_length: int, count: int, *, pairs: bool = False
) -> list[Audited]:
    """The first `count` trainable rows, encoded by the code that training uses; a preference pair gives two texts.

    Raises:
        TrainerError: DatasetInvalid, the template refuses a row.
    """
    if not pairs:
        return [_audited(row, None, tokenizer) for row in islice(encode(rows, tokenizer, max_length), count)]
    found = islice(encode_pairs(rows, tokenizer, max_length), count)
    return [_audited(getattr(pair, answer), answer, tokenizer) for pair in found for answer in _ANSWERS]


def _audited(row: Encoded, answer: Answer | None, tokenizer: ChatTokenizer) -> Audited:
    ids = row.input_ids[:SHOWN_TOKENS].tolist()
    carries_loss = [label != IGNORED for label in row.labels[:SHOWN_TOKENS]]
    return Audited(
        position=row.position,
        answer=answer,
        pieces=list(pieces(ids, carries_loss, tokenizer)),
        tokens=row.tokens,
        loss_tokens=row.loss_tokens,
        truncated=row.truncated,
        hidden=len(row.input_ids) - len(ids),
    )


def pieces(ids: Sequence[int], carries_loss: Sequence[bool], tokenizer: ChatTokenizer) -> Iterator[Piece]:
    """The ids as text. Joined, the pieces are exactly what the ids decode to, with special tokens as text.

    What a token adds is found by decoding with and without it: decoded alone, some tokens lose a leading space. A token
    that is part of a character is joined with the next ones, unless the loss begins or ends between them.
    """
    text, start = "", 0
    for end in range(1, len(ids) + 1):
        so_far = tokenizer.backend.decode(ids[:end], skip_special_tokens=False)
        last_of_kind = end == len(ids) or carries_loss[end] != carries_loss[start]
        if so_far.endswith(_HALF) and not last_of_kind:
            continue
        if len(so_far) > len(text):
            yield Piece(so_far[len(text) :], carries_loss[start])
        text, start = so_far, end


def as_text(row: Audited, *, colour: bool) -> str:
    """One row for a terminal: loss tokens in colour, or between ⟦ and ⟧, and control characters escaped."""
    before, after = ("\x1b[1;32m", "\x1b[0m") if colour else ("⟦", "⟧")
    parts = [f"{before}{text}{after}" if carries_loss else text for text, carries_loss in _joined(row.pieces)]
    more = f" … {row.hidden} tokens more" if row.hidden else ""
    cut = ", its end is cut" if row.truncated else ""
    which = f", {row.answer}" if row.answer else ""
    head = f"{row.position}{which}: {row.tokens} tokens{cut}, {row.loss_tokens} carry loss"
    return f"{head}\n  " + "".join(parts).replace("\n", "\n  ") + more


def _joined(found: Iterable[Piece]) -> Iterator[tuple[str, bool]]:
    """Merges neighbours of one kind, safe to print."""
    text, kind = "", False
    for piece in found:
        if piece.carries_loss != kind and text:
            yield printable(text), kind
            text = ""
        text, kind = text + piece.text, piece.carries_loss
    if text:
        yield printable(text), kind


def printable(text: str) -> str:
    """The text with control characters escaped, so that it cannot affect a terminal or a page: rows are untrusted."""
    return "".join(one if one in _SCRIPTS_OWN or one.isprintable() else repr(one)[1:-1] for one in text)
