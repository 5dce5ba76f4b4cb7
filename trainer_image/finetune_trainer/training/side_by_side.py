"""A step's passes in parallel on a CPU: each on its own threads, results in the order of the passes.

    passes -> of_pass, several at once -> results, in order

The matrix products of a pass are small, and the operations between them smaller still: threads that share one pass wait
for each other half of the time. Passes share only weights, which nobody writes. `why_in_order` checks beforehand that
the model really computes like that.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from finetune_trainer.training.passes import Pass

_CHANGING = ("dynamic", "longrope")
"""Kinds of rotary embeddings whose frequencies depend on the length of each pass, by transformers' names."""

Result = TypeVar("Result")


def each(passes: Sequence[Pass], of_pass: Callable[[Pass], Result], *, at_once: int) -> Iterator[Result]:
    """`of_pass` of each pass, `at_once` of them in parallel; the process's threads are divided among them."""
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
        torch.set_num_threads(threads)  # the setting is partly global


def why_in_order(model: Any, forward: Callable[[], Any]) -> str | None:
    """Why passes must be computed in sequence, or None if they need not be.

    `forward` computes a pass, to see whether it draws random numbers: in parallel their order would vary.
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
