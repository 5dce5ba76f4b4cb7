"""What the contestants are asked: the test set as questions, and rows of the training set as examples.

It is read before training: a test set that cannot be measured, or a spec that does not fit it, ends the run early.
"""

import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune_api.evaluation import Evaluation
from finetune_api.job import FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_api.trainer import MeasureJob, TrainerJob
from finetune_api.verdict import DatasetVerdict, SplitName
from finetune_trainer.data import ChatTokenizer, Position, Row, Turn, cut_prompt, encode, load_rows
from finetune_trainer.data.fingerprints import fingerprint
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.measures import json_valid, spoken
from finetune_trainer.evaluation.stored import Lines, portions

_SPARE_TOKENS = 8
"""An answer that is so much longer than the longest completion cannot be equal to any: it is not written to its end."""

_LONGEST_ANSWER = 1024
"""Tokens of an answer at most, where the job names no limit."""


@dataclass(frozen=True)
class Question:
    """One row of the test set."""

    place: str
    """Where the row stands, for example `line 17`."""
    turns: tuple[Turn, ...]
    """What is asked: system message, earlier turns, and the question."""
    completion: str
    """The right answer, without surrounding white space."""


@dataclass(frozen=True)
class Material:
    """All that is asked, and with what."""

    questions: Sequence[Question]
    max_new_tokens: int
    examples: list[Row] = field(default_factory=list)
    sha256: str | None = None
    """Of the test file."""
    service_tokens: int = _LONGEST_ANSWER
    """The limit for services, whose tokenizers nobody knows: no right answer is cut, whatever it is for them."""


def prepare(job: TrainerJob, chat: ChatTokenizer, verdict: DatasetVerdict, *, allow_local: bool) -> Material | None:
    """Read what the job's evaluation needs; None where it has no test set.

    Raises:
        TrainerError: a file cannot be read or has changed; DatasetInvalid, the metrics do not fit the test set.
    """

    def rows(split: SplitName) -> Iterator[Row]:
        known = getattr(verdict, split)
        return load_rows(
            job.spec.data,
            split,
            allow_local=allow_local,
            air_gapped=job.air_gapped,
            expected_sha256=known.sha256 if known else None,
        )

    before = _written_before(chat)

    def tokens(completions: list[str]) -> list[int]:
        return [before + len(ids) for ids in chat.ids(completions)]

    return collected(job.spec, verdict, rows, tokens)


def _written_before(chat: ChatTokenizer) -> int:
    """Tokens that the chat template has the model write before an answer, such as an empty thought."""
    text = "a"
    row = Row(Position(), (Turn("user", text), Turn("assistant", text)))
    return max(0, next(encode([row], chat, _LONGEST_ANSWER)).loss_tokens - len(chat.ids([text])[0]) - 1)


def prepare_by_length(job: MeasureJob) -> Material | None:
    """The same where no tokenizer is at hand: lengths are in bytes.

    Raises:
        TrainerError: as `prepare`.
    """

    def rows(split: SplitName) -> Iterator[Row]:
        known = getattr(job.dataset, split)
        return load_rows(job.spec.data, split, allow_local=False, expected_sha256=known.sha256 if known else None)

    return collected(job.spec, job.dataset, rows, _bytes)


def _bytes(completions: list[str]) -> list[int]:
    """No text has more tokens than bytes."""
    return [len(text.encode(errors="replace")) for text in completions]


def collected(
    spec: FineTuneJobSpec,
    verdict: DatasetVerdict,
    rows: Callable[[SplitName], Iterator[Row]],
    tokens: Callable[[list[str]], list[int]],
) -> Material | None:
    """What the job's evaluation needs, from rows of splits and lengths of completions."""
    if spec.dataset.test is None:
        return None
    evaluation = spec.evaluation
    asked = questions(rows("test"))
    _require_json(evaluation, asked)

    def limit(lengths: Callable[[list[str]], list[int]]) -> int:
        each = (length for part in portions(asked) for length in lengths([one.completion for one in part]))
        return answer_limit(evaluation, each)

    chosen: list[Row] = []
    if evaluation.few_shot is not None:
        chosen = examples(rows("train"), asked, evaluation.few_shot.examples, seed=spec.hyperparameters.seed)
    return Material(
        questions=asked,
        max_new_tokens=limit(tokens),
        examples=chosen,
        sha256=verdict.test.sha256 if verdict.test else None,
        service_tokens=limit(_bytes),
    )


def questions(rows: Iterable[Row]) -> Sequence[Question]:
    """The rows as questions, on disk: they may be many."""
    made = (Question(str(row.position), row.prompt, row.completion.strip()) for row in rows)
    return Lines(made, shown=lambda one: (one.place, one.turns, one.completion), read=_question)


def _question(line: Any) -> Question:
    place, turns, completion = line
    return Question(place, tuple(Turn(*turn) for turn in turns), completion)


def _require_json(evaluation: Evaluation, asked: Sequence[Question]) -> None:
    """Fields of JSON can be compared only where there are some."""
    if "jsonFields" in evaluation.metrics and not any(json_valid(spoken(one.completion), "") for one in asked):
        raise TrainerError(
            Reason.DATASET_INVALID,
            "spec.evaluation.metrics: jsonFields compares fields of JSON, and no completion of dataset.test is JSON",
            "Leave jsonFields out and apply the job under a new name.",
        )


def answer_limit(evaluation: Evaluation, completion_tokens: Iterable[int]) -> int:
    """Tokens of an answer at most: what the job says, for it may know of thoughts before answers.

    Else exact matches need no more than the longest completion and a little; other measures look at the whole answer.
    """
    if evaluation.max_new_tokens is not None:
        return evaluation.max_new_tokens
    longest = max(completion_tokens, default=0)
    more = 0 if evaluation.metrics == ["exactMatch"] else longest // 8
    return min(longest + more + _SPARE_TOKENS, _LONGEST_ANSWER)


def examples(rows: Iterable[Row], asked: Sequence[Question], count: int, *, seed: int) -> list[Row]:
    """`count` rows drawn with equal chance (reservoir sampling, Vitter 1985), fewer where there are not so many.

    Never one that answers a prompt of the test set, be it on the way to its last answer: it would give that away.
    """
    taken = np.unique(np.fromiter((prompt_fingerprint(one.turns) for one in asked), dtype=np.int64, count=len(asked)))
    chance = random.Random(seed)  # noqa: S311 - a draw that can be repeated, no secret
    chosen: list[Row] = []
    seen = 0
    for row in rows:
        if any(_stands_in(taken, prompt_fingerprint(one)) for one in _prompts_in(row)):
            continue
        seen += 1
        place = seen - 1 if seen <= count else chance.randrange(seen)
        if place < count:
            chosen[place : place + 1] = [row]
    chance.shuffle(chosen)
    return chosen


def _stands_in(ordered: NDArray[np.int64], value: int) -> bool:
    place = int(np.searchsorted(ordered, value))
    return place < len(ordered) and int(ordered[place]) == value


def _prompts_in(row: Row) -> Iterator[tuple[Turn, ...]]:
    """What each answer of a row is the answer to."""
    return (row.turns[:place] for place, turn in enumerate(row.turns) if turn.role == "assistant")


def prompt_fingerprint(turns: tuple[Turn, ...]) -> int:
    """64 bits of what is asked, without a system message: examples are shown without theirs."""
    return fingerprint(Row(Position(), tuple(turn for turn in turns if turn.role != "system")))


class Prompt(NamedTuple):
    """A question as token ids."""

    ids: "array[int]"
    """Of 32 bits: many prompts are in memory at once, and a list would take nine times as much."""
    examples: int = 0
    """How many stand before it."""


def prompts(asked: Sequence[Question], chat: ChatTokenizer, longest: int) -> list[Prompt]:
    """Each question as the tuned model is asked, cut to `longest` tokens."""
    return [Prompt(_cut(chat.prompt_ids(one.turns), chat, longest)) for one in asked]


def _cut(ids: list[int], chat: ChatTokenizer, longest: int) -> "array[int]":
    """A prompt that is too long keeps its end, the question itself; an encoder's is cut as training has cut it."""
    return array("i", cut_prompt(ids, chat, longest) if chat.encoder_decoder else ids[-longest:])


def prompts_with_examples(
    asked: Sequence[Question], shown: Sequence[Row], chat: ChatTokenizer, longest: int
) -> list[Prompt]:
    """Each question after as many examples as fit into `longest` tokens."""
    return [_with_examples(one, shown, chat, longest) for one in asked]


def _with_examples(question: Question, shown: Sequence[Row], chat: ChatTokenizer, longest: int) -> Prompt:
    for count in range(len(shown), -1, -1):
        ids = chat.prompt_ids(after_examples(question.turns, shown[:count]))
        if len(ids) <= longest:
            return Prompt(array("i", ids), count)
    return Prompt(_cut(ids, chat, longest))


def after_examples(turns: tuple[Turn, ...], shown: Sequence[Row]) -> tuple[Turn, ...]:
    """The conversation with the examples as earlier turns, after the question's own system message."""
    system = tuple(turn for turn in turns[:1] if turn.role == "system")
    earlier = tuple(turn for row in shown for turn in row.turns if turn.role != "system")
    return (*system, *earlier, *turns[len(system) :])
