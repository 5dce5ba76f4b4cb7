"""A step's passes side by side on a CPU's cores: each on threads of its own, results in the order of the passes.

    passes -> of_pass, some at once -> results, in order

The products of a pass are small, and what lies between them is smaller still: threads that share them wait for one
another half of the time. Passes share nothing but weights that nobody writes to. Whether a model really computes so is
asked before: `why_in_order`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from finetune_trainer.training.passes import Pass

_CHANGING = ("dynamic", "longrope")
"""Rotations whose frequencies a model writes anew for the length of each pass, by transformers' names."""

Result = TypeVar("Result")


def each(passes: Sequence[Pass], of_pass: Callable[[Pass], Result], *, at_once: int) -> Iterator[Result]:
    """`of_pass` of each pass, `at_once` of them at a time; the process' threads are dealt out among these."""
    several = min(at_once, len(passes))
    if several <= 1:
        yield from map(of_pass, passes)
        return
    threads = torch.get_num_threads()
    own = max(1, threads // several)
    try:
        with ThreadPoolExecutor(several, initializer=torch.set_num_threads, initargs=(own,)) as pool:
            yield from pool.map(of_pass, passes)
    finally:
        torch.set_num_threads(threads)  # a part of torch's settings is every thread's


def why_in_order(model: Any, forward: Callable[[], Any]) -> str | None:
    """Why passes have to be computed one after the other, or None where they need not be.

    `forward` computes a pass, which shows whether numbers are drawn in it: their order would be another each time.
    """
    if any(_changes(module) for module in model.modules()):
        return "its positions are rotated otherwise in passes of other lengths"
    before = torch.get_rng_state()
    with torch.no_grad():
        forward()
    drawn = not torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(before)
    return "it draws random numbers" if drawn else None


def _changes(module: Any) -> bool:
    kinds = getattr(module, "rope_type", None)
    each_kind = kinds.values() if isinstance(kinds, dict) else [kinds]
    return any(name in str(kind) for kind in each_kind for name in _CHANGING)
