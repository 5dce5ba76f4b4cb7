"""Estimates the tokens of a text by its length: the tokenizers of closed models are not available, nor needed."""

from finetune_api import asking
from finetune_trainer.data.rows import Row, Turn

TOKENS_PER_MESSAGE = 4
"""Tokens that the chat format adds to a message: its role and two marks."""


def estimated_tokens(row: Row) -> int:
    """Tokens of a row in a provider's file: both answers of a preference pair, and the prompt once."""
    rejected = 0 if row.rejected is None else tokens_of(Turn("assistant", row.rejected))
    return sum(map(tokens_of, row.turns)) + rejected


def longest_tokens(row: Row) -> int:
    """Tokens of a row's longer text: the prompt with either of its answers."""
    return max(sum(map(tokens_of, one.turns)) for one in ((row,) if row.rejected is None else (row, row.swapped)))


def tokens_of(turn: Turn) -> int:
    """Tokens of one message."""
    return asking.tokens_of(turn.content) + TOKENS_PER_MESSAGE
