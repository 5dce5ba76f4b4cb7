"""How long rows may be: as `maxSequenceLength` says, or as many tokens as the model has positions for by default.

The default is more than some models have (BlenderBot 128, many a Pegasus 512). The API server fills it in, so it is the
same whether somebody wrote it or not; any other number is what somebody wants, and no less than that.
"""

from collections.abc import Mapping
from typing import Any

from finetune_api.job import Hyperparameters

_GPTS = frozenset({"codegen", "gpt2", "gpt_bigcode", "gptj"})
_OTHERS = frozenset({"bart", "biogpt", "blenderbot", "gpt_neo", "mvp", "opt", "pegasus"})
TABLES = dict.fromkeys(_GPTS, "n_positions") | dict.fromkeys(_OTHERS, "max_position_embeddings")
"""Kinds of models that have a table of positions, and the field with its length. Others compute what they need."""

_MOST_STRETCHED = 4096
_MOST_TOKENS = 1 << 31
"""What is beyond these is no length and no factor, but a broken file."""


def positions_of(config: Mapping[str, Any]) -> int | None:
    """How many tokens a model has positions for, where its config.json says so of a table."""
    said = config.get(TABLES.get(str(config.get("model_type")), ""))
    return said if isinstance(said, int) and said > 0 else None


def made_for(config: Mapping[str, Any]) -> int | None:
    """Most tokens that a model which computes its positions was made for, as its config.json says.

    Rotary positions may be stretched: by a factor of what was learnt first, or where that is not named, of what is.
    """
    inner = config.get("text_config")
    own = inner if isinstance(inner, Mapping) else config
    said = own.get("max_position_embeddings")
    if own.get("model_type") in TABLES or not isinstance(said, int) or said <= 0:
        return None
    rope = own.get("rope_parameters") or own.get("rope_scaling")
    of_layers = [rope, *rope.values()] if isinstance(rope, Mapping) else []
    return max([said, *(_stretched(one, said) for one in of_layers if isinstance(one, Mapping))])


def _stretched(rope: Mapping[str, Any], said: int) -> int:
    factor, first = rope.get("factor"), rope.get("original_max_position_embeddings", said)
    if not isinstance(factor, int | float) or not isinstance(first, int):
        return said
    return int(first * factor) if 1 <= factor <= _MOST_STRETCHED and first <= _MOST_TOKENS else said


def beyond(longest: int, limit: int, known: int | None) -> str | None:
    """What is said where rows are learnt from behind the tokens that a model was made for.

    `longest` is from before rows are cut at `limit`, and `known` as `made_for` says.
    """
    if known is None or min(longest, limit) <= known:
        return None
    return (
        f"the longest row has {min(longest, limit):,} tokens, and the base model was made for {known:,} (its "
        "max_position_embeddings): it may learn little beyond them, and servers take no such prompts"
    )


def row_limit(hyper: Hyperparameters, positions: int | None) -> int:
    """Most tokens of a row; of an encoder-decoder's prompt and answer each."""
    length = hyper.max_sequence_length
    return length if positions is None or hyper.asks_for("max_sequence_length") else min(length, positions)


def in_words(hyper: Hyperparameters, positions: int | None) -> str:
    """What rows are held to, as the end of a sentence."""
    limit = row_limit(hyper, positions)
    if limit < hyper.max_sequence_length:
        return f"the {limit:,} tokens that the base model has positions for"
    return f"maxSequenceLength {limit:,}"


def more_room(hyper: Hyperparameters, positions: int | None) -> str:
    """What to do where a row's answer lies behind the limit."""
    if row_limit(hyper, positions) < hyper.max_sequence_length:
        return "Shorten the prompts, or name a base model with more positions."
    return "Raise hyperparameters.maxSequenceLength, or shorten the prompts."
