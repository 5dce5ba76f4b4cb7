"""A row in a provider's file format, and why a provider could not accept it. Pure; problems never quote the row.

OpenAI and compatible services accept any conversation, but preference pairs only for a single question. Bedrock's model
families are strict about the order of roles and about system messages.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from finetune_trainer.data.provider.token_estimate import longest_tokens
from finetune_trainer.data.rows import Row, Turn

Form = Callable[[Row], dict[str, Any]]
Problem = Callable[[Row], str | None]

BEDROCK_SCHEMA = "bedrock-conversation-2024"

_RESERVED = re.compile(r"\b(System|SYSTEM|User|USER|Bot|BOT|Assistant|ASSISTANT|Thought):|\[EOS\]|<image>|<video>")
"""Nova's chat format uses these; a row that contains one fails the whole job."""


def as_messages(row: Row) -> dict[str, Any]:
    """OpenAI's format: all turns in one list, with a weight of 0 for answers without loss."""
    messages: list[dict[str, Any]] = [*_messages(row.turns)]
    for index in row.unlearnt:
        messages[index]["weight"] = 0
    return {"messages": messages}


def as_preference(row: Row) -> dict[str, Any]:
    """OpenAI's format of a preference pair."""
    return {
        "input": {"messages": _messages(row.prompt)},
        "preferred_output": _messages(row.turns[-1:]),
        "non_preferred_output": _messages(row.swapped.turns[-1:]),
    }


def as_two_answers(row: Row) -> dict[str, Any]:
    """Our own trainer's format of a preference pair. A prompt that does not end with the user is in both answers."""
    if row.prompt[-1].role == "user":
        return {"messages": _messages(row.prompt), "chosen": row.completion, "rejected": row.rejected}
    return {"chosen": _messages(row.turns), "rejected": _messages(row.swapped.turns)}


def as_messages_with_system(row: Row) -> dict[str, Any]:
    """Claude's format on Bedrock: the system text next to the messages."""
    return _system(row, lambda turn: turn.content) | {"messages": _messages(without_system(row))}


def as_conversation(row: Row) -> dict[str, Any]:
    """Bedrock's own format, as in its Converse API: every text in a content block."""
    return {
        "schemaVersion": BEDROCK_SCHEMA,
        **_system(row, lambda turn: [{"text": turn.content}]),
        "messages": [{"role": turn.role, "content": [{"text": turn.content}]} for turn in without_system(row)],
    }


def as_pair(row: Row) -> dict[str, Any]:
    """One prompt and one completion."""
    return {"prompt": without_system(row)[0].content, "completion": row.completion}


def not_one_question(row: Row) -> str | None:
    """Why OpenAI would not accept the pair's prompt."""
    if [turn.role for turn in row.prompt] in (["user"], ["system", "user"]):
        return None
    return "the prompt has several turns, and pairs are learnt from one question each, after an optional system message"


def longer_than(limit: int) -> Problem:
    """Finds rows that a provider would truncate: neither answer of a preference pair may lose its end."""

    def problem(row: Row) -> str | None:
        tokens = longest_tokens(row)
        return f"about {tokens:,} tokens: an answer is cut beyond {limit:,} of them" if tokens > limit else None

    return problem


def not_a_conversation(row: Row) -> str | None:
    """Why Bedrock would not accept the turns: user and assistant must alternate, starting with the user."""
    if any(turn.role == "system" for turn in row.turns[1:]):
        return "there is a system message after the first message"
    if [turn.role for turn in without_system(row)] != ["user", "assistant"] * (len(without_system(row)) // 2):
        return "user and assistant do not take turns, beginning with the user"
    return None


def has_unlearnt_answers(row: Row) -> str | None:
    """Why Bedrock would train on more than it should: it trains on every answer of a conversation."""
    return "an answer before the last is not to be learnt, and every answer would be" if row.unlearnt else None


def not_a_pair(row: Row) -> str | None:
    """Why the turns are not a pair."""
    if row.turns[0].role == "system":
        return "the base model is tuned without system messages"
    return None if len(row.turns) == 2 else "the base model is tuned on one prompt and one completion a row"


def reserved(row: Row) -> str | None:
    """Which message contains a word of the base model's own chat format."""
    found = next((number for number, turn in enumerate(row.turns, 1) if _RESERVED.search(turn.content)), None)
    return f"message {found} has a reserved word, such as User: or [EOS]" if found else None


def without_system(row: Row) -> tuple[Turn, ...]:
    """The turns without the system message."""
    return tuple(turn for turn in row.turns if turn.role != "system")


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _system(row: Row, form: Callable[[Turn], Any]) -> dict[str, Any]:
    return {"system": form(row.turns[0])} if row.turns[0].role == "system" else {}
