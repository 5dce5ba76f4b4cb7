"""Continuous batching for encoder-decoders: each prompt is encoded once, answers grow together.

Only computes with the model; same interface as `batch.Batch`. Keys and values of prompts (cross attention) and of
answers (self attention) are two caches; in both a row is right-aligned, and masks separate rows.

    reading      one prompt through the encoder, and the decoder's first step
       │ first token chosen
       ▼
    running      all rows in one pair of caches
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from finetune_trainer.serving.batch import Row, choose
from finetune_trainer.serving.kv_cache import RowSource, assemble, new_cache

_RELATIVE_POSITIONS = frozenset({"longt5", "mt5", "t5", "umt5"})


class Seq2SeqBatch:
    """The rows that an encoder-decoder is processing. A row's `cached` counts the decoder's tokens."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = model.device
        self._start: int = model.config.decoder_start_token_id
        self._running: list[Row] = []
        self._caches: Any = None
        self._reading: Row | None = None

    @property
    def rows(self) -> list[Row]:
        """All rows, reading or running."""
        return self._running + ([self._reading] if self._reading else [])

    @property
    def is_reading(self) -> bool:
        """Whether a prompt waits to be read; until then no other one can start."""
        return self._reading is not None

    def start(self, row: Row) -> None:
        """Add a row; `read` then reads its prompt, and its answer so far if it was dropped before its end."""
        self._reading = row

    @torch.inference_mode()
    def read(self) -> Row | None:
        """Encode the current prompt in one go, as encoders are bidirectional; returns the row with its next token."""
        row = self._reading
        if row is None:
            return None
        prompt = torch.tensor([row.ask.prompt], device=self._device)
        encoded = self._model.get_encoder()(input_ids=prompt, attention_mask=torch.ones_like(prompt))
        caches = EncoderDecoderCache(new_cache(), new_cache())
        ids = torch.tensor([[self._start, *row.generated]], device=self._device)
        row.cached = len(row.generated)
        logits = self._forward(ids, encoded.last_hidden_state, [row], caches)
        choose([row], logits if row.generated else self._first_token_logits(logits))
        row.cached = ids.shape[1]
        self._running, self._caches = self._assembled([*self._running, row], caches)
        self._reading = None  # last: if reading fails, the row must still be in `rows` to be told
        return row

    def _first_token_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of the first token, which some models force: they were trained with it and know no other."""
        forced = self._model.generation_config.forced_bos_token_id
        if forced is None:
            return logits
        return torch.full_like(logits, torch.finfo(logits.dtype).min).index_fill_(
            1, torch.tensor([forced], device=self._device), 0.0
        )

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Generate one token for every running row."""
        rows = self._running
        if not rows:
            return []
        longest = max(len(row.ask.prompt) for row in rows)
        # Keys and values of the prompts are cached: only the shape of the encoder's output is used.
        shape = torch.zeros((1, 1, 1), dtype=self._model.dtype, device=self._device)
        encoded = shape.expand(len(rows), longest, self._model.config.hidden_size)
        ids = torch.tensor([[row.generated[-1]] for row in rows], device=self._device)
        logits = self._forward(ids, encoded, rows, self._caches)
        for row in rows:
            row.cached += 1
        choose(rows, logits)
        return rows

    def drop(self, rows: Sequence[Row]) -> None:
        """Remove these rows and free their memory."""
        if self._reading in rows:
            self._reading = None
        kept = [row for row in self._running if row not in rows]
        if len(kept) < len(self._running):
            self._running, self._caches = self._assembled(kept, None)

    def clear(self) -> None:
        """Remove all rows."""
        self._running, self._caches, self._reading = [], None, None

    def _assembled(self, rows: list[Row], newest: Any) -> tuple[list[Row], Any]:
        """These rows in one pair of caches: the last row from `newest` if given, the others from the current caches."""
        if not rows:
            return [], None
        if newest is not None and len(rows) == 1:
            return rows, newest
        places = [(newest, 0) if row not in self._running else (self._caches, self._running.index(row)) for row in rows]
        answers = [
            RowSource(of.self_attention_cache, at, row.cached) for row, (of, at) in zip(rows, places, strict=True)
        ]
        prompts = [
            RowSource(of.cross_attention_cache, at, len(row.ask.prompt))
            for row, (of, at) in zip(rows, places, strict=True)
        ]
        return rows, EncoderDecoderCache(assemble(answers), assemble(prompts))

    def _forward(self, ids: torch.Tensor, encoded: torch.Tensor, rows: Sequence[Row], caches: Any) -> torch.Tensor:
        """Logits of the last position, [rows, vocabulary]."""
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=self._mask([len(row.ask.prompt) for row in rows]),
            decoder_input_ids=ids,
            decoder_attention_mask=self._mask([row.cached + 1 for row in rows]),
            past_key_values=caches,
            use_cache=True,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _mask(self, lengths: Sequence[int]) -> torch.Tensor:
        """[rows, longest]: ones at a row's positions, right-aligned."""
        columns = torch.arange(max(lengths), device=self._device)
        return (columns[None] >= max(lengths) - torch.tensor(lengths, device=self._device)[:, None]).long()


def can_join(model: Any) -> bool:
    """Whether rows may be padded on the left: for relative positions like T5's, not for absolute ones."""
    return model.config.model_type in _RELATIVE_POSITIONS
