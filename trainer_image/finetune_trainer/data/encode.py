"""Rows → token ids and labels. `check` counts with this code what training uses.

Every assistant turn carries loss, including its end-of-turn token, except those that the row excludes; system and user
turns carry none. A preference pair becomes two texts, in which only the answers carry loss. The start of a turn is not
guessed: the text of the inference prompt is tokenized too, and must be a prefix of the whole.
For an encoder-decoder, a row is prompt and last answer, each tokenized separately with the tokenizer's special tokens.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from finetune_api.reasons import Reason
from finetune_api.words import counted
from finetune_trainer.data.rows import Position, Row, Turn
from finetune_trainer.data.tokenizer.chat_template import TemplateRefusedError
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.tokenizer.shared_parts import SharedParts
from finetune_trainer.errors import TrainerError

IGNORED = -100
"""Label of tokens without loss; the default ignore_index of torch's cross entropy."""

_MAX_SHOWN = 8
"""Maximum number of lost characters to show."""
_BATCH_TEXTS = 512
_BATCH_CHARACTERS = 1 << 20  # of the texts tokenized at once; bounds the memory


class Encoded(NamedTuple):
    """One row as the model sees it: two arrays of 32-bit integers of the same length, for torch.frombuffer."""

    position: Position
    input_ids: "array[int]"
    labels: "array[int]"
    """The ids of assistant turns; IGNORED elsewhere and always at index 0."""
    tokens: int
    """Length before truncation."""

    @property
    def truncated(self) -> bool:
        """Whether the end was cut off."""
        return self.tokens > len(self.input_ids)

    @property
    def loss_tokens(self) -> int:
        """Number of tokens that carry loss."""
        return len(self.labels) - self.labels.count(IGNORED)

    @property
    def longest(self) -> int:
        """Length of the longest text before truncation: here the only one."""
        return self.tokens


class EncodedPair(NamedTuple):
    """A preference pair as two texts that the model sees."""

    chosen: Encoded
    rejected: Encoded

    @property
    def position(self) -> Position:
        """Position of the row."""
        return self.chosen.position

    @property
    def tokens(self) -> int:
        """Length of both texts before truncation."""
        return self.chosen.tokens + self.rejected.tokens

    @property
    def truncated(self) -> bool:
        """Whether either text was truncated."""
        return self.chosen.truncated or self.rejected.truncated

    @property
    def loss_tokens(self) -> int:
        """Number of tokens of both that carry loss."""
        return self.chosen.loss_tokens + self.rejected.loss_tokens

    @property
    def longest(self) -> int:
        """Length of the longer text before truncation."""
        return max(self.chosen.tokens, self.rejected.tokens)

    @property
    def learnable(self) -> bool:
        """Whether both answers are present and still differ after truncation."""
        both = self.chosen.loss_tokens and self.rejected.loss_tokens
        return bool(both) and self.chosen.input_ids != self.rejected.input_ids


class Refused(NamedTuple):
    """A row that the model's chat template refuses."""

    position: Position
    why: str
    """The template's own message; never quotes the row."""


@dataclass
class Tally:
    """Counts of the rows encoded so far."""

    rows: int = 0
    tokens: int = 0
    """Before truncation."""
    loss_tokens: int = 0
    longest: int = 0
    truncated: int = 0
    unlabelled: int = 0
    """Rows without any loss after truncation: they are skipped."""
    first_unlabelled: Position | None = None
    notes: set[str] = field(default_factory=set)
    """Remarks on an unusual template, for people."""

    def add(self, row: Encoded | EncodedPair) -> bool:
        """Count the row. Returns whether it can be trained on."""
        learnt = self.count(row.tokens, row.loss_tokens, longest=row.longest, truncated=row.truncated)
        if row.learnable if isinstance(row, EncodedPair) else learnt:
            return True
        self.leave_out(row.position)
        return False

    def count(self, tokens: int, loss_tokens: int, *, longest: int, truncated: bool) -> bool:
        """Count a row by its tokens. Returns whether any of them carries loss."""
        self.rows += 1
        self.tokens += tokens
        self.loss_tokens += loss_tokens
        self.longest = max(self.longest, longest)
        self.truncated += truncated
        return loss_tokens > 0

    def count_all(self, tokens: Sequence[int], loss_tokens: Sequence[int], max_length: int) -> None:
        """Count many rows at once, each of one text."""
        self.rows += len(tokens)
        self.tokens += sum(tokens)
        self.loss_tokens += sum(loss_tokens)
        longest = max(tokens, default=0)
        self.longest = max(self.longest, longest)
        if longest > max_length:
            self.truncated += sum(one > max_length for one in tokens)

    def leave_out(self, position: Position) -> None:
        """Count a row that cannot be trained on; rows may come in any order."""
        self.unlabelled += 1
        first = self.first_unlabelled
        self.first_unlabelled = position if first is None or position.packed() < first.packed() else first


NOTE_PREFIX = (
    "the chat template writes a prompt differently when an answer follows: loss begins where the two texts part"
)
NOTE_THOUGHT = (
    "the chat template opens a thought in each prompt (<think>), and before the answers of rows it writes none, or an "
    "empty one: asked so, the tuned model thinks as its base does. Put the model into the cache with a "
    "chat_template.jinja whose prompts open no thought"
)
NOTE_TURNS = "the chat template rewrites earlier answers: only those that it leaves as they were carry loss"
NOTE_TEXT = "the chat template leaves out or rewrites text of the {}: it is learnt as the template writes it"
NOTE_REPEATED = "the chat template writes an answer more than once: the model learns to say it again"
NOTE_EOS = "the chat template does not end the assistant's turn: the end-of-sequence token is added"
NOTE_LOST_IN_ANSWERS = (
    "the model has no tokens for {} of the answers: the tuned model can never say them. Others may have some"
)
NOTE_LOST_IN_PROMPTS = "the model has no tokens for {} of the prompts: it reads none of them. Others may have some"
NOTE_NO_EOS = "neither chat template nor tokenizer ends an answer: the tuned model stops only at its token limit"


def encode(
    rows: Iterable[Row], tokenizer: ChatTokenizer, max_length: int, tally: Tally | None = None
) -> Iterator[Encoded]:
    """The trainable rows, in order, truncated to `max_length` tokens. `tally` counts all rows.

    Raises:
        TrainerError: DatasetInvalid, the template refuses a row.
    """
    tally = Tally() if tally is None else tally
    yield from _learnable(encode_all(rows, tokenizer, max_length, tally.notes), tally)


def encode_pairs(
    rows: Iterable[Row], tokenizer: ChatTokenizer, max_length: int, tally: Tally | None = None
) -> Iterator[EncodedPair]:
    """The same for preference pairs. Only the answers carry loss: both share the rest of the conversation.

    Raises:
        TrainerError: DatasetInvalid, the template refuses a row.
    """
    tally = Tally() if tally is None else tally
    yield from _learnable(encode_all_pairs(rows, tokenizer, max_length, tally.notes), tally)


_AnyEncoded = TypeVar("_AnyEncoded", Encoded, EncodedPair)


def _learnable(results: Iterable["_AnyEncoded | Refused"], tally: Tally) -> Iterator[_AnyEncoded]:
    for result in results:
        if isinstance(result, Refused):
            message = f"{result.position}: the model's chat template refuses the conversation: {result.why}"
            raise TrainerError(Reason.DATASET_INVALID, message)
        if tally.add(result):
            yield result


def encode_all_pairs(
    rows: Iterable[Row], tokenizer: ChatTokenizer, max_length: int, notes: set[str]
) -> Iterator[EncodedPair | Refused]:
    """Every preference pair, encoded or refused, in order."""
    texts = encode_all((one for row in rows for one in (row, row.swapped)), tokenizer, max_length, notes)
    for chosen, rejected in zip(texts, texts, strict=True):
        if isinstance(chosen, Refused):
            yield chosen
        elif isinstance(rejected, Refused):
            yield rejected
        else:
            yield EncodedPair(chosen, rejected)


def encode_all(
    rows: Iterable[Row], tokenizer: ChatTokenizer, max_length: int, notes: set[str]
) -> Iterator[Encoded | Refused]:
    """Every row, encoded or refused, in order. Remarks on an unusual template are added to `notes`."""
    if tokenizer.encoder_decoder:
        yield from _encode_separately(rows, tokenizer, max_length, notes)
        return
    pending: _Pending | None = None
    for piece, ids in _tokenized(_pieces(rows, tokenizer, notes), tokenizer):
        if piece.kind in ("whole", "refused"):
            if pending is not None:
                yield pending.encoded(tokenizer, max_length, notes)
            pending = None if piece.kind == "refused" else _Pending(piece.position, ids)
            if piece.kind == "refused":
                yield Refused(piece.position, piece.text)
        elif pending is not None:
            pending.add(piece.kind, ids, tokenizer, notes)
    if pending is not None:
        yield pending.encoded(tokenizer, max_length, notes)


def _encode_separately(
    rows: Iterable[Row], tokenizer: ChatTokenizer, max_length: int, notes: set[str]
) -> Iterator[Encoded]:
    """Rows for an encoder-decoder: prompt without loss, answer with loss, each truncated to `max_length` tokens."""
    prompt: list[int] = []
    in_prompts, in_answers = set[str](), set[str]()
    for piece, ids in _tokenized(_prompts_and_answers(rows, tokenizer), tokenizer):
        if piece.kind == "prompt":
            in_prompts.update(piece.text)
            prompt = ids
        else:
            in_answers.update(piece.text)
            yield _prompt_with_answer(piece.position, prompt, _with_eos(ids, tokenizer, notes), tokenizer, max_length)
    # A vocabulary may lack a whole script, or braces. Lost emoji and white space seldom matter in prompts.
    for note, used in ((NOTE_LOST_IN_PROMPTS, filter(str.isalnum, in_prompts)), (NOTE_LOST_IN_ANSWERS, in_answers)):
        if lost := tokenizer.lost_characters(used):
            notes.add(note.format(_lost_in_words(lost)))


def _lost_in_words(lost: list[str]) -> str:
    shown = " ".join(one if one.isprintable() else f"U+{ord(one):04X}" for one in lost[:_MAX_SHOWN])
    return f"{counted(len(lost), 'character')} ({shown}{' …' if len(lost) > _MAX_SHOWN else ''})"


def _prompts_and_answers(rows: Iterable[Row], tokenizer: ChatTokenizer) -> Iterator["_Piece"]:
    for row in rows:
        yield _Piece(row.position, "prompt", tokenizer.render(row.prompt))
        yield _Piece(row.position, "answer", row.completion)


def _prompt_with_answer(
    position: Position, prompt: list[int], answer: list[int], tokenizer: ChatTokenizer, max_length: int
) -> Encoded:
    """Prompt and answer, both truncated; a truncated answer has no end-of-sequence token."""
    kept = array("i", cut_prompt(prompt, tokenizer, max_length))
    learnt = array("i", answer[:max_length])
    return Encoded(position, kept + learnt, array("i", [IGNORED]) * len(kept) + learnt, len(prompt) + len(answer))


def cut_prompt(prompt: list[int], tokenizer: ChatTokenizer, max_length: int) -> list[int]:
    """The prompt as the encoder gets it, in training and inference: truncation keeps the special tokens at its end."""
    if len(prompt) <= max_length:
        return prompt
    ends = len(prompt) - next((i for i, token in enumerate(reversed(prompt)) if token not in tokenizer.special_ids), 0)
    tail = prompt[ends:][-max_length:]
    return prompt[: max_length - len(tail)] + tail


def _with_eos(ids: list[int], tokenizer: ChatTokenizer, notes: set[str]) -> list[int]:
    """The ids, with the end-of-sequence token appended unless they already end with a special token."""
    if not ids or ids[-1] in tokenizer.special_ids:
        return ids
    eos = tokenizer.eos_id
    notes.add(NOTE_NO_EOS if eos is None else NOTE_EOS)
    return ids if eos is None else [*ids, eos]


class _Piece(NamedTuple):
    """A text to tokenize: first a whole row, then head and end of its assistant turns; or the refusal of a row.

    For an encoder-decoder: a prompt, then its answer.
    """

    position: Position
    kind: Literal["whole", "head", "end", "refused", "prompt", "answer"]
    text: str


def _pieces(rows: Iterable[Row], tokenizer: ChatTokenizer, notes: set[str]) -> Iterator[_Piece]:
    for row in rows:
        last = len(row.turns) - 1
        try:
            whole = tokenizer.render(row.turns)
            head = tokenizer.render(row.turns[:last], add_generation_prompt=True)
        except TemplateRefusedError as error:
            yield _Piece(row.position, "refused", str(error))
            continue
        if not tokenizer.writes_texts(row.turns):
            notes.update(NOTE_TEXT.format(turn.role) for turn in _missing_turns(row.turns, whole))
            if tokenizer.repeats_answers:
                notes.add(NOTE_REPEATED)
        yield _Piece(row.position, "whole", whole)
        for index, turn in enumerate(row.turns[:last]):
            if turn.role == "assistant" and index and row.rejected is None and index not in row.unlearnt:
                yield from _earlier_turn(row, index, tokenizer)
        yield _Piece(row.position, "head", head)


def _missing_turns(turns: Sequence[Turn], whole: str) -> Iterator[Turn]:
    """Turns whose text is missing from the rendered conversation. Earlier answers are checked by their ends instead."""
    for index, turn in enumerate(turns, 1):
        if (turn.role != "assistant" or index == len(turns)) and turn.content.strip() not in whole:
            yield turn


def _earlier_turn(row: Row, index: int, tokenizer: ChatTokenizer) -> Iterator[_Piece]:
    """Head and end of an earlier answer; nothing if the template refuses the conversation up to there."""
    try:
        head = tokenizer.render(row.turns[:index], add_generation_prompt=True)
        end = tokenizer.render(row.turns[: index + 1])
    except TemplateRefusedError:
        return
    yield _Piece(row.position, "head", head)
    yield _Piece(row.position, "end", end)


def _tokenized(pieces: Iterable[_Piece], tokenizer: ChatTokenizer) -> Iterator[tuple[_Piece, list[int]]]:
    """Each piece with its ids. A batch is tokenized while the next one is read and rendered."""
    parts = SharedParts(tokenizer)
    with ThreadPoolExecutor(1, "tokenise") as pool:
        waiting: deque[tuple[list[_Piece], Future[list[list[int]]]]] = deque()
        for batch in _batches(pieces):
            waiting.append((batch, pool.submit(parts.ids, [one.text for one in batch])))
            if len(waiting) > 1:
                earlier, ids = waiting.popleft()
                yield from zip(earlier, ids.result(), strict=True)
        for last, ids in waiting:
            yield from zip(last, ids.result(), strict=True)


def _batches(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if len(batch) >= _BATCH_TEXTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Pending:
    """A row whose whole text is tokenized, while the ends of its turns arrive."""

    def __init__(self, position: Position, whole: list[int]) -> None:
        self._position = position
        self._whole = whole
        self._spans: list[tuple[int, int]] = []
        self._head = 0
        self._prefix_differs = False

    def add(self, kind: str, ids: list[int], tokenizer: ChatTokenizer, notes: set[str]) -> None:
        shared = common_prefix(ids, self._whole)
        if kind == "head":
            self._head, self._prefix_differs = shared, shared < len(ids)
            return
        if self._prefix_differs and not tokenizer.opens_thoughts:  # templates drop the thoughts of earlier answers
            notes.add(NOTE_PREFIX)
        end = tokenizer.end_of_turn(ids)
        if shared < end:
            notes.add(NOTE_TURNS)
            return
        self._spans.append((self._head, end))

    def encoded(self, tokenizer: ChatTokenizer, max_length: int, notes: set[str]) -> Encoded:
        if self._prefix_differs:
            notes.add(prompt_note(tokenizer))
        ids = _with_eos(self._whole[: tokenizer.end_of_turn(self._whole)], tokenizer, notes)
        kept = array("i", ids[:max_length])
        labels = array("i", [IGNORED]) * len(kept)
        for start, end in [*self._spans, (self._head, len(ids))]:
            labels[max(start, 1) : end] = kept[max(start, 1) : end]
        return Encoded(self._position, kept, labels, len(ids))


def prompt_note(tokenizer: ChatTokenizer) -> str:
    """The remark if prompts are not a prefix of the conversation with the answer."""
    return NOTE_THOUGHT if tokenizer.opens_thoughts else NOTE_PREFIX


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common prefix of both."""
    if second[: len(first)] == first:
        return len(first)
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
