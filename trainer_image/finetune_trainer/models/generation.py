"""How a tuned model generates: which tokens begin and end an answer. Measuring goes by it, and artifacts hand it on."""

import copy
from typing import Any

from finetune_trainer.data import ChatTokenizer, Position, Row, Turn, encode

_SAMPLING = ("do_sample", "temperature", "top_p", "top_k")
"""Of a generation_config, what a request can ask for otherwise; all that our own server reads of it, too."""


def generation_config(model: Any, tokenizer: Any, chat: ChatTokenizer) -> Any:
    """How to generate: as the model was measured, and with the base model's own temperature where one is asked for.

    A repetition penalty, beams or limits of the base are not handed on. Nobody measured the tuned model with them, they
    spoil answers that have to repeat (JSON, code), and of the servers that read this file each heeds others of them.
    """
    plain = plain_generation(model, tokenizer, chat)
    config = copy.deepcopy(plain)
    config.update(**{name: getattr(model.generation_config, name, None) for name in _SAMPLING})
    try:
        config.validate(strict=True)
    except ValueError:  # the base model's own settings contradict each other; saving would refuse them
        return plain
    return config


def plain_generation(model: Any, tokenizer: Any, chat: ChatTokenizer) -> Any:
    """Generation without the base model's taste: which tokens begin and end an answer, and which one pads."""
    from transformers import GenerationConfig

    base = model.generation_config
    given = [base.eos_token_id] if isinstance(base.eos_token_id, int) else list(base.eos_token_id or [])
    found = [end_of_answer(chat), *given, tokenizer.eos_token_id]
    ends = list(dict.fromkeys(token for token in found if token is not None))
    return GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=base.bos_token_id,
        decoder_start_token_id=chat.decoder_start,
        forced_bos_token_id=getattr(base, "forced_bos_token_id", None),
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=tokenizer.pad_token_id,
    )


def end_of_answer(chat: ChatTokenizer) -> int | None:
    """The token that ended each completion in training, where the template has one."""
    row = Row(Position(), (Turn("user", "a"), Turn("assistant", "b")))
    ids = next(encode([row], chat, 4096)).input_ids
    return ids[-1] if ids[-1] in chat.special_ids else None
