"""A job's dataset file → blocks, records and rows, streamed: memory does not grow with the file.

Opens, decompresses and reads. Problems of rows are found in `columns`, those of a dataset in `verdict`.
"""

import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

from finetune_api.dataset import Columns, DataFile, Dataset
from finetune_api.reasons import Reason
from finetune_api.uris import AROUND, Uri, UriError, incomplete_scheme, parse_uri
from finetune_api.verdict import SplitName
from finetune_trainer.data.blocks import Block, one_by_one
from finetune_trainer.data.columns import Unusable, to_rows
from finetune_trainer.data.files.compression import compression_of, decompressed
from finetune_trainer.data.files.csv_rows import SEPARATED_BY, SEPARATORS, EmptyRows, Header, read_csv
from finetune_trainer.data.files.formats import (
    FileFormat,
    data_format,
    json_format,
    require_format,
    separator_by_extension,
)
from finetune_trainer.data.files.json_array import read_json_array
from finetune_trainer.data.files.json_lines import LINE_BREAKS_OFF, LINE_TOO_LONG, read_json_lines
from finetune_trainer.data.files.source import Source, broken_file
from finetune_trainer.data.files.utf16 import as_utf8, utf16_of
from finetune_trainer.data.fixes.column_names import missing_columns, satisfies
from finetune_trainer.data.fixes.nested import places_of_rows, wrapper_step
from finetune_trainer.data.layouts import Layouts
from finetune_trainer.data.rows import Record, Row, Rows
from finetune_trainer.data.turns import is_message
from finetune_trainer.errors import TrainerError

_ON_A_HUB = re.compile(r"\w[\w.-]*/[\w-]+")
"""A dataset's name on a hub, OWNER/NAME, which may also be a path: files have an extension."""


def dataset_uri(data: DataFile, split: SplitName, *, allow_local: bool) -> Uri:
    """The parsed uri of a split.

    Raises:
        TrainerError: SpecInvalid, with the field and what to write.
    """
    field = f"spec.dataset.{split}.uri"
    path = _path_of_this_machine(data.uri) if allow_local and data.uri == data.uri.strip(AROUND) else None
    if path is not None and not (incomplete_scheme(data.uri) and not path.exists()):
        on_a_hub = _ON_A_HUB.fullmatch(data.uri) and not path.exists()
        or_there = f", or hf://datasets/{data.uri}/PATH for a file of this data set of a hub" if on_a_hub else ""
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{field}: a file of this machine needs file:// and an absolute path, with three slashes; that is for "
            "`check` and `run` alone, and a cluster reads pvc://CLAIM/PATH, configmap://NAME/KEY or a store",
            f"Write {path.as_uri()}{or_there}",
        )
    try:
        return parse_uri(data.uri, allow_local=allow_local)
    except UriError as error:
        raise TrainerError(Reason.SPEC_INVALID, f"{field}: {error}", f"Correct {field}.") from None


def _path_of_this_machine(uri: str) -> Path | None:
    """The absolute path, if the uri seems to mean a local file without being a file URI."""
    path = re.sub("^file:(//(localhost(?=/))?)?", "", uri)
    has_other_scheme = path == uri and re.match(r"[A-Za-z][\w+.-]*:(?!\\)", uri)
    if has_other_scheme or uri.startswith("file:///") or not path.strip("/ ") or "\0" in path:
        return None
    return Path(os.path.abspath(Path(path).expanduser() if path.startswith("~/") else path))  # noqa: PTH100 - without ..


class SplitFile:
    """An open file of rows: a context manager that can be read once, by its `blocks` or its `records`."""

    def __init__(
        self, data: DataFile, split: SplitName, columns: Columns, *, allow_local: bool, air_gapped: bool
    ) -> None:
        uri = dataset_uri(data, split, allow_local=allow_local)
        self.name = uri.file_name
        """File name, for messages."""
        self.columns_seen: dict[str, None] = {}
        """Column names so far, in order: those that the job asks for, and up to 256 others."""
        self.object_columns: frozenset[str] = frozenset()
        """Columns that hold objects in the first row; CSV columns hold text."""
        self.first_fields: Mapping[str, Any] = {}
        """Fields of the first row. Of Parquet only the columns that are read, if all required ones are there."""
        self.names_vary = False
        """Whether later rows have columns that the first one lacks."""
        self.empty_rows = EmptyRows()
        """Skipped CSV rows that consist of separators only."""
        self._layouts = Layouts(columns)
        self._wanted = frozenset(self._layouts.requested.names)
        with ExitStack() as refused:  # closes the source on failure: otherwise its hash would be computed to the end
            self._source = refused.enter_context(Source(uri, air_gapped=air_gapped, patient=not allow_local))
            start = self._source.stream.peek(_START)
            self.format = FileFormat(
                data_format(self.name, data.format, f"spec.dataset.{split}"), compression_of(self.name, start)
            )
            refused.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.stream.close()

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the file as stored; None until it is read to the end."""
        return self._source.sha256

    @property
    def size(self) -> int | None:
        """Bytes of the file as stored; None until it is read to the end."""
        return self._source.size

    def records(self) -> Iterator[Record]:
        """Every record, valid or not, in file order.

        Raises:
            TrainerError: the file cannot be read to its end, or not at all.
        """
        return one_by_one(self.blocks())

    def blocks(self) -> Iterator[Record | Block]:
        """The same, with rows that were read together in one block.

        Raises:
            TrainerError: the file cannot be read to its end, or not at all.
        """
        for found in self._blocks():
            names = found.names() if isinstance(found, Block) else (found.fields or {}).keys()
            if not self.first_fields:
                self.first_fields = next(iter(one_by_one([found]))).fields or {}
            if not self.columns_seen:
                first = self.first_fields
                self.object_columns = frozenset(
                    name for name, value in first.items() if _is_row(value) and not _has_messages(value)
                )
                self._note_columns(first)
            if not self.columns_seen.keys() >= names:
                self.names_vary = True
                for fields in found.fields() if isinstance(found, Block) else (names,):
                    self._note_columns(fields)
            yield found
        self._source.drain()

    def _note_columns(self, names: Iterable[str]) -> None:
        seen = self.columns_seen
        seen.update((name, None) for name in names if name in self._wanted or len(seen) < _COLUMNS_LIMIT)

    def _blocks(self) -> Iterator[Record | Block]:
        stream = decompressed(self._source.stream, self.format.compression, self.name)
        if self.format.format == "Parquet":
            require_format(stream.peek(_START), self.format, self.name)
            return self._parquet(stream) if stream.peek(1) else iter(())
        if encoding := utf16_of(stream.peek(_START)):
            self._add_to_format(encoding)
            stream = as_utf8(stream, encoding, self.name)
        require_format(stream.peek(_START), self.format, self.name)
        if self.format.format == "CSV":
            default = separator_by_extension(self.name)
            callbacks = (self._wanted, self._note_header, self.empty_rows)
            return read_csv(stream, self.name, *callbacks, separator=default, serves=self._serves)
        asked = self.format.format
        self.format = self.format._replace(format=json_format(stream, asked))
        if self.format.format == "JSON":
            return read_json_array(stream, self.name)
        return self._require_rows(read_json_lines(stream), by_lines=asked == "JSONLines")

    def _add_to_format(self, what: str) -> None:
        self.format = self.format._replace(how=(*self.format.how, what))

    def _note_header(self, header: Header) -> None:
        self._note_columns(header.names)
        if header.separator != ",":
            self._add_to_format(SEPARATORS.get(header.separator, f"{SEPARATED_BY}{header.separator}"))

    def _serves(self, names: Collection[str]) -> bool:
        """Whether columns with these names satisfy the job."""
        return not missing_columns(self._layouts.of(names).columns, names)

    def _require_rows(self, found: Iterator[Record | Block], *, by_lines: bool) -> Iterator[Record | Block]:
        """The rows of a file that begins with an object, unless that object contains the rows instead of being one.

        With a JSON Lines extension only a lone object is checked: problems of other lines can be reported per line.

        Raises:
            TrainerError: DatasetInvalid, the first object is not a row.
        """
        head = list(islice(found, 1))
        if sum(1 for _ in islice(one_by_one(head), 2)) == 1:
            head += islice(found, 1)
        rows = list(islice(one_by_one(head), 2))
        if rows and (self._is_wrapper(rows) if by_lines else self._contains_rows(rows)):
            raise broken_file(
                self.name,
                "begins with an object that is not a row: it holds the rows, or columns, or goes on in the next line",
                wrapper_step(rows[0].fields, self._may_serve),
            )
        return chain(head, found)

    def _is_wrapper(self, rows: list[Record]) -> bool:
        """Whether the file's only line is an object of columns or rows, rather than a row."""
        fields = rows[0].fields or {}
        is_asked = isinstance(fields.get(self._layouts.requested.columns.prompt), str)
        values = list(fields.values())
        if self._may_serve(fields):
            return len(rows) == 1 and len(values) > 1 and _are_alike(values)
        return len(rows) == 1 and not is_asked and _has_rows(fields)

    def _contains_rows(self, rows: list[Record]) -> bool:
        """Whether the first object continues after its line, or is the only one and contains the rows."""
        if rows[0].fields is None:
            return rows[0].problem in (LINE_BREAKS_OFF, LINE_TOO_LONG)
        fields = rows[0].fields
        return len(rows) == 1 and (
            _are_alike(list(fields.values())) or (not self._serves(fields) and _has_rows(fields))
        )

    def _may_serve(self, fields: Mapping[str, Any]) -> bool:
        """Whether an object has what the job needs, under these names or known synonyms."""
        return satisfies(self._layouts, fields)

    def _parquet(self, stream: io.BufferedReader) -> Iterator[Record | Block]:
        from finetune_trainer.data.files.parquet import ParquetRows, spooled

        path = self._source.local_path
        with ExitStack() as files:
            is_mounted = path is not None and self.format.compression is None
            file = path if is_mounted else files.enter_context(spooled(stream, self.name))
            parquet = ParquetRows(file, self.name)
            self._note_columns(parquet.columns)
            self.object_columns = parquet.object_columns
            if not self._serves(parquet.columns):  # otherwise the other columns do not matter
                self.first_fields = parquet.first_row()
            yield from parquet.blocks({*self._wanted, *self._layouts.of(parquet.columns).names})
            self._source.require_same()


def _has_rows(fields: Mapping[str, Any]) -> bool:
    """Whether the fields contain rows: objects that are not messages, or lists of cells."""
    cells = (value for value in fields.values() if isinstance(value, list) and value)
    return any(True for _ in places_of_rows(fields)) or any(all(map(_is_list, value)) for value in cells)


def _are_alike(values: list[Any]) -> bool:
    """Whether the values are all rows or all columns: objects with the same names, or lists of the same length."""
    if values and all(map(_is_row, values)):
        return len({frozenset(value) for value in values}) == 1
    cells = values and all(map(_is_list, values)) and not any(map(_has_objects, values))
    return bool(cells) and len(set(map(len, values))) == 1


def _is_row(value: Any) -> bool:
    return isinstance(value, dict) and not is_message(value)


def _has_messages(value: dict[str, Any]) -> bool:
    """Whether it contains a prompt, as in OpenAI's preference format."""
    return isinstance(value.get("messages"), list)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _has_objects(value: list[Any]) -> bool:
    return any(isinstance(one, dict) for one in value)


_START = 512  # bytes needed to detect the format
_COLUMNS_LIMIT = 256


def load_rows(
    dataset: Dataset,
    split: SplitName,
    *,
    allow_local: bool = False,
    air_gapped: bool = False,
    expected_sha256: str | None = None,
) -> Iterator[Row]:
    """The rows of one split, in file order; none if the job has no such split.

    Meant for a dataset with a valid verdict. `expected_sha256` is from the verdict: a file that has changed since is
    refused, after its last row.

    Raises:
        TrainerError: the file cannot be read, a row cannot be used, or the file has changed.
    """
    data: DataFile | None = getattr(dataset, split)
    if data is None:
        return
    with SplitFile(data, split, dataset.columns, allow_local=allow_local, air_gapped=air_gapped) as file:
        for found in to_rows(file.blocks(), Layouts(dataset.columns)):
            if isinstance(found, Unusable):
                raise TrainerError(Reason.DATASET_INVALID, f"{file.name}: {found.position}: {found.what}")
            yield from found.rows() if isinstance(found, Rows) else (found,)
        if expected_sha256 not in (None, file.sha256):
            raise TrainerError(
                Reason.DATASET_INVALID,
                f"{file.name} has changed since it was checked",
                "Leave the file as it is while a job runs; apply the job under a new name.",
            )
