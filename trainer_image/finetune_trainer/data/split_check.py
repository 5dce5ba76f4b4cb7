"""Checks one split of a job's dataset: reads each row once, then reports what is wrong and what to do about it.

`verdict` combines the splits into the verdict on the dataset.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from finetune_api.dataset import Columns, DataFile
from finetune_api.job import FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_api.verdict import NAMED_PROBLEMS, SplitName, SplitVerdict
from finetune_api.words import counted
from finetune_trainer.data.columns import Unusable, to_rows
from finetune_trainer.data.counting import count
from finetune_trainer.data.encode import Tally
from finetune_trainer.data.files.csv_rows import EmptyRows
from finetune_trainer.data.fixes import column_names, conversations, exports, nested, split_turns
from finetune_trainer.data.fixes.chat_markup import MarkupColumn, markup_column
from finetune_trainer.data.fixes.invalid_rows import REFUSED_BY_TEMPLATE, step_for_problems
from finetune_trainer.data.fixes.jq import with_preparation
from finetune_trainer.data.layouts import Layouts
from finetune_trainer.data.read import SplitFile
from finetune_trainer.data.row_limit import limit_in_words, room_step
from finetune_trainer.data.row_warnings import (
    EveryRowWarning,
    RowWarning,
    TruncationWarning,
    every_row_warnings,
    first_row_warnings,
    text_warnings,
    with_no_value_below,
    with_special_tokens,
)
from finetune_trainer.data.rows import Row, Rows
from finetune_trainer.data.tokenizer.chat_tokenizer import ChatTokenizer
from finetune_trainer.data.turns import NEVER_ANSWERED
from finetune_trainer.errors import TrainerError

if TYPE_CHECKING:
    from finetune_trainer.data.fingerprints import Contradiction, Fingerprints

_PART = re.compile(r"-(\d{5})-of-(?!00001)(\d{5})\b")
"""How the datasets library names the files of a split that it writes in several parts."""

_LESS_MEMORY = (
    "Give it more memory. A Parquet file takes less with smaller row groups: "
    '`python3 -c \'from pyarrow import parquet; parquet.write_table(parquet.read_table("FILE"), "ROWS.parquet", '
    "row_group_size=1000)'` writes it so."
)
_PROBLEMS_IN_MESSAGE = 5  # per split in the message; the others are only in `problems`
_LONGEST_NAME = 256


@dataclass
class SplitCheck:
    """Reads one split and holds what was found in it."""

    split: SplitName
    data: DataFile
    spec: FineTuneJobSpec
    index: int
    fingerprints: "Fingerprints"
    tokenizer: ChatTokenizer | None
    file: str = ""
    label: str = ""
    """The file's name in messages, with the split if both files have the same name."""
    format: str = ""
    rows: int = 0
    bad_rows: int = 0
    duplicates: int = 0
    contradiction: "Contradiction | None" = None
    absent: tuple[str, ...] = ()
    """Columns of which at least one is required, and that no row has."""
    columns_seen: tuple[str, ...] = ()
    problems: list[Unusable] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    size: int | None = None
    sha256: str | None = None
    object_columns: frozenset[str] = frozenset()
    """Columns that hold objects."""
    first_fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the first row."""
    names_vary: bool = False
    """Whether later rows have columns that the first one lacks."""
    names_fit_other_split: bool = False
    """Whether the job's column names fit the other split's file."""
    first_row_warnings: tuple[str, ...] = ()
    """Warnings about the first row."""
    empty_rows: EmptyRows = field(default_factory=EmptyRows)
    error: TrainerError | None = None
    """Why reading ended early."""

    def __post_init__(self) -> None:
        self.layouts = Layouts(self.spec.data.columns)
        self.row_checks, self.every_row_checks = text_warnings(), every_row_warnings()
        if self.tokenizer:
            what = "a special token of the model in the text"
            then = "; it is read as that token: rows need no chat format of their own"
            self.row_checks.append(RowWarning(with_special_tokens(self.tokenizer), what, then))
        self.length_checks = (
            [TruncationWarning(2, "question"), TruncationWarning(1, "answer")] if self.tokenizer else []
        )
        self.checks: tuple[RowWarning | EveryRowWarning | TruncationWarning, ...] = (
            *self.row_checks,
            *self.every_row_checks,
            *self.length_checks,
        )

    @property
    def columns(self) -> Columns:
        """The columns that the job asks for, under the names that this file has for them."""
        return self.layouts.of(self.columns_seen).columns

    def read(self, *, allow_local: bool, air_gapped: bool) -> None:
        """Read the whole file."""
        columns = self.layouts.requested.columns
        try:
            with SplitFile(self.data, self.split, columns, allow_local=allow_local, air_gapped=air_gapped) as file:
                self.file, self.format = file.name[:_LONGEST_NAME], str(file.format)
                self.empty_rows = file.empty_rows
                try:
                    self._count_tokens(self._usable(file))
                finally:
                    self.format = str(file.format)  # partly known only after the file is read
                self.columns_seen, self.object_columns = tuple(file.columns_seen), file.object_columns
                self.names_vary, self.first_fields = file.names_vary, file.first_fields
                self.size, self.sha256 = file.size, file.sha256
        except TrainerError as error:
            self.error = error
        except MemoryError:
            label = self.file or f"spec.dataset.{self.split}"
            what = f"{label}: the machine's memory was not enough to read it"
            self.error = TrainerError(Reason.OUT_OF_MEMORY, what, _LESS_MEMORY)
        if self.columns_seen:
            lacks_none = bool(self.problems) and all(problem.kind != "Missing" for problem in self.problems)
            usable = lacks_none or self.bad_rows < self.rows
            self.absent = column_names.missing_columns(self.columns, self.columns_seen, usable=usable)

    def _usable(self, file: SplitFile) -> Iterator[Rows | Row]:
        for found in to_rows(file.blocks(), self.layouts):
            if not self.rows and isinstance(found, Row | Rows):
                first = found if isinstance(found, Row) else next(found.rows())
                self.first_row_warnings = tuple(first_row_warnings(first, in_csv=self.format.startswith("CSV")))
                if any(layout.below for layout in self.layouts.others):
                    self.row_checks.append(with_no_value_below())
                self.checks = (*self.row_checks, *self.every_row_checks, *self.length_checks)
            self.rows += len(found) if isinstance(found, Rows) else 1
            if isinstance(found, Unusable):
                self._add_problem(found)
            else:
                self.fingerprints.add(self.index, found)
                for check in self.checks:
                    check.add(found)
                yield found

    def _count_tokens(self, found: Iterable[Rows | Row]) -> None:
        if self.tokenizer is None:
            for _ in found:
                pass
            return
        max_length = self.tokenizer.row_limit(self.spec.hyperparameters)
        pairs = self.spec.preference is not None
        for refused in count(found, self.tokenizer, max_length, self.tally, pairs=pairs):
            self._add_problem(Unusable(refused.position, "Malformed", f"{REFUSED_BY_TEMPLATE}: {refused.why}"))

    def _add_problem(self, problem: Unusable) -> None:
        self.bad_rows += 1
        if len(self.problems) < NAMED_PROBLEMS:
            self.problems.append(problem)

    @property
    def usable(self) -> bool:
        """Whether the split can be used for training or evaluation as it is."""
        return self.error is None and self.bad_rows == 0 and self.rows > 0 and self._has_loss

    @property
    def _has_loss(self) -> bool:
        return self.tokenizer is None or self.tally.rows > self.tally.unlabelled

    def verdict(self) -> SplitVerdict | None:
        """The split's part of the verdict; None if the file could not be opened."""
        if not self.format:
            return None
        counted = self.tokenizer is not None and self.error is None
        return SplitVerdict(
            file=self.file,
            format=self.format,
            rows=self.rows,
            bad_rows=self.bad_rows,
            problems=[problem.named(self.file) for problem in sorted(self.problems, key=_sort_key)],
            duplicate_rows=self.duplicates,
            tokens=self.tally.tokens if counted else None,
            completion_tokens=self.tally.loss_tokens if counted else None,
            longest_row=self.tally.longest if counted else None,
            truncated_rows=self.tally.truncated if counted else None,
            bytes=self.size,
            sha256=self.sha256,
        )

    def complaint(self) -> str:
        """What is wrong with the split, in one sentence."""
        if self.error is not None:
            return self.error.message
        if self.rows == 0 and not self.absent:
            what = "has a header but no rows" if self.columns_seen else "has no rows" if self.size else "is empty"
            return f"{self.label} {what}"
        if self.absent:
            return self._absent_columns_complaint()
        if self.bad_rows:
            return self._invalid_rows_complaint()
        limit = limit_in_words(self.spec.hyperparameters, self._positions)
        what = "a token of its completion" if self.spec.preference is None else "two different answers"
        return f"{self.label}: no row has {what} within {limit}"

    @property
    def _positions(self) -> int | None:
        return None if self.tokenizer is None else self.tokenizer.positions

    def _invalid_rows_complaint(self) -> str:
        named = [f"{problem.position}: {problem.what}" for problem in sorted(self.problems, key=_sort_key)]
        spoken = "; ".join(named[:_PROBLEMS_IN_MESSAGE])
        more = self.bad_rows - min(len(named), _PROBLEMS_IN_MESSAGE)
        rest = f"; and {more:,} more" if more else ""
        return f"{self.label}: {self.bad_rows:,} of {_rows(self.rows)} cannot be used: {spoken}{rest}"

    def _absent_columns_complaint(self) -> str:
        wanted = " or ".join(repr(name) for name in self.absent)
        none = f"none of its {self.rows:,} rows has a column"
        if self.rows < 2:
            none = "its 1 row has no column" if self.rows else "it has no rows, and no column"
        marks = f"; {self._markup_column.description}" if self._markup_column else ""
        return f"{self.label}: {none} {wanted}; {self._columns_in_words()}{marks}"

    @property
    def _markup_column(self) -> MarkupColumn | None:
        """A column that holds conversations as marked-up text, if no other column fits."""
        is_data = self._columns_in_words() in (column_names.DATA, column_names.NO_HEADER)
        is_mapped = len(self._probable_columns) == len(self._missing_parts)
        return None if is_data or is_mapped or self.spec.preference is not None else markup_column(self.first_fields)

    @property
    def _probable_columns(self) -> dict[str, str]:
        """The columns that were probably meant, judged by their content."""
        seen = [name for name in self.columns_seen if name not in self.object_columns]
        return column_names.probable_columns(self.columns, seen, self.first_fields)

    @property
    def _missing_parts(self) -> list[str]:
        """Required parts of a row for which the file has no column."""
        return [part for part in self.columns.needed if self.columns.named[part] not in self.columns_seen]

    def _columns_in_words(self) -> str:
        is_csv = self.format.startswith("CSV")
        words = column_names.columns_in_words(self.columns_seen, self.columns, maybe_data=is_csv or self.names_vary)
        return column_names.NO_HEADER if is_csv and words == column_names.DATA else words

    def next_step(self) -> str | None:
        """What to do about it, if more specific than the reason's default."""
        step = self._step()
        return step and with_preparation(step, self.format)

    def _step(self) -> str | None:
        if self.error is not None:
            return self.error.next_step
        if self.absent:
            return self._absent_columns_step()
        if self.bad_rows:
            field = f"spec.dataset.{self.split}.format"
            fix = step_for_problems(self.problems, self.rows, self.bad_rows, self.format, field)
            plain = nested.typed_values_step(self.first_fields, self.format)
            return plain or self._two_layouts_step() or self._split_turns_step() or self._group_chat_step() or fix
        if not self.rows:
            return f"Upload a file with rows, or name another one in spec.dataset.{self.split}.uri."
        return room_step(self.spec.hyperparameters, self._positions)

    def _two_layouts_step(self) -> str | None:
        if any(one.kind != "Missing" or one.field != self.columns.prompt for one in self.problems):
            return None
        return column_names.two_layouts_step(self.columns, self.columns_seen, self.first_fields, self.format)

    def _split_turns_step(self) -> str | None:
        if any(NEVER_ANSWERED not in one.what for one in self.problems):
            return None
        return split_turns.join_step(self.first_fields, self.format)

    def _group_chat_step(self) -> str | None:
        problem, column = self.problems[0].what, self.problems[0].field
        if self.rows > 1 or column is None:
            return None
        return conversations.group_chat_step(problem, self.first_fields.get(column), column, self.format)

    def _absent_columns_step(self) -> str:
        meant, unnamed = self._probable_columns, self._missing_parts
        return self._conversion_step(meant, unnamed) or self._mapping_step(meant, unnamed)

    def _conversion_step(self, meant: dict[str, str], unnamed: list[str]) -> str | None:
        """How to convert a file that has all the data, but not in columns of its own."""
        is_mapped = len(meant) == len(unnamed)
        columns, seen, of_pairs = self.columns, set(self.columns_seen), self.spec.preference is not None
        of_one_answer = (
            exports.export_step(seen, self.first_fields, self.format),
            column_names.single_messages_step(seen, self.format),
            column_names.several_answers_step(self.first_fields, seen, self.format),
        )
        ways: tuple[str | None, ...] = (
            nested.typed_values_step(self.first_fields, self.format),
            exports.comparison_step(seen, self.first_fields, self.format, of_pairs=of_pairs),
            *(of_one_answer if not of_pairs else ()),
            None if of_pairs else split_turns.join_step(self.first_fields, self.format, may_be_mapped=is_mapped),
            None if is_mapped else nested.json_text_step(columns, self.first_fields, self.format),
            self._markup_column and self._markup_column.step(self.format),
        )
        if known := next(filter(None, ways), None):
            return known
        if inside := nested.nested_rows_step(self.layouts, self.first_fields, self.format):
            return inside
        if not meant and not column_names.has_two_answers(self.columns_seen):
            named = nested.lift_step(columns, self.first_fields, self.format)
            if named or self.object_columns:
                step = column_names.lift_step(unnamed, self.format, all_parts=len(unnamed) == len(columns.needed))
                return named or f"{step}{nested.texts_hint(self.first_fields)}"
        if {columns.chosen, columns.rejected} <= seen and not meant:
            return exports.dialogues_step(columns.chosen or "", columns.rejected or "", self.first_fields, self.format)
        return None

    def _mapping_step(self, meant: dict[str, str], unnamed: list[str]) -> str:
        columns, seen = self.columns, set(self.columns_seen)
        if self.names_fit_other_split and (meant.keys() >= set(unnamed) or "messages" in meant):
            return column_names.rename_step(columns, meant, self.format)
        if meant.keys() >= set(unnamed) and all(place == name for place, name in meant.items()):
            usual = " and ".join(meant)
            named = f"Remove {usual} from spec.dataset.columns, as the file has the usual names"
            return f"{named}, and apply the job under a new name."
        mapping = column_names.mapping_text(meant if "messages" in meant else dict.fromkeys(unnamed, "NAME") | meant)
        named = f"ap the names with spec.dataset.columns: {mapping}, and apply the job under a new name."
        if otherwise := self._preference_step(seen, sought=bool(meant)):
            return f"{otherwise}; or else m{named}"
        if (words := self._columns_in_words()) == column_names.NO_HEADER:
            header = column_names.header_hint(self.columns, self.columns_seen, self.format)
            return f"Let the file begin with a line of its columns' names{header}, or m{named}"
        is_row_of_texts = self.rows == 1 and seen.isdisjoint(columns.named.values())
        is_data = words == column_names.DATA or (is_row_of_texts and not all(map(column_names.may_be_shown, seen)))
        if is_data and self.format.startswith("JSON"):
            return column_names.KEYS
        too_few = "messages" not in meant and len(seen.difference(columns.named.values())) < len(unnamed)
        absent, all_of = " and ".join(unnamed), ", ".join(columns.needed)
        return f"The file has no column for {absent}: write a column for each of {all_of}." if too_few else f"M{named}"

    def _preference_step(self, seen: set[str], *, sought: bool) -> str | None:
        """The next step if the file has preference pairs and the job has no `preference`, or the other way round."""
        if self.spec.preference is None and column_names.has_two_answers(self.columns_seen):
            return "Write spec.preference: {} if the model is to learn which of two answers is better"
        if self.spec.preference is not None and not sought and {self.columns.completion, self.columns.messages} & seen:
            return "Remove spec.preference if each row has one answer, which is to be learnt"
        return None

    def warnings(self) -> Iterator[str]:
        """Warnings: allowed, but probably a mistake."""
        if self.duplicates:
            yield f"{self.label}: {_rows(self.duplicates)} exactly like an earlier row"
        if (found := self.contradiction) is not None:
            asked = "ask what another row answers differently"
            yield f"{self.label}: {_rows(found.rows)} {asked} (the first: {found.first})"
        if empty := self.empty_rows.count:
            yield f"{self.label}: {_rows(empty)} of empty cells passed over (the first: {self.empty_rows.first})"
        yield from self._column_warnings()
        yield from self._text_warnings()
        yield from self._length_warnings()

    def _column_warnings(self) -> Iterator[str]:
        if self.rows and (unused := column_names.unused_system_warning(self.columns, self.columns_seen)):
            yield f"{self.label}: {unused}"
        for layout in self.layouts.others:
            yield f"{self.label}: {column_names.layout_warning(layout, self.layouts.requested)}"
        yield from (f"{self.label}: the first row has {warning}" for warning in self.first_row_warnings)
        if part := _PART.search(self.file):
            yield f"{self.label}: part {int(part[1]) + 1} of {int(part[2])} by its name; the other parts are not read"
        for unread in column_names.unread_column_warnings(self.layouts.requested.columns, self.columns_seen):
            yield f"{self.label}: {unread}"

    def _text_warnings(self) -> Iterator[str]:
        for one in filter(attrgetter("holds"), self.every_row_checks):
            yield f"{self.label}: all {_rows(self.rows - self.bad_rows)} {one.what}"
        yield from (f"{self.label}: {warning}" for one in self.length_checks if (warning := one.warning))
        for check in self.row_checks:
            if check.rows:
                yield f"{self.label}: {_rows(check.rows)} with {check.what} (the first: {check.first}){check.then}"

    def _length_warnings(self) -> Iterator[str]:
        limit, tally = limit_in_words(self.spec.hyperparameters, self._positions), self.tally
        if tally.truncated:
            yield f"{self.label}: {_rows(tally.truncated)} longer than {limit}; the end is cut"
        if self.tokenizer and (warning := self.tokenizer.beyond_context(tally.longest, self.spec.hyperparameters)):
            yield f"{self.label}: {warning}"
        if tally.unlabelled:
            without = "any token of the completion" if self.spec.preference is None else "two different answers"
            left = f"{_rows(tally.unlabelled)} without {without} within {limit} (the first: {tally.first_unlabelled})"
            yield f"{self.label}: {left}; they are left out of training"


def _sort_key(problem: Unusable) -> tuple[int, int, int]:
    line, group, row = problem.position
    return line or 0, group or 0, row or 0


def _rows(count: int) -> str:
    return counted(count, "row")
