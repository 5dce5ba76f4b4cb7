"""A record's fields → a row that can be learnt from, or what is wrong with it. `spec.dataset.columns` maps the names.

A row has prompt and completion, or a whole conversation in `messages` (used where the row has no prompt), and an
optional system message. Rows with two answers are in `pairs.py`. Text is taken as it is: nothing is trimmed, and
nothing but text is taken for text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from finetune_api.job import Columns
from finetune_api.verdict import ProblemKind, RowProblem
from finetune_trainer.data.blocks import Block
from finetune_trainer.data.pairs import two_answers
from finetune_trainer.data.rows import Position, Record, Row, Rows, Turn
from finetune_trainer.data.turns import VISIBLE, UnusableError, after_system, called, conversation, text


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


def to_rows(found: Iterable[Record | Block], columns: Columns) -> Iterator[Rows | Row | Unusable]:
    """Every row, in order: by itself, or many together where all of a block are plain prompts and completions."""
    for one in found:
        if isinstance(one, Record):
            yield to_row(one, columns)
        elif columns.chosen is None and (rows := _plain(one, columns)) is not None:
            yield rows
        else:
            yield from (to_row(record, columns) for record in one.records())


def _plain(block: Block, columns: Columns) -> Rows | None:
    """The rows, where each has a prompt and a completion, and all or none a system message."""
    prompts, completions = block.column(columns.prompt), block.column(columns.completion)
    systems = block.column(columns.system)
    if not _are_text(prompts) or not _are_text(completions):
        return None
    absent = systems.count(None)
    if absent == len(systems) or absent + systems.count("") == len(systems):
        return Rows(block.places, ("user", "assistant"), (prompts, completions))
    if _are_text(systems):
        return Rows(block.places, ("system", "user", "assistant"), (systems, prompts, completions))
    return None


def _are_text(values: Sequence[Any]) -> bool:
    """Whether each is text with something in it: with the first look or two that is soon told of most."""
    try:
        return (
            _begin_in_ascii(values)
            or _begin_in_ascii(list(map(str.lstrip, values)))
            or None not in map(VISIBLE.search, values)
        )
    except TypeError:
        return False


def _begin_in_ascii(texts: Sequence[str]) -> bool:
    """Whether each begins with a letter, digit or mark of ASCII."""
    return min(texts) >= "!" and max(texts) <= "~~"


def to_row(record: Record, columns: Columns) -> Row | Unusable:
    """The row that a record holds, or the first thing that is wrong with it."""
    if record.fields is None:
        return Unusable(record.position, "Malformed", record.problem or "the row cannot be read")
    try:
        if columns.chosen is not None and columns.rejected is not None:
            return Row(record.position, *two_answers(record.fields, columns, columns.chosen, columns.rejected))
        return Row(record.position, _turns(record.fields, columns))
    except UnusableError as error:
        return Unusable(record.position, error.kind, error.what, error.field)


def _turns(fields: Mapping[str, Any], columns: Columns) -> tuple[Turn, ...]:
    if columns.messages in fields and fields.get(columns.prompt) is None:
        messages = fields[columns.messages]
        if messages is not None or columns.prompt not in fields:
            turns = conversation(messages, columns.messages)
            return after_system(turns, fields.get(columns.system), columns.system)
    prompt = Turn("user", text(fields.get(columns.prompt), called("prompt", columns.prompt), columns.prompt))
    what = called("completion", columns.completion)
    completion = Turn("assistant", text(fields.get(columns.completion), what, columns.completion))
    return after_system((prompt, completion), fields.get(columns.system), columns.system)
