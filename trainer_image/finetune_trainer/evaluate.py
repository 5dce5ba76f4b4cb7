"""The tuned model beside its base on the test set: greedy answers, exact match, and whether the difference is real.

It loads no model and writes no file.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from finetune_api.job import Baselines, EvaluationResult, Scores
from finetune_trainer.batches import forward_passes
from finetune_trainer.data import ChatTokenizer, Row

Verdict = Literal["Better", "Worse", "NoDifference"]

_SPARE_TOKENS = 8
"""An answer that is so much longer than the longest completion cannot be equal to any: it is not written to its end."""

_RESAMPLES = 20_000


@dataclass(frozen=True)
class Question:
    """One row of the test set, ready to be asked."""

    place: str
    """Where the row stands, for example `line 17`."""
    prompt: Sequence[int]
    completion: str
    completion_tokens: int


def questions(rows: Iterator[Row], chat: ChatTokenizer, longest_prompt: int) -> list[Question]:
    """The rows as questions. A prompt over `longest_prompt` tokens keeps its end, where the question usually is."""
    return [
        Question(
            place=str(row.position),
            prompt=chat.prompt_ids(row.prompt)[-longest_prompt:],
            completion=row.completion.strip(),
            completion_tokens=len(chat.ids([row.completion])[0]),
        )
        for row in rows
    ]


def answers(
    model: Any,
    asked: Sequence[Question],
    chat: ChatTokenizer,
    *,
    generation: Any,
    max_new_tokens: int,
    token_budget: int,
    on_batch: Callable[[int], None] = lambda _done: None,
) -> list[str]:
    """Greedy answers without surrounding white space, in the order of the questions.

    `generation` is a GenerationConfig that says which tokens end an answer. `on_batch` hears how many are answered.
    """
    limit = min(max_new_tokens, max((one.completion_tokens for one in asked), default=0) + _SPARE_TOKENS)
    said = [""] * len(asked)
    done = 0
    model.eval()
    lengths = [len(one.prompt) + limit for one in asked]
    for group in forward_passes(lengths, token_budget=token_budget):
        produced = _generate(model, [asked[place].prompt for place in group], generation, limit)
        for place, ids in zip(group, produced, strict=True):
            said[place] = chat.backend.decode(ids, skip_special_tokens=True).strip()
        done += len(group)
        on_batch(done)
    return said


def _generate(model: Any, prompts: list[Sequence[int]], generation: Any, limit: int) -> list[list[int]]:
    """New tokens after each prompt. Prompts are padded on the left and the padding is masked.

    What an encoder-decoder gives begins with its start token instead of the prompt.
    """
    import torch

    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), generation.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for place, prompt in enumerate(prompts):
        ids[place, longest - len(prompt) :] = torch.tensor(prompt)
        mask[place, longest - len(prompt) :] = 1
    device = next(model.parameters()).device
    copied = copy.deepcopy(generation)
    copied.update(max_new_tokens=limit, do_sample=False, use_cache=True)
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=copied,
        )
    new: list[list[int]] = output[:, 1 if model.config.is_encoder_decoder else longest :].tolist()
    return [_until_end(one, generation.eos_token_id) for one in new]


def _until_end(ids: list[int], ends: int | list[int] | None) -> list[int]:
    """The ids before the first that ends an answer; what follows it is padding."""
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    return next((ids[:place] for place, token in enumerate(ids) if token in stops), ids)


def result(asked: Sequence[Question], tuned: Sequence[str], base: Sequence[str]) -> EvaluationResult:
    """Scores of both and the verdict."""
    tuned_right = [said == one.completion for said, one in zip(tuned, asked, strict=True)]
    base_right = [said == one.completion for said, one in zip(base, asked, strict=True)]
    return EvaluationResult(
        rows=len(asked),
        tuned=Scores(exact_match=_share(tuned_right)),
        baselines=Baselines(zero_shot=Scores(exact_match=_share(base_right))),
        verdict=verdict(tuned_right, base_right),
    )


def rows_of_answers(
    asked: Sequence[Question], tuned: Sequence[str], base: Sequence[str]
) -> Iterator[dict[str, str | bool]]:
    """One record per row for the artifact, which is in the user's own volume and may hold text."""
    for one, said, base_said in zip(asked, tuned, base, strict=True):
        yield {
            "row": one.place,
            "completion": one.completion,
            "tuned": said,
            "zeroShot": base_said,
            "tunedMatches": said == one.completion,
            "zeroShotMatches": base_said == one.completion,
        }


def verdict(tuned_right: Sequence[bool], base_right: Sequence[bool], *, seed: int = 0) -> Verdict:
    """Paired bootstrap: whether the 95 % interval of the difference lies above, below or around zero.

    A row's difference is -1, 0 or 1, so resampling rows is drawing how often each of the three comes.
    """
    difference = np.asarray(tuned_right, dtype=int) - np.asarray(base_right, dtype=int)
    rows = len(difference)
    if rows == 0:
        return "NoDifference"
    shares = [float(np.mean(difference == value)) for value in (-1, 0, 1)]
    counts = np.random.default_rng(seed).multinomial(rows, shares, size=_RESAMPLES)
    low, high = np.percentile((counts[:, 2] - counts[:, 0]) / rows, [2.5, 97.5])
    if low > 0:
        return "Better"
    return "Worse" if high < 0 else "NoDifference"


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 6) if right else 0.0
