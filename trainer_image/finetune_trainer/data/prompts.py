"""Prompts and answers: text, or messages in the formats of chat APIs and TRL."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from finetune_api.dataset import Columns
from finetune_trainer.data.rows import Row, Turn
from finetune_trainer.data.turns import (
    PYTHONS_LIST,
    UnusableError,
    called,
    is_blank,
    is_message,
    listed,
    messages_in,
    text,
    with_system,
)


def prompt_turns(fields: Mapping[str, Any], columns: Columns) -> tuple[Turn, ...]:
    """The turns before an answer: from a prompt, a list of messages, or an object with a list in `messages`.

    Raises:
        UnusableError: there are none, or the last one is not the user's.
    """
    column = columns.prompt
    prompt = fields.get(column)
    if prompt is None and fields.get(columns.messages) is not None:
        column = columns.messages
        prompt = fields[column]
    elif isinstance(prompt, dict) and isinstance(prompt.get("messages"), list):
        prompt = prompt["messages"]
    elif is_message(prompt):
        prompt = [prompt]
    if column == columns.messages or are_messages(prompt):
        turns = listed(prompt, "prompt", column)
        if not turns or turns[-1].role != "user":
            raise UnusableError("Malformed", "the last message of the prompt is not the user's", column)
    else:
        turns = (Turn("user", text(prompt, called("prompt", column), column)),)
    return with_system(turns, fields.get(columns.system), columns.system)


def require_contains_prompt(turns: Sequence[Turn], fields: Mapping[str, Any], columns: Columns, whose: str) -> None:
    """Refuse a whole conversation beside a prompt that is not in it: one of them would silently be dropped.

    Raises:
        UnusableError: it is not.
    """
    prompt = fields.get(columns.prompt)
    if is_blank(prompt) or columns.prompt == columns.messages:
        return
    if isinstance(prompt, str):
        is_there = any(turn.role == "user" and turn.content.strip() == prompt.strip() for turn in turns)
    else:
        before = prompt_turns(fields, columns)
        is_there = tuple(turns[: len(before)]) == before
    if not is_there:
        what = f"{whose} is a conversation of its own, and {called('prompt', columns.prompt)} is not in it"
        raise UnusableError("Malformed", what, columns.prompt)


def require_no_other_messages(turns: Sequence[Turn], fields: Mapping[str, Any], columns: Columns, what: str) -> None:
    """Refuse messages beside `what` that are not the same turns, with or without the answer.

    Messages are ignored if the job names the columns of prompts or completions.

    Raises:
        UnusableError: they are not.
    """
    messages = messages_in(fields.get(columns.messages))
    if messages is None or _names_prompts(columns):
        return
    try:
        other = with_system(listed(messages, "messages", columns.messages), fields.get(columns.system), columns.system)
    except UnusableError:
        other = ()
    if other not in (tuple(turns), tuple(turns[:-1])):
        raise UnusableError("Malformed", contradiction(what, columns), columns.messages)


def _names_prompts(columns: Columns) -> bool:
    """Whether the job chose prompts and completions, by naming their columns and not that of messages."""
    default = Columns()
    named = columns.prompt != default.prompt or columns.completion != default.completion
    return named and columns.messages == default.messages


def contradiction(what: str, columns: Columns) -> str:
    """The problem of messages that contradict another part of their row."""
    return f"{called('messages', columns.messages)} says something else than {what}: leave one of the two out"


def are_messages(value: Any) -> bool:
    """Whether it is a list with messages in it, as opposed to a list of content parts."""
    return isinstance(value, list) and any(map(is_message, value))


def is_written_as_text(row: Row) -> bool:
    """Whether a text is a message, or a list of them, written as JSON or by Python's str: a CSV cell has no types."""
    for turn in row.turns:
        if PYTHONS_LIST.match(turn.content):
            return True
        try:
            found = msgspec.json.decode(turn.content)
            if are_messages(found) or is_message(found):
                return True
        except (msgspec.DecodeError, RecursionError):
            continue
    return False
