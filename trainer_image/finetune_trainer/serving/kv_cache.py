"""A cache of keys and values whose rows come and go.

Rows are right-aligned: a row shorter than the longest has zeros (masked by the caller) on its left. Buffers grow in
steps, so that a new token copies nothing; only a change of rows does. `batch` knows how much padding each row has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 64  # minimum number of positions allocated in advance


class BufferedLayer(DynamicLayer):  # type: ignore[no-untyped-call] # half of transformers is typed
    """A layer's keys and values, [rows, heads, positions, width] each, in buffers with spare positions."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None
        self._length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the states of the new positions; returns all states."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._length + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            room = end + max(_ROOM, end // 4)
            self._buffers = (self._grown(0, key_states, room), self._grown(1, value_states, room))
        keys, values = self._buffers
        keys[:, :, self._length : end] = key_states
        values[:, :, self._length : end] = value_states
        self._length = end
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def filled(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of all positions so far."""
        if self.keys is None or self.values is None:
            raise ValueError("nothing has been written to this layer")
        return self.keys, self.values

    def _grown(self, which: int, like: torch.Tensor, room: int) -> torch.Tensor:
        rows, heads, _, width = like.shape
        grown = like.new_zeros((rows, heads, room, width))
        if self._buffers is not None:
            grown[:, :, : self._length] = self._buffers[which][:, :, : self._length]
        return grown

    def free(self) -> None:
        """Free the buffers."""
        self.keys = self.values = self._buffers = None

    def fill(self, rows: Sequence[tuple["BufferedLayer", int, int]], length: int) -> None:
        """Copy rows (layer, its row, its tokens), right-aligned at `length`."""
        like = rows[0][0].filled()
        self.lazy_initialization(*like)
        room = length + max(_ROOM, length // 4)
        self._buffers = (_blank(like[0], len(rows), room), _blank(like[1], len(rows), room))
        for at, (layer, row, tokens) in enumerate(rows):
            for mine, theirs in zip(self._buffers, layer.filled(), strict=True):
                mine[at, :, length - tokens : length] = theirs[row, :, theirs.shape[-2] - tokens :]
        self._length = length
        self.keys, self.values = self._buffers[0][:, :, :length], self._buffers[1][:, :, :length]


@dataclass(frozen=True)
class RowSource:
    """One row of a cache: the last `tokens` positions of row `row`."""

    cache: Any
    """From `new_cache` or `assemble`."""
    row: int
    tokens: int


def new_cache() -> Cache:
    """An empty cache; layers are created when the model first writes to them."""
    return Cache(layer_class_to_replicate=BufferedLayer)


def assemble(rows: Sequence[RowSource]) -> Cache:
    """A new cache of these rows, as long as the longest of them. Empties the caches that they come from.

    Each layer is freed as soon as its rows are copied: two complete caches would not fit into memory.
    """
    length = max(row.tokens for row in rows)
    layers = [BufferedLayer() for _ in rows[0].cache.layers]
    for index, layer in enumerate(layers):
        sources = [(row.cache.layers[index], row.row, row.tokens) for row in rows]
        if sources[0][0].is_initialized:  # layers that share another one's keys stay empty
            layer.fill(sources, length)
        for source, _, _ in sources:
            source.free()
    return Cache(layers=list(layers))


def _blank(like: torch.Tensor, rows: int, room: int) -> torch.Tensor:
    _, heads, _, width = like.shape
    return like.new_zeros((rows, heads, room, width))
