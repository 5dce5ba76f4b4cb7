"""Which rows are in which optimizer step, and in which of its forward passes. Pure: determined by seed and step.

So a resumed run needs no sampler state, and a step is the same whatever ran before it.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.models.memory import even_passes

SORTED_TOGETHER = 256
"""When going over a whole set (validation, evaluation), this many rows at a time are sorted by length."""


class Plan:
    """The order of the data: `rows` reshuffled for each epoch, `batch_size` of them per optimizer step."""

    def __init__(self, rows: int, *, batch_size: int, epochs: float, seed: int) -> None:
        self.steps_per_epoch = math.ceil(rows / batch_size)
        self.total_steps = max(1, math.ceil(round(epochs * self.steps_per_epoch, 6)))
        self._batch_size = batch_size
        self._order = lru_cache(maxsize=2)(lambda epoch: shuffled(rows, seed, epoch))

    def rows_of(self, step: int) -> list[int]:
        """Row numbers of optimizer step `step`, from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self._batch_size
        return [int(row) for row in self._order(epoch)[start : start + self._batch_size]]

    def epochs_after(self, steps: int) -> float:
        """How many passes over the data that many steps are."""
        return steps / self.steps_per_epoch


def shuffled(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the row numbers that depends on seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def forward_passes(
    lengths: Sequence[int], *, token_budget: int | None = None, rows_each: int | None = None
) -> list[list[int]]:
    """Split one step's rows into forward passes of similar lengths, longest first: out of memory then happens at once.

    Either `token_budget` bounds rows times the longest row (a longer row goes alone), or `rows_each` bounds the rows.
    Returns places in `lengths`; ties keep their order.
    """
    by_length = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    passes: list[list[int]] = []
    for place in by_length:
        if passes and _fits(len(passes[-1]) + 1, lengths[passes[-1][0]], token_budget, rows_each):
            passes[-1].append(place)
        else:
            passes.append([place])
    return passes


def _fits(rows: int, longest: int, token_budget: int | None, rows_each: int | None) -> bool:
    if rows_each is not None:
        return rows <= rows_each
    return token_budget is None or rows * longest <= token_budget


def packed_rows(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Split one step's rows into forward passes of at most `tokens` tokens, as few as best-fit decreasing finds.

    Rows are placed longest first, where they leave the least room; a row longer than `tokens` gets its own pass
    (Johnson, Near-optimal bin packing algorithms, 1973: at most 11/9 of the minimum, plus one). Returns places in
    `lengths`, the fullest pass first: out of memory then happens at once. Ties keep their order.
    """
    passes: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        fitting = [number for number, left in enumerate(room) if left >= lengths[place]]
        best = min(fitting, key=room.__getitem__, default=len(passes))
        if best == len(passes):
            passes.append([])
            room.append(tokens)
        passes[best].append(place)
        room[best] -= lengths[place]
    return [passes[number] for number in sorted(range(len(passes)), key=room.__getitem__)]


def even_rows(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Split one step's rows into an even number of forward passes of about the same size, at most `tokens` tokens each.

    For passes that are computed two or more at a time: none should wait for a last one. Rows are placed longest first,
    each into the smallest pass (Graham, Bounds on multiprocessing timing anomalies, 1969: the largest is at most 4/3 of
    the best). If one still has more than `tokens`, and several rows, there are two passes more. Returns places in
    `lengths`, the largest pass first. Ties keep their order.
    """
    by_length = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    number = even_passes(sum(min(length, tokens) for length in lengths), tokens)
    while True:
        passes: list[list[int]] = [[] for _ in range(min(number, len(lengths)))]
        sizes = [0] * len(passes)
        for place in by_length:
            smallest = min(range(len(passes)), key=sizes.__getitem__)
            passes[smallest].append(place)
            sizes[smallest] += lengths[place]
        if all(size <= tokens or len(rows) == 1 for size, rows in zip(sizes, passes, strict=True)):
            return [passes[one] for one in sorted(range(len(passes)), key=lambda one: -sizes[one])]
        number += 2
