"""A row as a provider's file has it, and why a provider could not take it. Pure; what is wrong never quotes the row.

OpenAI and its kin take any conversation. Bedrock's families are strict: who speaks when, and whether there is a system.
"""

import re
from collections.abc import Callable
from typing import Any

from finetune_trainer.data.rows import Row, Turn

Form = Callable[[Row], dict[str, Any]]
Problem = Callable[[Row], str | None]

BEDROCK_SCHEMA = "bedrock-conversation-2024"

_RESERVED = re.compile(r"\b(System|SYSTEM|User|USER|Bot|BOT|Assistant|ASSISTANT|Thought):|\[EOS\]|<image>|<video>")
"""Nova's chat format is made of these: a row that has them fails the whole job."""


def as_messages(row: Row) -> dict[str, Any]:
    """OpenAI's form: all turns in one list."""
    return {"messages": [_message(turn) for turn in row.turns]}


def as_messages_with_system(row: Row) -> dict[str, Any]:
    """Claude's form on Bedrock: the system text beside the messages."""
    return _with_system(row, "system", lambda turn: turn.content) | {
        "messages": [_message(turn) for turn in spoken(row)]
    }


def as_conversation(row: Row) -> dict[str, Any]:
    """Bedrock's own form, as its Converse API has it: every text in a block."""
    return {
        "schemaVersion": BEDROCK_SCHEMA,
        **_with_system(row, "system", lambda turn: [{"text": turn.content}]),
        "messages": [{"role": turn.role, "content": [{"text": turn.content}]} for turn in spoken(row)],
    }


def as_pair(row: Row) -> dict[str, Any]:
    """One prompt and one completion."""
    return {"prompt": spoken(row)[0].content, "completion": row.completion}


def not_a_conversation(row: Row) -> str | None:
    """Why Bedrock would not take the turns: it begins with the user, and then they take turns."""
    if any(turn.role == "system" for turn in row.turns[1:]):
        return "a system message stands after the first message"
    if [turn.role for turn in spoken(row)] != ["user", "assistant"] * (len(spoken(row)) // 2):
        return "user and assistant do not take turns, beginning with the user"
    return None


def not_a_pair(row: Row) -> str | None:
    """Why the turns are no pair."""
    if row.turns[0].role == "system":
        return "the base model is tuned without system messages"
    return None if len(row.turns) == 2 else "the base model is tuned on one prompt and one completion a row"


def reserved(row: Row) -> str | None:
    """Which message has a word that belongs to the base model's own chat format."""
    found = next((number for number, turn in enumerate(row.turns, 1) if _RESERVED.search(turn.content)), None)
    return f"message {found} has a reserved word, such as User: or [EOS]" if found else None


def spoken(row: Row) -> tuple[Turn, ...]:
    """The turns without the system's."""
    return tuple(turn for turn in row.turns if turn.role != "system")


def _message(turn: Turn) -> dict[str, str]:
    return {"role": turn.role, "content": turn.content}


def _with_system(row: Row, name: str, form: Callable[[Turn], Any]) -> dict[str, Any]:
    return {name: form(row.turns[0])} if row.turns[0].role == "system" else {}
