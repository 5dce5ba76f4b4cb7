"""Preference pairs, a chosen and a rejected answer to one prompt, in the layouts that such data comes in.

    prompt                       chosen, rejected
    text                         text, or the assistant's messages: a list, or a single one
    a list of messages           the same; the list may be in `messages`, or in an object with a field `messages`
    none                         two whole conversations that differ in their last message

Everything before the last message is the common prompt. A system message from its own column comes first in any layout.
A prompt column beside whole conversations must match them.
"""

from collections.abc import Mapping
from typing import Any

from finetune_api.dataset import Columns
from finetune_trainer.data.prompts import are_messages, prompt_turns, require_contains_prompt, require_no_other_messages
from finetune_trainer.data.rows import Turn
from finetune_trainer.data.turns import (
    UnusableError,
    called,
    is_message,
    listed,
    require_answer,
    text,
    with_system,
)


def preference_pair(
    fields: Mapping[str, Any], columns: Columns, chosen_column: str, rejected_column: str
) -> tuple[tuple[Turn, ...], str]:
    """The conversation ending with the chosen answer, and the rejected answer.

    Raises:
        UnusableError: the first problem found.
    """
    chosen = _conversation(fields, columns, "chosen", chosen_column)
    rejected = _conversation(fields, columns, "rejected", rejected_column)
    if chosen[:-1] != rejected[:-1]:
        raise UnusableError(
            "Malformed", "chosen and rejected differ before their last message: they answer no common prompt",
            rejected_column,
        )  # fmt: skip
    if chosen == rejected:
        raise UnusableError("SameAnswers", "chosen and rejected are the same: nothing to learn", rejected_column)
    require_no_other_messages(chosen, fields, columns, f"prompt and {called('chosen', chosen_column)}")
    return chosen, rejected[-1].content


def _conversation(fields: Mapping[str, Any], columns: Columns, part: str, column: str) -> tuple[Turn, ...]:
    """The conversation that ends in one of the two answers."""
    answer = fields.get(column)
    if is_message(answer):
        answer = [answer]
    if not are_messages(answer):
        return (*prompt_turns(fields, columns), Turn("assistant", text(answer, called(part, column), column)))
    turns = listed(answer, part, column)
    if all(turn.role == "assistant" for turn in turns):
        turns = (*prompt_turns(fields, columns), *turns)
        require_answer(turns, column)
        return turns
    require_answer(turns, column)
    turns = with_system(turns, fields.get(columns.system), columns.system)
    require_contains_prompt(turns, fields, columns, called(part, column))
    return turns
