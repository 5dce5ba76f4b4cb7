"""What the HTTP side asks of the engine, and what it gets back piece by piece. Plain data; no torch, no HTTP."""

from collections.abc import Callable
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Piece:
    """News of one generation: more text, its end, or its failure. `tokens` counts all generated so far."""

    text: str = ""
    tokens: int = 0
    finish: FinishReason | None = None
    failed: bool = False

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.failed


@dataclass(eq=False)
class Ask:
    """One generation. The engine calls `tell` from its own thread; setting `cancelled` ends it at the next token."""

    prompt: tuple[int, ...]
    max_tokens: int
    tell: Callable[[Piece], None]
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    continues_prompt: bool = False
    """Whether the answer's text goes on in the prompt's last word (completions), or starts anew (chat)."""
    cancelled: bool = False

    @property
    def reserve(self) -> int:
        """Tokens that it may come to hold in the cache."""
        return len(self.prompt) + self.max_tokens


class QueueFullError(Exception):
    """As many generations wait as may; `waiting` says how many."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} generations are waiting")
        self.waiting = waiting
