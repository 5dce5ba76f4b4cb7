"""Greedy answers of a causal or encoder-decoder model, in batches. Works with token ids only."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.computing import gpus
from finetune_trainer.errors import TrainerError, is_short_of_device_memory
from finetune_trainer.training.batches import forward_passes

_PROBE, _PADDING = 12, 5
"""Tokens of the trial prompt, and padding before it."""

_NEAR, _NEAR_IN_16_BITS = 1e-3, 5e-2
"""Relative difference of logits that rounding may cause."""

SMALLER = "Use shorter questions, a smaller evaluation.maxNewTokens or a larger GPU."
"""Next step for a model that is too large to answer."""


def generated(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    generation: Any,
    max_new_tokens: int,
    token_budget: int,
    on_shortage: Callable[[int], None] = lambda _budget: None,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Yields batches of (index in `prompts`, new tokens), without the tokens that end an answer.

    `generation` is a GenerationConfig with the tokens that end an answer. A batch has at most `token_budget` tokens
    including padding; batching does not change answers. If a GPU runs out of memory, batches are halved from then on,
    and `on_shortage` gets the new budget.

    Raises:
        TrainerError: OutOfMemory, even for a single question.
    """
    from finetune_trainer.computing.attention import rope_switch_length  # needs torch

    model.eval()
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    left = dict.fromkeys(range(len(prompts)))
    equal_from = 0 if depends_on_padding(model) else rope_switch_length(model)
    while left:
        for group in _groups(left, lengths, token_budget, equal_from):
            new = _try_batch(model, [prompts[place] for place in group], generation, max_new_tokens)
            if new is None:
                token_budget = _smaller(group, lengths)
                on_shortage(token_budget)
                break
            yield [(place, _until_end(ids, generation.eos_token_id)) for place, ids in zip(group, new, strict=True)]
            for place in group:
                del left[place]


def _groups(places: Iterable[int], lengths: Sequence[int], budget: int, equal_from: int | None) -> Iterator[list[int]]:
    """Groups prompts into batches. Above `equal_from` only equal lengths go together: padding would change answers."""
    of_length: dict[int, list[int]] = {}
    for place in places:
        equal = equal_from is not None and lengths[place] > equal_from
        of_length.setdefault(lengths[place] if equal else 0, []).append(place)
    for _, alike in sorted(of_length.items(), reverse=True):
        for group in forward_passes([lengths[place] for place in alike], token_budget=budget):
            yield [alike[place] for place in group]


def _try_batch(model: Any, prompts: list[Sequence[int]], generation: Any, limit: int) -> list[list[int]] | None:
    """New tokens, or None if out of memory: the failed batch is freed only once the exception is gone."""
    try:
        return _new_tokens(model, prompts, generation, limit)
    except RuntimeError as error:
        if not is_short_of_device_memory(error):
            raise
        return None


def _smaller(group: list[int], lengths: Sequence[int]) -> int:
    """Half the tokens of a batch that ran out of memory. Frees cached memory."""
    gpus.empty_cache()
    longest = max(lengths[place] for place in group)
    if len(group) == 1:
        message = f"the GPU's memory was not enough for one question and its answer, up to {longest} tokens"
        raise TrainerError(Reason.OUT_OF_MEMORY, message, SMALLER)
    return len(group) * longest // 2


def depends_on_padding(model: Any) -> bool:
    """Whether the answer depends on masked padding before the prompt. Found out by trying.

    Some models with recurrent states ignore the mask.
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
    """Logits of the first two new tokens: the second depends on the state after the prompt. [2, vocabulary]."""
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
    with torch.inference_mode(), _only_settings_of(model, how):
        made = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=how)
    return torch.cat(made.logits).float()


def _new_tokens(model: Any, prompts: list[Sequence[int]], generation: Any, limit: int) -> list[list[int]]:
    """Prompts are padded on the left, an encoder's on the right; padding is masked."""
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
    with torch.inference_mode(), _only_settings_of(model, copied):
        output = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=copied)
    new: list[list[int]] = output[
        :, 1 if has_encoder else longest :
    ].tolist()  # a decoder's output begins with its start token
    return new


@contextmanager
def _only_settings_of(model: Any, generation: Any) -> Iterator[None]:
    """Keep transformers from filling fields unset in `generation` from the model's own generation_config.

    Many of these have a repetition penalty, BART's for summaries beams and a minimum length: our server uses none of
    it.
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
    """The ids before the first one that ends the answer; the rest is padding."""
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    return next((ids[:place] for place, token in enumerate(ids) if token in stops), ids)
