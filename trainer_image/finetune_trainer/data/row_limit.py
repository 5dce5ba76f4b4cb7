"""Maximum length of rows: `maxSequenceLength`, or by default the model's number of positions if that is smaller.

The default exceeds what some models have (BlenderBot 128, many Pegasus models 512). The API server fills it in, so an
explicit value equal to the default looks the same as none; any other value is the user's choice and is kept.
"""

from collections.abc import Mapping
from typing import Any

from finetune_api.job import Hyperparameters

_GPT_TYPES = frozenset({"codegen", "gpt2", "gpt_bigcode", "gptj"})
_OTHER_TYPES = frozenset({"bart", "biogpt", "blenderbot", "gpt_neo", "mvp", "opt", "pegasus"})
TABLES = dict.fromkeys(_GPT_TYPES, "n_positions") | dict.fromkeys(_OTHER_TYPES, "max_position_embeddings")
"""Model types with a table of learned positions, and its config field. Other models compute their positions."""

_MAX_FACTOR = 4096
_MAX_POSITIONS = 1 << 31
"""Larger values are treated as a broken config."""


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Size of the model's table of positions; None if it has none or its config.json does not say."""
    positions = config.get(TABLES.get(str(config.get("model_type")), ""))
    return positions if isinstance(positions, int) and positions > 0 else None


def context_length(config: Mapping[str, Any]) -> int | None:
    """Context length of a model with computed positions, from its config.json.

    RoPE scaling extends it: a factor of the original length, or of the given one if the original is not named.
    """
    inner = config.get("text_config")
    own = inner if isinstance(inner, Mapping) else config
    positions = own.get("max_position_embeddings")
    if own.get("model_type") in TABLES or not isinstance(positions, int) or positions <= 0:
        return None
    rope = own.get("rope_parameters") or own.get("rope_scaling")
    ropes = [rope, *rope.values()] if isinstance(rope, Mapping) else []
    return max([positions, *(_stretched(one, positions) for one in ropes if isinstance(one, Mapping))])


def _stretched(rope: Mapping[str, Any], positions: int) -> int:
    factor, first = rope.get("factor"), rope.get("original_max_position_embeddings", positions)
    if not isinstance(factor, int | float) or not isinstance(first, int):
        return positions
    return int(first * factor) if 1 <= factor <= _MAX_FACTOR and first <= _MAX_POSITIONS else positions


def beyond_context(longest: int, limit: int, known: int | None) -> str | None:
    """A warning if the model is trained on positions beyond its context length.

    `longest` is the longest row before truncation to `limit`, `known` the result of `context_length`.
    """
    if known is None or min(longest, limit) <= known:
        return None
    return (
        f"the longest row has {min(longest, limit):,} tokens, and the base model was made for {known:,} (its "
        "max_position_embeddings): it may learn little beyond them, and servers take no such prompts"
    )


def row_limit(hyper: Hyperparameters, positions: int | None) -> int:
    """Maximum tokens of a row; for an encoder-decoder of the prompt and of the answer each."""
    length = hyper.max_sequence_length
    return length if positions is None or hyper.is_set("max_sequence_length") else min(length, positions)


def limit_in_words(hyper: Hyperparameters, positions: int | None) -> str:
    """The limit in words, to end a sentence."""
    limit = row_limit(hyper, positions)
    if limit < hyper.max_sequence_length:
        return f"the {limit:,} tokens that the base model has positions for"
    return f"maxSequenceLength {limit:,}"


def room_step(hyper: Hyperparameters, positions: int | None) -> str:
    """The next step if a row's answer lies beyond the limit."""
    if row_limit(hyper, positions) < hyper.max_sequence_length:
        return "Shorten the prompts, or name a base model with more positions."
    return "Raise hyperparameters.maxSequenceLength, or shorten the prompts."
