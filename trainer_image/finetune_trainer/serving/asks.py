"""Requests of the HTTP side to the engine, and the pieces it returns. Plain data; no torch, no HTTP."""

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
        """The settings for one of several answers to a prompt: each has its own seed."""
        return self if self.seed is None else replace(self, seed=self.seed + turn)


@dataclass(frozen=True)
class Likelihood:
    """Log probability of a generated token: natural logarithm, before temperature, biases and penalties."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()
    """The most likely tokens at its position, with log probabilities."""


@dataclass(frozen=True)
class Piece:
    """An update of one generation: more text, its end, or its failure. `tokens` counts all generated so far."""

    text: str = ""
    tokens: int = 0
    likelihoods: tuple[Likelihood, ...] = ()
    """Of the text's tokens, if requested."""
    finish: FinishReason | None = None
    failed: bool = False

    @property
    def is_last(self) -> bool:
        """Whether it is the last one."""
        return self.finish is not None or self.failed


def joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one generation in one."""
    likelihoods = tuple(one for piece in pieces for one in piece.likelihoods)
    return replace(pieces[-1], text="".join(piece.text for piece in pieces), likelihoods=likelihoods)


@dataclass(eq=False)
class Ask:
    """One generation. The engine calls `tell` from its own thread; setting `cancelled` stops it at the next token."""

    prompt: tuple[int, ...]
    max_tokens: int
    tell: Callable[[Piece], None] = lambda _piece: None
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    likeliest: int | None = None
    """How many alternatives to return for each token; None: no log probabilities."""
    continues_prompt: bool = False
    """Whether the answer continues the prompt's text (completions) or is a new text (chat)."""
    opening: tuple[int, ...] = ()
    """What a chat template inserts before an answer: hidden if the model generates it too."""
    cancelled: bool = False


class QueueFullError(Exception):
    """The queue is full; `waiting` is its length."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} generations are waiting")
        self.waiting = waiting
