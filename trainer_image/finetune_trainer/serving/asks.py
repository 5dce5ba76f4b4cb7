"""What the HTTP side asks of the engine, and what it gets back piece by piece. Plain data; no torch, no HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def of_turn(self, turn: int) -> "Sampling":
        """Those of one of several answers to a prompt: each draws by a seed of its own."""
        return self if self.seed is None else replace(self, seed=self.seed + turn)


@dataclass(frozen=True)
class Likelihood:
    """How likely the model held a token of its answer: natural logarithms, before temperature, biases and penalties."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place, and theirs."""


@dataclass(frozen=True)
class Piece:
    """News of one generation: more text, its end, or its failure. `tokens` counts all generated so far."""

    text: str = ""
    tokens: int = 0
    likelihoods: tuple[Likelihood, ...] = ()
    """Of the text's tokens, where they were asked for."""
    finish: FinishReason | None = None
    failed: bool = False

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.failed


def joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one generation as one."""
    likelihoods = tuple(one for piece in pieces for one in piece.likelihoods)
    return replace(pieces[-1], text="".join(piece.text for piece in pieces), likelihoods=likelihoods)


@dataclass(eq=False)
class Ask:
    """One generation. The engine calls `tell` from its own thread; setting `cancelled` ends it at the next token."""

    prompt: tuple[int, ...]
    max_tokens: int
    tell: Callable[[Piece], None] = lambda _piece: None
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    likeliest: int | None = None
    """How many of the likeliest tokens to tell in each place, beside the chosen one; None: no likelihoods at all."""
    continues_prompt: bool = False
    """Whether the answer's text goes on in the prompt's last word (completions), or starts anew (chat)."""
    opening: tuple[int, ...] = ()
    """What a chat template writes before an answer: where the model does so too, it is not shown."""
    cancelled: bool = False


class QueueFullError(Exception):
    """As many generations wait as may; `waiting` says how many."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} generations are waiting")
        self.waiting = waiting
