"""Continuous batching: prompts are read in portions, answers grow together, one token per step.

Only computes with the model: no threads, no text, no HTTP. Rows join and leave between steps.

    reading      the prompt of one row, PORTION tokens at a time, in its own cache
       │ first token chosen
       ▼
    running      all rows in one cache, left-padded; attention mask and positions keep them apart
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from finetune_trainer.computing.attention import rope_switch_length
from finetune_trainer.serving.asks import Ask, Likelihood
from finetune_trainer.serving.kv_cache import RowSource, assemble, new_cache
from finetune_trainer.serving.sampling import Sampler, likelihood

PORTION = 512  # prompt tokens between two steps of the running rows: limits the delay by a long prompt


@dataclass(eq=False)
class Row:
    """One generation in progress."""

    ask: Ask
    sampler: Sampler
    cached: int = 0
    """Tokens whose keys and values are cached."""
    generated: list[int] = field(default_factory=list)
    unsent: list[Likelihood] = field(default_factory=list)
    """Log probabilities of generated tokens that were not sent yet, if requested."""

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer so far: its size in the cache after the next step."""
        return len(self.ask.prompt) + len(self.generated)

    @property
    def left(self) -> int:
        """How many more tokens it may get."""
        return self.ask.max_tokens - len(self.generated)


def row_of(ask: Ask) -> Row:
    """A new generation."""
    return Row(ask, Sampler(ask.sampling))


class Batch:
    """The rows that a model is processing.

    `can_join` is False for models whose state cannot be combined from rows (linear attention, chunked attention, no
    position_ids): they process one request after another.
    """

    def __init__(self, model: Any, *, can_join: bool) -> None:
        self._model = model
        self._can_join = can_join
        self._device = model.device
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in _parameters(model) else {}
        self._rope_switch = rope_switch_length(model) or math.inf
        self._takes_positions = "position_ids" in _parameters(model)
        self._cache_name = cache_name(model) or "past_key_values"
        self._running: list[Row] = []
        self._cache: Any = None
        self._reading: tuple[Row, Any] | None = None

    @property
    def rows(self) -> list[Row]:
        """All rows, reading or running."""
        return self._running + ([self._reading[0]] if self._reading else [])

    @property
    def is_reading(self) -> bool:
        """Whether a prompt is being read; until then no other one can start."""
        return self._reading is not None

    def start(self, row: Row) -> None:
        """Add a row; `read` then reads its prompt, and its answer so far if it was dropped before its end."""
        row.cached = 0
        self._reading = (row, new_cache() if self._can_join else _own_cache(self._model))

    def read(self) -> Row | None:
        """Read the next portion of the current prompt; returns the row, with its next token, after the last portion."""
        if self._reading is None:
            return None
        row, cache = self._reading
        text = (*row.ask.prompt, *row.generated)
        in_portions = self._can_join and len(text) <= self._rope_switch  # its first portions would look like short rows
        end = min(len(text), row.cached + PORTION) if in_portions else len(text)
        ids = torch.tensor([text[row.cached : end]], device=self._device)
        positions = torch.arange(row.cached, end, device=self._device)[None]
        mask = torch.ones((1, end), dtype=torch.long, device=self._device)
        logits, cache = self._forward(ids, mask, positions, cache)
        row.cached = end
        if end < len(text):
            return None
        choose([row], logits)
        self._join(row, cache)
        self._reading = None
        return row

    def step(self) -> list[Row]:
        """Generate one token for every running row."""
        if not self._running:
            return []
        rows = self._running
        lengths = torch.tensor([row.cached for row in rows], device=self._device)
        columns = torch.arange(int(max(row.cached for row in rows)) + 1, device=self._device)
        mask = (columns[None] >= columns[-1] - lengths[:, None]).long()
        ids = torch.tensor([[row.generated[-1]] for row in rows], device=self._device)
        logits, self._cache = self._forward(ids, mask, lengths[:, None], self._cache)
        for row in rows:
            row.cached += 1
        choose(rows, logits)
        return rows

    def drop(self, rows: Sequence[Row]) -> None:
        """Remove these rows and free their memory."""
        if self._reading and self._reading[0] in rows:
            self._reading = None
        kept = [index for index, row in enumerate(self._running) if row not in rows]
        if len(kept) == len(self._running):
            return
        sources = [RowSource(self._cache, index, self._running[index].cached) for index in kept]
        self._running = [self._running[index] for index in kept]
        self._cache = assemble(sources) if kept else None

    def clear(self) -> None:
        """Remove all rows."""
        self._running, self._cache, self._reading = [], None, None

    def _join(self, row: Row, cache: Any) -> None:
        if self._running:
            sources = [RowSource(self._cache, index, other.cached) for index, other in enumerate(self._running)]
            cache = assemble([*sources, RowSource(cache, 0, row.cached)])
        self._running.append(row)
        self._cache = cache

    @torch.inference_mode()
    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, Any]:
        """Logits of the last position, [rows, vocabulary], and the cache, created by the model if there was none."""
        extra = {**self._extra, self._cache_name: cache}
        if self._takes_positions:
            extra["position_ids"] = positions
        if self._cache_name == "past_key_values":  # recurrent models expect a mask of the new tokens only
            extra["attention_mask"] = mask
        output = self._model(input_ids=ids, use_cache=True, **extra)
        return output.logits[:, -1], output[self._cache_name] if cache is None else cache


@torch.inference_mode()
def choose(rows: Sequence[Row], logits: torch.Tensor) -> None:
    """Choose each row's next token, from logits of shape [rows, vocabulary]."""
    likeliest = logits.argmax(-1).tolist()
    for index, row in enumerate(rows):
        if row.sampler.is_plain_greedy:
            row.generated.append(likeliest[index])
        else:
            row.generated.append(row.sampler.choose(logits[index].float().cpu()))
        if row.ask.likeliest is not None:
            row.unsent.append(likelihood(logits[index].float().cpu(), row.generated[-1], row.ask.likeliest))


def cache_name(model: Any) -> str | None:
    """The name of the model's cache argument; None if it has none.

    A model ignores unknown arguments, and would then answer from the newest token alone.
    """
    known = ("past_key_values", "cache_params")
    return next((name for name in known if name in _parameters(model)), None)


def _own_cache(model: Any) -> Any:
    """The cache that `generate` would create; None if the model creates its state itself (MiniMax)."""
    takes_one: bool = model._supports_default_dynamic_cache()  # noqa: SLF001 - transformers has no public way to ask
    return DynamicCache(config=model.config) if takes_one else None


def can_join(model: Any) -> bool:
    """Whether rows of this model can join and leave a batch."""
    if "position_ids" not in _parameters(model):
        return False
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return False
    plain = {"DynamicLayer", "DynamicSlidingWindowLayer"}
    return {type(layer).__name__ for layer in DynamicCache(config=model.config).layers} <= plain


def _parameters(model: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)
