"""What is asked, and what is answered: text, or messages as chat APIs and TRL have them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from finetune_api.job import Columns
from finetune_trainer.data.rows import Row, Turn
from finetune_trainer.data.turns import UnusableError, after_system, called, is_message, listed, text


def asked(fields: Mapping[str, Any], columns: Columns) -> tuple[Turn, ...]:
    """The turns that an answer is given to: a prompt, a list of messages, or an object that has it in `messages`.

    Raises:
        UnusableError: there are none, or the user is not the last to speak.
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
    return after_system(turns, fields.get(columns.system), columns.system)


def are_messages(value: Any) -> bool:
    """Whether it is a list with messages in it, and not one of parts of a text."""
    return isinstance(value, list) and any(map(is_message, value))


def written_out(row: Row) -> bool:
    """Whether a turn's text is a list of messages in JSON: a table of text cannot say whether that was meant."""
    for turn in row.turns:
        try:
            if are_messages(msgspec.json.decode(turn.content)):
                return True
        except (msgspec.DecodeError, RecursionError):
            continue
    return False
