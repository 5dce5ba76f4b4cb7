"""Rows with two answers to one prompt, a better and a worse one, in the layouts that preference data come in.

    prompt                       chosen, rejected
    text (and system)            text, or a list with the assistant's message
    a list of messages           the same; the list may be in `messages`, or in an object that has it there
    none                         two whole conversations that differ in their last message

Whatever came before the last message is the prompt of both.
"""

from collections.abc import Mapping
from typing import Any

from finetune_api.job import Columns
from finetune_trainer.data.rows import Turn
from finetune_trainer.data.turns import UnusableError, called, is_blank, listed, require_answer, text


def two_answers(
    fields: Mapping[str, Any], columns: Columns, chosen_column: str, rejected_column: str
) -> tuple[tuple[Turn, ...], str]:
    """The conversation with the better answer at its end, and the worse answer.

    Raises:
        UnusableError: the first thing that is wrong.
    """
    chosen = _answered(fields, columns, "chosen", chosen_column)
    rejected = _answered(fields, columns, "rejected", rejected_column)
    if chosen[:-1] != rejected[:-1]:
        raise UnusableError(
            "Malformed", "chosen and rejected differ before their last message: they answer no common prompt",
            rejected_column,
        )  # fmt: skip
    if chosen == rejected:
        raise UnusableError("SameAnswers", "chosen and rejected are the same: nothing to learn", rejected_column)
    return chosen, rejected[-1].content


def _answered(fields: Mapping[str, Any], columns: Columns, part: str, column: str) -> tuple[Turn, ...]:
    """The conversation that ends in one of the two answers."""
    answer = fields.get(column)
    if not isinstance(answer, list):
        return (*_asked(fields, columns), Turn("assistant", text(answer, called(part, column), column)))
    turns = listed(answer, part, column)
    if len(turns) == 1 and turns[0].role == "assistant":
        turns = (*_asked(fields, columns), *turns)
    require_answer(turns, column)
    return turns


def _asked(fields: Mapping[str, Any], columns: Columns) -> tuple[Turn, ...]:
    """What both answers are given to."""
    column = columns.prompt
    prompt = fields.get(column)
    if prompt is None and fields.get(columns.messages) is not None:
        column = columns.messages
        prompt = fields[column]
    elif isinstance(prompt, dict) and isinstance(prompt.get("messages"), list):
        prompt = prompt["messages"]
    if isinstance(prompt, list) or column == columns.messages:
        turns = listed(prompt, "prompt", column)
        if not turns or turns[-1].role != "user":
            raise UnusableError("Malformed", "the last message of the prompt is not the user's", column)
        return turns
    user = Turn("user", text(prompt, called("prompt", column), column))
    system = fields.get(columns.system)
    if is_blank(system):
        return (user,)
    return (Turn("system", text(system, called("system", columns.system), columns.system)), user)
