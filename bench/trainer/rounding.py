"""Do compiled layers differ from others by more than rounding? `python -m bench.trainer.rounding --shape 1.5B`.

The same model, initial adapters and rows, computed in several ways, with 32 bits as the reference:

    gradients    of the first step, where B is zero, and of a later one; ||difference|| / ||gradient in 32 bits||
    first step   the loss of the second step after each way's first AdamW update, evaluated in 32 bits
    losses       of the first steps, each way on its own trajectory

Prints one line of JSON for each way, then one with comparisons.
"""

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bench.trainer import work
from finetune_api.job import LoRA
from finetune_trainer.computing.adapted_linear import fuse
from finetune_trainer.computing.compiled_layers import in_training
from finetune_trainer.models.adapters import with_adapters
from finetune_trainer.models.base_model import quiet_libraries
from finetune_trainer.training.passes import Cut, autocast, labelled, loss_sum, on_device, passes_of
from finetune_trainer.training.token_store import TokenStore
from finetune_trainer.training.tuning import device

LEARNING_RATE, EPSILON, MOST_NORM = 2e-4, 1e-8, 1.0
"""Of AdamW, whose first step is g / (|g| + epsilon) times the rate; and the limit for clipping gradients."""

ROWS_PER_STEP = 32
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Gradients = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Way:
    """How a step is computed; 32 bits are padded, since variable-length attention has no kernel for them."""

    name: str
    dtype: torch.dtype = torch.bfloat16
    packed: bool = True
    compiled: bool = False

    def cut(self, tokens: int) -> Cut:
        """Passes of at most this many tokens."""
        return Cut(tokens, packed=self.packed, filled=self.packed and device() == "cuda")


EXACT = Way("float32", torch.float32, packed=False)
WAYS = (
    Way("eager"),
    Way("compiled", compiled=True),
    Way("padded", packed=False),
    Way("padded-compiled", packed=False, compiled=True),
    Way("float32-compiled", torch.float32, packed=False, compiled=True),
    EXACT,
)


class Learner:
    """A model trained in one way."""

    def __init__(self, way: Way, shape: str, store: TokenStore, tokens: int) -> None:
        self.way, self._store, self._tokens = way, store, tokens
        base = work.build(shape, torch.bfloat16, device()).to(way.dtype)  # the same values in 32 bits
        self.model = with_adapters(base, LoRA(r=work.LORA_R, alpha=work.LORA_ALPHA), "bench/model")
        work.fill_adapters(self.model)
        if way.packed or way.compiled:  # otherwise the layers are peft's own
            fuse(self.model)
        self.trained = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        self._optimizer = torch.optim.AdamW(self.trained.values(), lr=LEARNING_RATE, eps=EPSILON, weight_decay=0.0)

    @contextmanager
    def training(self) -> Iterator[None]:
        """The context in which a job trains."""
        self.model.train()
        trained = list(self.trained.values())
        with in_training(self.model, trained, packed=self.way.packed, compile_layers=self.way.compiled):
            yield

    def loss(self, step: int, *, learn: bool = True) -> float:
        """Mean loss of a step's rows; leaves gradients in the parameters."""
        self._optimizer.zero_grad()
        passes = self._passes(step)
        weight, total = sum(map(labelled, passes)), 0.0
        for one in passes:
            with torch.set_grad_enabled(learn):
                with autocast(torch.device(device()), self.way.dtype):
                    mean = loss_sum(self.model, on_device(one, device())) / weight
                if learn:
                    torch.autograd.backward(mean)
            total += float(mean.detach())
        return total

    def _passes(self, step: int) -> list[Any]:
        rows = list(range(step * ROWS_PER_STEP, (step + 1) * ROWS_PER_STEP))
        return passes_of(self._store, rows, self.way.cut(self._tokens))

    def gradients(self) -> Gradients:
        """A copy of the gradients on the CPU."""
        return {name: one.grad.float().cpu() for name, one in self.trained.items() if one.grad is not None}

    def set_gradients(self, values: Gradients) -> None:
        """Replace the gradients."""
        for name, one in self.trained.items():
            one.grad = values[name].to(one.device)

    def update(self) -> float:
        """One step of the optimizer; returns the gradients' norm before it."""
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), MOST_NORM)
        self._optimizer.step()
        return float(norm)

    @torch.no_grad()
    def set_second(self, values: Gradients | None, deviation: float = 0.0) -> None:
        """Set the adapters' B to these values, or to random ones."""
        chance = torch.Generator().manual_seed(5)
        for name, one in self.trained.items():
            if ".lora_B." in name:
                one.copy_(values[name] if values else deviation * torch.randn(one.shape, generator=chance))


def learn(learner: Learner, steps: int) -> dict[str, Any]:
    """Gradients and losses of one way; computes the first step twice, since layers are compiled in it."""
    with learner.training():
        losses, norms = [learner.loss(0)], []
        first = again = learner.gradients()
        if learner.way.compiled:
            learner.loss(0)
            again = learner.gradients()
            learner.set_gradients(first)
        norms.append(learner.update())
        for step in range(1, steps):
            losses.append(learner.loss(step))
            norms.append(learner.update())
        learner.set_second(None, 0.01)
        learner.loss(0)
    found = {"first": first, "again": again, "later": learner.gradients(), "losses": losses, "norms": norms}
    said = {"way": learner.way.name, "losses": losses, "norms": norms, "first call apart": far(first, again)}
    if torch.cuda.is_available():
        said["peak"] = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    say(**said)
    return found


def first_update(gradients: Gradients) -> Gradients:
    """The change of B in AdamW's first step."""
    norm = torch.stack([one.norm() for one in gradients.values()]).norm()
    clipped = min(1.0, MOST_NORM / float(norm))
    return {name: -LEARNING_RATE * clipped * one / ((clipped * one).abs() + EPSILON) for name, one in gradients.items()}


def far(one: Gradients, other: Gradients, part: str = "") -> float:
    """||one - other|| / ||other|| over all parameters with `part` in their names."""
    names = [name for name in other if part in name]
    apart = sum(float((one[name] - other[name]).double().pow(2).sum()) for name in names)
    return float((apart / max(sum(float(other[name].double().pow(2).sum()) for name in names), 1e-300)) ** 0.5)


def agreeing(one: Gradients, other: Gradients, part: str) -> float:
    """Fraction of B's elements with equal signs."""
    names = [name for name in other if part in name and ".lora_B." in name]
    same = sum(int((one[name].sign() == other[name].sign()).sum()) for name in names)
    return same / sum(other[name].numel() for name in names)


def by_kind(one: Gradients, exact: Gradients) -> dict[str, Any]:
    """Differences for each kind of layer, A and B."""
    found = {f"{kind} {half}": far(one, exact, f"{kind}.{half}") for kind in KINDS for half in ("lora_A", "lora_B")}
    return {name: round(value, 5) for name, value in found.items()}


def say(**about: Any) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(about) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Compute in all ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="0.5B")
    parser.add_argument("--lengths", default="ragged")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--exact-steps", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--exact-tokens", type=int, default=4096)
    parser.add_argument("--ways", default="eager,compiled,padded,float32")
    args = parser.parse_args()
    quiet_libraries()
    torch.backends.cuda.matmul.allow_tf32 = False
    made = work.rows(args.lengths, ROWS_PER_STEP * args.steps)
    store = TokenStore((row.ids, row.labels) for row in made)
    found: dict[str, dict[str, Any]] = {}
    for way in (one for one in WAYS if one.name in args.ways.split(",")):
        wide = way.dtype is torch.float32
        learner = Learner(way, args.shape, store, args.exact_tokens if wide else args.tokens)
        if way is EXACT:
            for name, one in found.items():
                learner.set_second(first_update(one["first"]))
                say(way=name, second_loss_in_32_bits=learner.loss(1, learn=False))
            learner.set_second(None)
        found[way.name] = learn(learner, args.exact_steps if wide else args.steps)
        del learner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    compare(found)


def compare(found: dict[str, dict[str, Any]]) -> None:
    """Compare every way with 32 bits and with the others."""
    for name, one in found.items():
        for other_name, other in found.items():
            if other_name != name:
                distances = {when: round(far(one[when], other[when]), 6) for when in ("first", "again", "later")}
                say(way=name, beside=other_name, **distances)
        if EXACT.name in found and name != EXACT.name:
            exact = found[EXACT.name]
            signs = {kind: round(agreeing(one["first"], exact["first"], kind), 5) for kind in KINDS}
            say(way=name, signs=signs, first=by_kind(one["first"], exact["first"]))
            say(way=name, later=by_kind(one["later"], exact["later"]))


if __name__ == "__main__":
    main()
