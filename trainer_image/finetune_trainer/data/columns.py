"""A record's fields → a training row, or what is wrong with it. `spec.dataset.columns` maps the names.

A row has a prompt and a completion, each of them text or a list of messages, or a whole conversation in `messages`
(used if prompt or completion is missing), and an optional system message. Preference pairs are in `pairs.py`, other
names of columns in `layouts.py`. Text is taken unchanged: nothing is trimmed, and other types are not converted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from finetune_api.dataset import Columns
from finetune_api.verdict import ProblemKind, RowProblem
from finetune_trainer.data import conversation_blocks
from finetune_trainer.data.blocks import Block
from finetune_trainer.data.layouts import Layout, Layouts
from finetune_trainer.data.pairs import preference_pair
from finetune_trainer.data.prompts import (
    are_messages,
    contradiction,
    prompt_turns,
    require_contains_prompt,
    require_no_other_messages,
)
from finetune_trainer.data.rows import Position, Record, Row, Rows, Turn
from finetune_trainer.data.turns import (
    UnusableError,
    called,
    conversation,
    is_blank,
    is_message,
    joined_text,
    listed,
    messages_in,
    text,
    unlearnt,
    with_system,
)


class Unusable(NamedTuple):
    """A row that cannot be used, and why. Never quotes the row."""

    position: Position
    kind: ProblemKind
    what: str
    field: str | None = None
    """The column with the problem."""

    def named(self, file_name: str) -> RowProblem:
        """The problem as an entry of the verdict."""
        return RowProblem(
            file=file_name,
            line=self.position.line,
            row_group=self.position.row_group,
            row=self.position.row,
            field=self.field,
            problem=self.kind,
            message=f"{self.position}: {self.what}"[:300],
        )


def to_rows(found: Iterable[Record | Block], layouts: Layouts) -> Iterator[Rows | Row | Unusable]:
    """Every row, in order: single, or many together if all rows of a block are plain."""
    for one in found:
        if isinstance(one, Record):
            yield _row(one, layouts)
        elif (rows := _block_rows(one, layouts)) is not None:
            yield from rows
        else:
            yield from (_row(record, layouts) for record in one.records())


def _block_rows(block: Block, layouts: Layouts) -> Iterable[Rows | Row] | None:
    """The block's rows, if the job trains on single answers and all rows are plain and have the same layout."""
    if layouts.requested.columns.chosen is not None:
        return None
    rows = _plain(block, layouts.requested)
    if rows is not None:
        return rows
    layout = layouts.of(block.names())
    return None if layout is layouts.requested else _plain(block, layout)


def _plain(block: Block, layout: Layout) -> Iterable[Rows | Row] | None:
    """The rows, if each is a conversation and nothing else, or all have a prompt and a completion."""
    columns = layout.columns
    if block.names().isdisjoint((columns.prompt, columns.completion, columns.system)):
        return conversation_blocks.together(block.places, block.column(columns.messages))
    pairs = _plain_pairs(block, layout)
    return None if pairs is None else (pairs,)


def _plain_pairs(block: Block, layout: Layout) -> Rows | None:
    """The rows, if each has a prompt and a completion, and either all or none have a system message."""
    columns, names = layout.columns, block.names()
    prompts, completions = block.column(columns.prompt), block.column(columns.completion)
    asked, answered = joined_text(prompts), joined_text(completions)
    if asked is None or answered is None:
        return None
    if columns.messages in names and any(map(messages_in, block.column(columns.messages))):
        return None
    if layout.below is not None:
        below = block.column(layout.below)
        if not all(one is None or isinstance(one, str) for one in below):
            return None
        prompts = layout.prompts(prompts, below)
        asked = "".join(prompts)
    systems = block.column(columns.system) if columns.system in names else ()
    if systems.count(None) + systems.count("") == len(systems):
        return Rows(block.places, ("user", "assistant"), (prompts, completions), (asked, answered))
    system_texts = joined_text(systems)
    if system_texts is None:
        return None
    contents = systems, prompts, completions
    return Rows(block.places, ("system", "user", "assistant"), contents, (system_texts, asked, answered))


def _row(record: Record, layouts: Layouts) -> Row | Unusable:
    """The row of a record, or the first problem found."""
    if record.fields is None:
        return Unusable(record.position, "Malformed", record.problem or "the row cannot be read")
    layout = layouts.of(record.fields)
    columns = layout.columns
    try:
        fields = layout.fields(record.fields)
        if columns.chosen is not None and columns.rejected is not None:
            return Row(record.position, *preference_pair(fields, columns, columns.chosen, columns.rejected))
        turns, unlearnt_turns = _turns(fields, columns)
        return Row(record.position, turns, unlearnt=unlearnt_turns)
    except UnusableError as error:
        return Unusable(record.position, error.kind, error.what, error.field)


_Turns = tuple[tuple[Turn, ...], tuple[int, ...]]
"""Turns, and the indices of those without loss."""


def _turns(fields: Mapping[str, Any], columns: Columns) -> _Turns:
    if _is_conversation(fields, columns):
        turns, unlearnt_turns = conversation(fields[columns.messages], columns.messages)
        whole = with_system(turns, fields.get(columns.system), columns.system)
        require_contains_prompt(whole, fields, columns, called("messages", columns.messages))
        _require_its_answer(whole, fields, columns)
        return whole, tuple(index + len(whole) - len(turns) for index in unlearnt_turns)
    before = prompt_turns(fields, columns)
    answer, unlearnt_turns = _answer(fields.get(columns.completion), columns.completion)
    require_no_other_messages((*before, *answer), fields, columns, "prompt and completion")
    earlier = (index for index, turn in enumerate(before) if turn.role == "assistant")
    return (*before, *answer), (*earlier, *(index + len(before) for index in unlearnt_turns))


def _is_conversation(fields: Mapping[str, Any], columns: Columns) -> bool:
    """Whether the whole row is in its messages: it has them, and either no prompt or no completion."""
    messages = fields.get(columns.messages)
    if fields.get(columns.prompt) is None:
        return messages is not None or (columns.messages in fields and columns.prompt not in fields)
    return bool(messages) and fields.get(columns.completion) is None


def _require_its_answer(turns: Sequence[Turn], fields: Mapping[str, Any], columns: Columns) -> None:
    """Refuse a completion that is not the conversation's last turn: one of them would silently be dropped."""
    completion = fields.get(columns.completion)
    if not is_blank(completion) and _answer(completion, columns.completion)[0][-1] != turns[-1]:
        raise UnusableError(
            "Malformed", contradiction(called("completion", columns.completion), columns), columns.completion
        )


def _answer(completion: Any, column: str) -> _Turns:
    """The part that carries loss: text, or messages that start and end with the assistant's."""
    if is_message(completion):
        completion = [completion]
    if not are_messages(completion):
        return (Turn("assistant", text(completion, called("completion", column), column)),), ()
    turns = listed(completion, "completion", column)
    if not turns or turns[0].role != "assistant" or turns[-1].role != "assistant":
        raise UnusableError("NoCompletion", f"{called('completion', column)} is not the assistant's", column)
    return turns, unlearnt(completion, column)
