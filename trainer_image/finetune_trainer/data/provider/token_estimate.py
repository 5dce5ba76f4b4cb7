"""How many tokens a text is likely to be, by its length: no tokenizer of a closed model is needed, nor at hand."""

from finetune_api import asking
from finetune_trainer.data.rows import Row, Turn

TOKENS_PER_MESSAGE = 4
"""What the chat format adds to a message: its role and its two marks."""


def estimated_tokens(row: Row) -> int:
    """Tokens of a row as a provider's file has it: of two answers to a prompt both, and the prompt once."""
    rejected = 0 if row.rejected is None else tokens_of(Turn("assistant", row.rejected))
    return sum(map(tokens_of, row.turns)) + rejected


def longest_tokens(row: Row) -> int:
    """Tokens of the longer one of the texts that a row is: the prompt with either of its answers."""
    return max(sum(map(tokens_of, one.turns)) for one in ((row,) if row.rejected is None else (row, row.swapped)))


def tokens_of(turn: Turn) -> int:
    """Tokens of one message."""
    return asking.tokens_of(turn.content) + TOKENS_PER_MESSAGE
