"""Generation settings of a tuned model, with the tokens that begin and end an answer: for evaluation and artifacts."""

import copy
from typing import Any

from finetune_trainer.data import ChatTokenizer, Position, Row, Turn, encode

_SAMPLING = ("do_sample", "temperature", "top_p", "top_k")
"""Fields of a generation_config that a request can override; our own server reads only these."""


def generation_config(model: Any, tokenizer: Any, chat: ChatTokenizer) -> Any:
    """The config for the artifact: as evaluated, but with the base model's sampling settings.

    The base model's repetition penalty, beams and limits are dropped. The tuned model was not evaluated with them, they
    damage answers that must repeat themselves (JSON, code), and each server honours a different subset of them.
    """
    plain = plain_generation(model, tokenizer, chat)
    config = copy.deepcopy(plain)
    config.update(**{name: getattr(model.generation_config, name, None) for name in _SAMPLING})
    try:
        config.validate(strict=True)
    except ValueError:  # the base model's own settings contradict each other and could not be saved
        return plain
    return config


def plain_generation(model: Any, tokenizer: Any, chat: ChatTokenizer) -> Any:
    """Generation without the base model's preferences: only the tokens that begin and end an answer, and pad."""
    from transformers import GenerationConfig

    base = model.generation_config
    base_ends = [base.eos_token_id] if isinstance(base.eos_token_id, int) else list(base.eos_token_id or [])
    found = [end_of_answer(chat), *base_ends, tokenizer.eos_token_id]
    ends = list(dict.fromkeys(token for token in found if token is not None))
    return GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=base.bos_token_id,
        decoder_start_token_id=chat.decoder_start,
        forced_bos_token_id=getattr(base, "forced_bos_token_id", None),
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=tokenizer.pad_token_id,
    )


def end_of_answer(chat: ChatTokenizer) -> int | None:
    """The token that ended each completion in training, if the template has one."""
    row = Row(Position(), (Turn("user", "a"), Turn("assistant", "b")))
    ids = next(encode([row], chat, 4096)).input_ids
    return ids[-1] if ids[-1] in chat.special_ids else None
