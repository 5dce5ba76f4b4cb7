"""Causal attention within documents on a CPU, as one autograd function.

Computed in 32 bits whatever the inputs: in 16 bits torch's backward pass takes up to three times as long. torch itself
would also save everything in 32 bits, keys and values once for each head that shares them; here the inputs are saved as
they are, and the output in its final dtype, which the next layer saves anyway.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.integrations.sdpa_attention import repeat_kv

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - what torch's own attention calls
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001 - as above


def attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    lengths: Sequence[int],
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """[1, heads, tokens, width] to [1, tokens, heads, width]; documents of these lengths are concatenated.

    There are as many heads of keys and values as of queries, or fewer by an integer factor; all widths are equal.
    """
    return _Documents.apply(query, key, value, lengths, scale, window)  # type: ignore[no-any-return]


class _Documents(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes what `apply` got, by place
        ctx: Any, query: Any, key: Any, value: Any, lengths: Sequence[int], scale: float, window: int | None
    ) -> Any:
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        wide, logarithms = _wide(query, key, value), []
        for documents in _pieces(lengths):
            answer, logarithm = _forward(*map(documents.of, wide), **_how(documents, scale, window, query))
            documents.of(out.transpose(1, 2)).copy_(answer)
            logarithms.append(logarithm)
        ctx.save_for_backward(query, key, value, out, *logarithms)
        ctx.how = lengths, scale, window
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value, out, *logarithms = ctx.saved_tensors
        lengths, scale, window = ctx.how
        grads = [torch.empty_like(one) for one in (query, key, value)]
        given, answer = (one.transpose(1, 2).to(logarithms[0].dtype) for one in (grad, out))
        wide = [given, *_wide(query, key, value), answer]
        for documents, logarithm in zip(_pieces(lengths), logarithms, strict=True):
            how = _how(documents, scale, window, query)
            causal = how.pop("is_causal")
            found = _backward(*map(documents.of, wide), logarithm, 0.0, causal, **how)
            for whole, part in zip(grads, found, strict=True):
                documents.of(whole).copy_(part.view(part.shape[0], whole.shape[1], -1, *part.shape[2:]).sum(2))
        return *grads, None, None, None


class _Piece:
    """Consecutive documents of equal length."""

    def __init__(self, start: int, rows: int, length: int) -> None:
        self._start, self._rows, self.length = start, rows, length

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """Their part of [1, heads, tokens, width], as a view: [rows, heads, length, width]."""
        _, heads, _, width = whole.shape
        part = whole[0].narrow(1, self._start, self._rows * self.length)
        return part.view(heads, self._rows, self.length, width).transpose(0, 1)


def _pieces(lengths: Sequence[int]) -> Iterator[_Piece]:
    """All documents in one piece if their lengths are equal, otherwise one piece each."""
    if len(set(lengths)) == 1:
        yield _Piece(0, len(lengths), lengths[0])
        return
    start = 0
    for length in lengths:
        yield _Piece(start, 1, length)
        start += length


def _wide(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> list[torch.Tensor]:
    """Cast to at least 32 bits, and repeat keys and values for every head."""
    dtype, groups = torch.promote_types(query.dtype, torch.float32), query.shape[1] // key.shape[1]
    return [query.to(dtype), *(repeat_kv(one.to(dtype), groups) for one in (key, value))]


def _how(documents: _Piece, scale: float, window: int | None, like: torch.Tensor) -> dict[str, Any]:
    if window is None or documents.length <= window:
        return {"is_causal": True, "scale": scale}
    dtype = torch.promote_types(like.dtype, torch.float32)
    places = torch.arange(documents.length, device=like.device)
    back = places[:, None] - places[None, :]
    outside = (back < 0) | (back >= window)
    mask = torch.zeros(outside.shape, dtype=dtype, device=like.device).masked_fill_(outside, -torch.inf)
    return {"is_causal": False, "attn_mask": mask, "scale": scale}
