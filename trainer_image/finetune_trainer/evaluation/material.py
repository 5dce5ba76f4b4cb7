"""What the contestants are asked: the test set as questions, and rows of the training set as examples.

It is read before training, so that an unusable test set, or a spec that does not fit it, fails early.
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
"""An answer that is this much longer than the longest completion cannot equal any: generation stops there."""

_LONGEST_ANSWER = 1024
"""Limit of an answer in tokens, if the job sets none."""


@dataclass(frozen=True)
class Question:
    """One row of the test set."""

    place: str
    """Position of the row, for example `line 17`."""
    turns: tuple[Turn, ...]
    """The prompt: system message, earlier turns, and the question."""
    completion: str
    """The expected answer, without surrounding whitespace."""


@dataclass(frozen=True)
class Material:
    """Everything needed to ask the contestants."""

    questions: Sequence[Question]
    max_new_tokens: int
    examples: list[Row] = field(default_factory=list)
    sha256: str | None = None
    """Of the test file."""
    service_tokens: int = _LONGEST_ANSWER
    """Limit for services, whose tokenizers are unknown: high enough for any right answer."""


def prepare(job: TrainerJob, chat: ChatTokenizer, verdict: DatasetVerdict, *, allow_local: bool) -> Material | None:
    """Read what the job's evaluation needs; None if it has no test set.

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
    """Tokens that the chat template inserts before an answer, such as an empty thought."""
    text = "a"
    row = Row(Position(), (Turn("user", text), Turn("assistant", text)))
    return max(0, next(encode([row], chat, _LONGEST_ANSWER)).loss_tokens - len(chat.ids([text])[0]) - 1)


def prepare_by_length(job: MeasureJob) -> Material | None:
    """The same without a tokenizer: lengths are in bytes.

    Raises:
        TrainerError: as `prepare`.
    """

    def rows(split: SplitName) -> Iterator[Row]:
        known = getattr(job.dataset, split)
        return load_rows(job.spec.data, split, allow_local=False, expected_sha256=known.sha256 if known else None)

    return collected(job.spec, job.dataset, rows, _bytes)


def _bytes(completions: list[str]) -> list[int]:
    """An upper bound: no text has more tokens than bytes."""
    return [len(text.encode(errors="replace")) for text in completions]


def collected(
    spec: FineTuneJobSpec,
    verdict: DatasetVerdict,
    rows: Callable[[SplitName], Iterator[Row]],
    tokens: Callable[[list[str]], list[int]],
) -> Material | None:
    """What the job's evaluation needs, given functions for rows of a split and for lengths of completions."""
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
    """The rows as questions, stored on disk since there may be many."""
    made = (Question(str(row.position), row.prompt, row.completion.strip()) for row in rows)
    return Lines(made, shown=lambda one: (one.place, one.turns, one.completion), read=_question)


def _question(line: Any) -> Question:
    place, turns, completion = line
    return Question(place, tuple(Turn(*turn) for turn in turns), completion)


def _require_json(evaluation: Evaluation, asked: Sequence[Question]) -> None:
    """Refuse jsonFields for a test set in which no completion is JSON."""
    if "jsonFields" in evaluation.metrics and not any(json_valid(spoken(one.completion), "") for one in asked):
        raise TrainerError(
            Reason.DATASET_INVALID,
            "spec.evaluation.metrics: jsonFields compares fields of JSON, and no completion of dataset.test is JSON",
            "Leave jsonFields out and apply the job under a new name.",
        )


def answer_limit(evaluation: Evaluation, completion_tokens: Iterable[int]) -> int:
    """Limit of an answer in tokens: the job's, since it may include thoughts before answers.

    Otherwise exact match needs little more than the longest completion; other metrics read the whole answer.
    """
    if evaluation.max_new_tokens is not None:
        return evaluation.max_new_tokens
    longest = max(completion_tokens, default=0)
    more = 0 if evaluation.metrics == ["exactMatch"] else longest // 8
    return min(longest + more + _SPARE_TOKENS, _LONGEST_ANSWER)


def examples(rows: Iterable[Row], asked: Sequence[Question], count: int, *, seed: int) -> list[Row]:
    """Draw up to `count` rows with equal probability (reservoir sampling, Vitter 1985).

    Skips rows in which any turn answers a prompt of the test set: they would reveal the answer.
    """
    taken = np.unique(np.fromiter((prompt_fingerprint(one.turns) for one in asked), dtype=np.int64, count=len(asked)))
    chance = random.Random(seed)  # noqa: S311 - a repeatable draw, not a secret
    chosen: list[Row] = []
    seen = 0
    for row in rows:
        if any(_contains(taken, prompt_fingerprint(one)) for one in _prompts_in(row)):
            continue
        seen += 1
        place = seen - 1 if seen <= count else chance.randrange(seen)
        if place < count:
            chosen[place : place + 1] = [row]
    chance.shuffle(chosen)
    return chosen


def _contains(ordered: NDArray[np.int64], value: int) -> bool:
    place = int(np.searchsorted(ordered, value))
    return place < len(ordered) and int(ordered[place]) == value


def _prompts_in(row: Row) -> Iterator[tuple[Turn, ...]]:
    """The prompt of each answer in a row."""
    return (row.turns[:place] for place, turn in enumerate(row.turns) if turn.role == "assistant")


def prompt_fingerprint(turns: tuple[Turn, ...]) -> int:
    """A 64-bit hash of the prompt without a system message: examples are shown without theirs."""
    return fingerprint(Row(Position(), tuple(turn for turn in turns if turn.role != "system")))


class Prompt(NamedTuple):
    """A question as token ids."""

    ids: "array[int]"
    """32-bit integers: many prompts are in memory at once, and a list would take nine times as much."""
    examples: int = 0
    """Number of examples before the question."""


def prompts(asked: Sequence[Question], chat: ChatTokenizer, longest: int) -> list[Prompt]:
    """Each question as the tuned model is asked, truncated to `longest` tokens."""
    return [Prompt(_cut(chat.prompt_ids(one.turns), chat, longest)) for one in asked]


def _cut(ids: list[int], chat: ChatTokenizer, longest: int) -> "array[int]":
    """Keep the end of a prompt that is too long, the question itself; an encoder's is truncated as in training."""
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
