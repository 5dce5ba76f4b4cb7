"""A record's fields → a row that can be learnt from, or what is wrong with it. `spec.dataset.columns` maps the names.

A row has prompt, completion and an optional system message, or a whole conversation in `messages` (used where the row
has no prompt). Text is taken as it is: nothing is trimmed, and nothing but text is taken for text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from finetune_api.job import Columns
from finetune_api.verdict import ProblemKind, RowProblem
from finetune_trainer.data.blocks import Block
from finetune_trainer.data.rows import ROLES, Position, Record, Row, Rows, Turn

MESSAGES_LIMIT = 256
"""Most messages of one conversation: each answer in it is tokenised with all that comes before."""

_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    Decimal: "a number",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
    datetime: "a time",
    date: "a date",
}
_VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\xa0\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""Text has something in it where one character is neither white space, nor a control, nor of no width."""


class Unusable(NamedTuple):
    """A row that cannot be used, and why. Never quotes the row."""

    position: Position
    kind: ProblemKind
    what: str
    field: str | None = None
    """Column that has the problem."""

    def named(self, file_name: str) -> RowProblem:
        """As the verdict names it."""
        return RowProblem(
            file=file_name,
            line=self.position.line,
            row_group=self.position.row_group,
            row=self.position.row,
            field=self.field,
            problem=self.kind,
            message=f"{self.position}: {self.what}"[:300],
        )


class _UnusableError(Exception):
    def __init__(self, kind: ProblemKind, what: str, field: str) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.field = field


def to_rows(found: Iterable[Record | Block], columns: Columns) -> Iterator[Rows | Row | Unusable]:
    """Every row, in order: by itself, or many together where all of a block are plain prompts and completions."""
    for one in found:
        if isinstance(one, Record):
            yield to_row(one, columns)
        elif (rows := _plain(one, columns)) is not None:
            yield rows
        else:
            yield from (to_row(record, columns) for record in one.records())


def _plain(block: Block, columns: Columns) -> Rows | None:
    """The rows, where each has a prompt and a completion, and all or none a system message."""
    prompts, completions = block.column(columns.prompt), block.column(columns.completion)
    systems = block.column(columns.system)
    if not _are_text(prompts) or not _are_text(completions):
        return None
    if systems.count(None) + systems.count("") == len(systems):
        return Rows(block.places, ("user", "assistant"), (prompts, completions))
    if _are_text(systems):
        return Rows(block.places, ("system", "user", "assistant"), (systems, prompts, completions))
    return None


def _are_text(values: Sequence[Any]) -> bool:
    """Whether each is text with something in it."""
    try:
        if min(values) >= "!" and max(values) <= "~~":  # all begin with a letter, digit or mark of ASCII: soon told
            return True
        return None not in map(_VISIBLE.search, values)
    except TypeError:
        return False


def to_row(record: Record, columns: Columns) -> Row | Unusable:
    """The row that a record holds, or the first thing that is wrong with it."""
    if record.fields is None:
        return Unusable(record.position, "Malformed", record.problem or "the row cannot be read")
    try:
        return Row(record.position, _turns(record.fields, columns))
    except _UnusableError as error:
        return Unusable(record.position, error.kind, error.what, error.field)


def _turns(fields: Mapping[str, Any], columns: Columns) -> tuple[Turn, ...]:
    if columns.messages in fields and fields.get(columns.prompt) is None:
        messages = fields[columns.messages]
        if messages is not None or columns.prompt not in fields:
            return _conversation(messages, columns.messages)
    prompt = Turn("user", _text(fields.get(columns.prompt), _called("prompt", columns.prompt), columns.prompt))
    called = _called("completion", columns.completion)
    completion = Turn("assistant", _text(fields.get(columns.completion), called, columns.completion))
    system = fields.get(columns.system)
    if _is_blank(system):
        return (prompt, completion)
    system = _text(system, _called("system", columns.system), columns.system)
    return (Turn("system", system), prompt, completion)


def _text(value: Any, what: str, column: str) -> str:
    """The value, where it is text with something in it; `what` is what messages call it."""
    if value is None:
        raise _UnusableError("Missing", f"{what} is missing", column)
    if not isinstance(value, str):
        kind = _KINDS.get(type(value), "of another type")
        raise _UnusableError("NotText", f"{what} is {kind}, not text", column)
    if _is_blank(value):
        raise _UnusableError("Empty", f"{what} is empty", column)
    return value


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and _VISIBLE.search(value) is None)


def _called(what: str, column: str) -> str:
    return what if what == column else f"{what} (column {column})"


def _conversation(messages: Any, column: str) -> tuple[Turn, ...]:
    if messages is None:
        raise _UnusableError("Missing", f"{_called('messages', column)} is missing", column)
    if not isinstance(messages, list):
        raise _UnusableError("Malformed", f"{_called('messages', column)} is no list of messages", column)
    if not messages:
        raise _UnusableError("Empty", f"{_called('messages', column)} is empty", column)
    if len(messages) > MESSAGES_LIMIT:
        raise _UnusableError("Malformed", f"more than {MESSAGES_LIMIT} messages in one row", column)
    turns = tuple(turn for index, message in enumerate(messages, 1) if (turn := _turn(message, index, column)))
    _ends_with_answer(turns, column)
    return turns


def _turn(message: Any, index: int, column: str) -> Turn | None:
    """One message; None for a system message without text."""
    if not isinstance(message, dict):
        raise _UnusableError("Malformed", f"message {index} is no object with role and content", column)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise _UnusableError("Malformed", f"message {index} has a role other than {', '.join(ROLES)}", column)
    if role == "system" and _is_blank(content):
        return None
    return Turn(role, _text(content, f"content of message {index}", column))


def _ends_with_answer(turns: Sequence[Turn], column: str) -> None:
    if not turns or turns[-1].role != "assistant":
        raise _UnusableError("NoCompletion", "the last message is not the assistant's: nothing to learn", column)
    if all(turn.role != "user" for turn in turns):
        raise _UnusableError("Missing", "no message of the user before the answer", column)
