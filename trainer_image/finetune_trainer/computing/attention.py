"""Attention that separates the documents of a packed row, registered as an attention function of transformers.

    [1, tokens] = document | document | …     positions restart with each; no padding and no attention mask

On a GPU it uses torch's variable-length attention, elsewhere its ordinary one for one document after another
(`cpu_attention.py`). Boundaries have transformers' names (`cu_seq_lens_q`), and so also reach models that mix tokens in
other ways. `why_not_packed` finds out by trying whether a model keeps documents separate.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from finetune_trainer.computing.cpu_attention import attended

NAME = "finetune_documents"

_MOST_HEAD_WIDTH = 256  # limit of the kernels behind varlen_attn
_REFUSED = ("position_bias", "s_aux", "softcap")  # score modifications that neither kernel supports
_NEAR = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
_PROBE = (48, 16, 32)
_BEGINNING = 2
_AHEAD = {torch.float32: 1e-2, torch.bfloat16: 0.1}  # rounding may also route a token to other experts


class NotKeptApartError(Exception):
    """The model's attention cannot be computed per document; says why."""


def boundaries(lengths: list[int], device: Any) -> dict[str, Any]:
    """Keyword arguments with the ends of a row's documents, under transformers' names."""
    ends = torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document: query [1, heads, tokens, width] gives [1, tokens, heads, width].

    Raises:
        NotKeptApartError: the model needs something unsupported.
    """
    refused = [name for name in _REFUSED if others.get(name) is not None]
    refused += ["dropout"] if dropout else []
    refused += ["a mask"] if attention_mask is not None else []
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if cu_seq_lens_q is None or not causal or key.shape[2] != query.shape[2] or query.shape[0] != 1:
        refused.append("attention that is not within one row of documents")
    if refused or cu_seq_lens_q is None or max_length_q is None:
        raise NotKeptApartError(f"its attention uses {', '.join(refused)}")
    query, key, value = _as_autocast(query, key, value)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if not query.is_cuda:
        heads, lengths = _of_width((query, key, value), max(query.shape[-1], value.shape[-1])), cu_seq_lens_q.diff()
        out = attended(*heads, lengths=lengths.tolist(), scale=scale, window=sliding_window)
        return out[..., : value.shape[-1]], None
    rows = cu_seq_lens_q.shape[0] - 1
    if rows * max_length_q == query.shape[2] and (sliding_window is None or sliding_window >= max_length_q):
        return _beside_one_another(query, key, value, rows, scale), None
    ends, longest = cu_seq_lens_q, max_length_q
    return _varlen(query, key, value, ends=ends, longest=longest, scale=scale, window=sliding_window), None


def _as_autocast(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cast to autocast's dtype, as autocast itself does for torch's own attention, but not for all functions used here.

    Otherwise queries and keys of a fully tuned model are float32, since rotary embeddings keep the dtype of hidden
    states.
    """
    kind = given[0].device.type
    if not torch.is_autocast_enabled(kind):
        return given
    return tuple(one.to(torch.get_autocast_dtype(kind)) for one in given)


def _of_width(heads: Iterable[torch.Tensor], width: int) -> list[torch.Tensor]:
    """Pad heads with zeros, which does not change scores."""
    return [functional.pad(one, (0, width - one.shape[-1])) if one.shape[-1] < width else one for one in heads]


def _beside_one_another(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rows: int, scale: float
) -> torch.Tensor:
    """For documents of equal length, such as many truncated ones: torch's batched kernels are the fastest."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (
        one.view(one.shape[1], rows, -1, one.shape[-1]).transpose(0, 1) for one in (query, key, value)
    )  # [rows, heads, tokens, width]
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=groups > 1)
    return out.transpose(1, 2).flatten(0, 1).unsqueeze(0)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    ends: torch.Tensor,
    longest: int,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """FlashAttention: cuDNN, torch's default from 2.12 on, selects a kernel again for each new length."""
    width = -8 * (-max(query.shape[-1], value.shape[-1]) // 8)
    if width > _MOST_HEAD_WIDTH or query.dtype not in (torch.bfloat16, torch.float16):
        raise NotKeptApartError(f"heads of width {width} in {query.dtype} have no kernel")
    query, key, given = (one.squeeze(0).transpose(0, 1) for one in _of_width((query, key, value), width))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out: Any = varlen_attn(
            query,
            key,
            given,
            ends,
            ends,
            longest,
            longest,
            scale=scale,
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=True,
        )
    return out[..., : value.shape[-1]].unsqueeze(0)  # type: ignore[no-any-return]


AttentionInterface.register(NAME, attention)


def inner(model: Any) -> Any:
    """Transformers' model inside of peft's, or the model itself."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def rope_switch_length(model: Any) -> int | None:
    """The length in tokens up to which rows get longrope's short rotary factors; None for most models.

    transformers chooses the factors once a pass: one longer row changes them for all rows of its pass. With dynamic NTK
    it is the length up to which rows are not stretched. Longer ones are stretched by the longest row of their pass or
    of earlier passes since the last unstretched one: separating rows at one length does not prevent that.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    of_layers = [one for one in (rope, *rope.values()) if isinstance(one, dict)]
    kinds = {one.get("rope_type"): one.get("original_max_position_embeddings") for one in of_layers}
    limits = [kinds["longrope"] or config.max_position_embeddings] if "longrope" in kinds else []
    if "dynamic" in kinds:
        limits.append(config.max_position_embeddings - 1)  # rows of exactly that length end no stretching
    return min(limits, default=None)


@contextmanager
def kept_apart(model: Any) -> Iterator[None]:
    """Makes the model attend within documents; every forward pass in this context needs `boundaries`."""
    net = inner(model)
    before = _attentions(net.config)
    net.set_attn_implementation(NAME)
    try:
        yield
    finally:
        net.set_attn_implementation(before)


def _attentions(config: Any) -> dict[str, Any]:
    """The attention implementations of a model and of its audio and vision parts, which may differ."""
    parts = {name: part for name in config.sub_configs if (part := getattr(config, name)) is not None}
    own = config._attn_implementation  # noqa: SLF001 - the setting has no public name
    return {"": own, **{name: _attentions(part) for name, part in parts.items()}}


def why_not_packed(model: Any, compute_dtype: torch.dtype) -> str | None:
    """Why documents of one row would influence each other in this model, or None if they do not.

    Three documents go through the model separately and packed; layers that mix tokens by other means than attention
    (convolutions, recurrent states), positions that do not restart, or modified scores show as different logits.
    What a short convolution carries over is hidden by 16-bit rounding, but visible at the beginnings of documents
    when only the first document is exchanged: nothing else differs there. The packed row also goes through the model
    in training mode, since attention dropout may apply only then.
    """
    net = inner(model)
    if net.config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if not net._can_set_attn_implementation() or not getattr(net, "_supports_attention_backend", False):  # noqa: SLF001 - no public name
        return "its attention cannot be replaced"
    training = model.training
    model.eval()
    try:
        return _tried(model, net, compute_dtype)
    except NotKeptApartError as error:
        return str(error)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # noqa: BLE001 - unknown GPU, few positions, a model's own code: fall back to padding
        return f"its attention cannot be computed within rows here: {str(error).strip().partition(chr(10))[0]}"
    finally:
        model.train(training)


@torch.no_grad()
def looks_ahead(model: Any, compute_dtype: torch.dtype) -> bool:
    """Whether outputs for a token depend on later tokens: the model could copy answers, and padding would matter."""
    training = model.training
    model.eval()
    ids = _some_ids(model, min(_PROBE))
    half = ids.shape[1] // 2
    try:
        with _autocast(model, compute_dtype):
            alone, begun = (model(input_ids=given, use_cache=False).logits.float() for given in (ids[:, :half], ids))
    finally:
        model.train(training)
    return float((begun[:, :half] - alone).norm()) > _AHEAD[compute_dtype] * float(alone.norm())


def _some_ids(model: Any, count: int) -> torch.Tensor:
    net = inner(model)
    limit = len(net.get_input_embeddings().weight)
    return torch.arange(count, device=net.device).mul(7919).remainder(limit)[None]


def _autocast(model: Any, compute_dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(inner(model).device.type, dtype=compute_dtype, enabled=compute_dtype != torch.float32)


@torch.no_grad()
def _tried(model: Any, net: Any, compute_dtype: torch.dtype) -> str | None:
    device, ids = net.device, _some_ids(model, sum(_PROBE))
    with _autocast(model, compute_dtype):
        alone = torch.cat(
            [model(input_ids=one, use_cache=False).logits for one in torch.split(ids, list(_PROBE), dim=1)], dim=1
        )
        with kept_apart(model):
            places = torch.cat([torch.arange(length, device=device) for length in _PROBE])[None]
            ends = boundaries(list(_PROBE), device)
            packed = model(input_ids=ids, position_ids=places, use_cache=False, **ends).logits
            others = torch.cat((ids[:, : _PROBE[0]].flip(1), ids[:, _PROBE[0] :]), dim=1)
            beside = model(input_ids=others, position_ids=places, use_cache=False, **ends).logits
            with torch.random.fork_rng([] if device.index is None else [device.index]):
                model.train()
                model(input_ids=ids, position_ids=places, use_cache=False, **ends)
    apart = max(_apart(packed, alone), _apart(_beginnings(beside), _beginnings(packed)))
    return (
        None if apart < _NEAR[compute_dtype] else f"its documents would see each other (logits differ by {apart:.2g})"
    )


def _beginnings(logits: torch.Tensor) -> torch.Tensor:
    """The beginnings of all documents but the first."""
    return torch.cat([of_one[:, :_BEGINNING] for of_one in torch.split(logits, list(_PROBE), dim=1)[1:]], dim=1)


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())
