"""Greedy answers of a model in batches, causal or encoder-decoder. It knows token ids only."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from finetune_trainer.training.batches import forward_passes

_PROBE, _PADDING = 12, 5
"""Tokens that are tried, and padding before them."""

_NEAR, _NEAR_IN_16_BITS = 1e-3, 5e-2
"""Parts of the logits by which rounding may move them."""


def generated(
    model: Any, prompts: Sequence[Sequence[int]], *, generation: Any, max_new_tokens: int, token_budget: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """Batch by batch: places in `prompts` and the new tokens after them, without those that end an answer.

    `generation` is a GenerationConfig that says which tokens end an answer. A batch holds at most `token_budget` tokens
    with padding; which prompts share one does not change what is answered.
    """
    model.eval()
    for group in _groups(model, [len(prompt) + max_new_tokens for prompt in prompts], token_budget):
        new = _new_tokens(model, [prompts[place] for place in group], generation, max_new_tokens)
        yield [(place, _until_end(ids, generation.eos_token_id)) for place, ids in zip(group, new, strict=True)]


def _groups(model: Any, lengths: list[int], token_budget: int) -> Iterator[list[int]]:
    """Places of prompts that go together; only those of one length where padding would change an answer."""
    if not minds_padding(model):
        yield from forward_passes(lengths, token_budget=token_budget)
        return
    for length in sorted(set(lengths), reverse=True):
        alike = [place for place, one in enumerate(lengths) if one == length]
        for group in forward_passes([length] * len(alike), token_budget=token_budget):
            yield [alike[place] for place in group]


def minds_padding(model: Any) -> bool:
    """Whether what a prompt is answered with depends on padding before it, though that is masked: tried, not guessed.

    Some models with recurrent states pass over the mask.
    """
    import torch

    if getattr(model.config, "is_encoder_decoder", False):
        return False
    ids = torch.arange(1, _PROBE + 1).mul(7919).remainder(model.get_input_embeddings().num_embeddings)[None]
    padded = torch.cat((ids[:, :_PADDING], ids), dim=1)
    mask = torch.ones_like(padded)
    mask[:, :_PADDING] = 0
    try:
        alone, beside = (_first_logits(model, *one) for one in ((ids, torch.ones_like(ids)), (padded, mask)))
    except (RuntimeError, ValueError, IndexError):
        return True
    near = _NEAR if next(model.parameters()).dtype == torch.float32 else _NEAR_IN_16_BITS
    return float((beside - alone).norm()) > near * float(alone.norm())


def _first_logits(model: Any, ids: Any, mask: Any) -> Any:
    """Of an answer's first two tokens: the second comes from the state that the prompt has left. [2, vocabulary]."""
    import torch
    from transformers import GenerationConfig

    device = next(model.parameters()).device
    how = GenerationConfig(  # type: ignore[no-untyped-call]
        min_new_tokens=2,
        max_new_tokens=2,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    with torch.inference_mode(), _no_taste_but(model, how):
        made = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=how)
    return torch.cat(made.logits).float()


def _new_tokens(model: Any, prompts: list[Sequence[int]], generation: Any, limit: int) -> list[list[int]]:
    """Padding is masked: before the prompts where answers follow them, after them where an encoder reads them."""
    import torch

    has_encoder = bool(getattr(model.config, "is_encoder_decoder", False))
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), generation.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for place, prompt in enumerate(prompts):
        where = slice(0, len(prompt)) if has_encoder else slice(longest - len(prompt), longest)
        ids[place, where] = torch.tensor(prompt)
        mask[place, where] = 1
    device = next(model.parameters()).device
    copied = copy.deepcopy(generation)
    copied.update(max_new_tokens=limit, do_sample=False, use_cache=True)
    with torch.inference_mode(), _no_taste_but(model, copied):
        output = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=copied)
    new: list[list[int]] = output[:, 1 if has_encoder else longest :].tolist()  # a decoder begins with its start token
    return new


@contextmanager
def _no_taste_but(model: Any, generation: Any) -> Iterator[None]:
    """What `generation` leaves open is open: transformers would fill it up by the model's own generation_config.

    Many models' have a repetition penalty, and BART's for summaries beams and a least length: the server has none.
    """
    from finetune_trainer.computing.attention import inner  # needs torch

    net = inner(model)
    before = net.generation_config
    net.generation_config = generation
    try:
        yield
    finally:
        net.generation_config = before


def _until_end(ids: list[int], ends: int | list[int] | None) -> list[int]:
    """The ids before the first that ends an answer; what follows it is padding."""
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    return next((ids[:place] for place, token in enumerate(ids) if token in stops), ids)
