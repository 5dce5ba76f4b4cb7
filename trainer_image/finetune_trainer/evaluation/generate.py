"""Greedy answers of a model in batches, causal or encoder-decoder. It knows token ids only."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from finetune_trainer.batches import forward_passes


def generated(
    model: Any, prompts: Sequence[Sequence[int]], *, generation: Any, max_new_tokens: int, token_budget: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """Batch by batch: places in `prompts` and the new tokens after them, without those that end an answer.

    `generation` is a GenerationConfig that says which tokens end an answer. A batch holds at most `token_budget` tokens
    with padding; which prompts share one does not change what is answered.
    """
    model.eval()
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    for group in forward_passes(lengths, token_budget=token_budget):
        new = _new_tokens(model, [prompts[place] for place in group], generation, max_new_tokens)
        yield [(place, _until_end(ids, generation.eos_token_id)) for place, ids in zip(group, new, strict=True)]


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
    from finetune_trainer.attention import inner  # needs torch

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
