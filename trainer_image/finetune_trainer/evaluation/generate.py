"""Greedy answers of a model in batches, causal or encoder-decoder. It knows token ids only."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.computing import gpus
from finetune_trainer.errors import TrainerError, is_short_of_device_memory
from finetune_trainer.training.batches import forward_passes

_PROBE, _PADDING = 12, 5
"""Tokens that are tried, and padding before them."""

_NEAR, _NEAR_IN_16_BITS = 1e-3, 5e-2
"""Parts of the logits by which rounding may move them."""

SMALLER = "Use shorter questions, a smaller evaluation.maxNewTokens or a larger GPU."
"""What helps where a model is too large to be asked."""


def generated(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    generation: Any,
    max_new_tokens: int,
    token_budget: int,
    on_shortage: Callable[[int], None] = lambda _budget: None,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Batch by batch: places in `prompts` and the new tokens after them, without those that end an answer.

    `generation` is a GenerationConfig that says which tokens end an answer. A batch holds at most `token_budget` tokens
    with padding; which prompts share one does not change what is answered. Where a GPU's memory is not enough for one,
    batches are halved from there on, and `on_shortage` is told the new budget.

    Raises:
        TrainerError: OutOfMemory, it was not enough for a question alone.
    """
    from finetune_trainer.computing.attention import turn_of  # needs torch

    model.eval()
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    left, turn = dict.fromkeys(range(len(prompts))), 0 if minds_padding(model) else turn_of(model)
    while left:
        for group in _groups(left, lengths, token_budget, turn):
            new = _tried(model, [prompts[place] for place in group], generation, max_new_tokens)
            if new is None:
                token_budget = _smaller(group, lengths)
                on_shortage(token_budget)
                break
            yield [(place, _until_end(ids, generation.eos_token_id)) for place, ids in zip(group, new, strict=True)]
            for place in group:
                del left[place]


def _groups(places: Iterable[int], lengths: Sequence[int], budget: int, turn: int | None) -> Iterator[list[int]]:
    """Places of prompts that go together; beyond `turn` only those of one length, as padding would change an answer."""
    of_length: dict[int, list[int]] = {}
    for place in places:
        of_length.setdefault(lengths[place] if turn is not None and lengths[place] > turn else 0, []).append(place)
    for _, alike in sorted(of_length.items(), reverse=True):
        for group in forward_passes([lengths[place] for place in alike], token_budget=budget):
            yield [alike[place] for place in group]


def _tried(model: Any, prompts: list[Sequence[int]], generation: Any, limit: int) -> list[list[int]] | None:
    """New tokens, or None where memory was short: what failed is only freed when the exception is gone."""
    try:
        return _new_tokens(model, prompts, generation, limit)
    except RuntimeError as error:
        if not is_short_of_device_memory(error):
            raise
        return None


def _smaller(group: list[int], lengths: Sequence[int]) -> int:
    """The tokens of half of a batch for which memory was not enough; what it took is freed."""
    gpus.give_back()
    longest = max(lengths[place] for place in group)
    if len(group) == 1:
        message = f"the GPU's memory was not enough for one question and its answer, up to {longest} tokens"
        raise TrainerError(Reason.OUT_OF_MEMORY, message, SMALLER)
    return len(group) * longest // 2


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
