"""Parquet → rows, one small batch of one row group at a time, only the columns that are asked for.

Parquet is read from its end, so it needs a file: a mounted one as it is, anything else by way of a temporary file.
Memory is bounded by the pages of the columns that are read, not by rows or row groups.
"""

import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune_api.reasons import Reason
from finetune_trainer.data.blocks import Block, Table
from finetune_trainer.data.formats import broken_file
from finetune_trainer.data.lines import TOO_LONG
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record, group_places
from finetune_trainer.errors import TrainerError

_BATCH_ROWS = 256
_BATCH_BYTES = 64 * 1024 * 1024
_SMALL_GROUP = 16 * 1024 * 1024


class ParquetRows:
    """The rows of an open Parquet file."""

    def __init__(self, file: Any, file_name: str) -> None:
        self._file_name = file_name
        with self._readable("is no Parquet file, or its end is missing"):
            self._parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(self._parquet.schema_arrow.names)

    def blocks(self, wanted: Collection[str]) -> Iterator[Record | Block]:
        """Every row, by itself or in a block, with those of the wanted columns that are there.

        Raises:
            TrainerError: DatasetInvalid, a page is broken, or two columns have a wanted name.
        """
        present = [name for name in self.columns if name in wanted]
        twice = next((name for name in present if present.count(name) > 1), None)
        if twice is not None:
            raise broken_file(self._file_name, f"two columns are called {twice!r}", "Rename one of them.")
        for group in range(self._parquet.num_row_groups):
            yield from self._row_group(group, present)

    def _row_group(self, group: int, columns: list[str]) -> Iterator[Record | Block]:
        if not columns:
            for row in range(self._parquet.metadata.row_group(group).num_rows):
                yield Record(Position(row_group=group, row=row), {})
            return
        rows = batch_rows(self._parquet.metadata.row_group(group), columns)
        batches = self._parquet.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)
        row = 0
        while True:
            with self._readable(f"row group {group} is broken after row {row}"):
                batch = next(batches, None)
            if batch is None:
                return
            yield from _blocks(batch, group_places(group, row, batch.num_rows))
            row += batch.num_rows

    @contextmanager
    def _readable(self, what: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise broken_file(self._file_name, what) from error


def batch_rows(group: Any, columns: Collection[str]) -> int:
    """Rows of a row group that may be in memory at once.

    A row takes the average, but in a small group it may take all of it: each row may then be the same word of a
    dictionary, which is stored once and read as often as it stands there.
    """
    chunks = (group.column(index) for index in range(group.num_columns))
    size = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns)
    )
    a_row = size if size <= _SMALL_GROUP else size // group.num_rows
    return int(max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(a_row, 1))))


def _blocks(batch: pa.RecordBatch, places: Sequence[int]) -> Iterator[Record | Block]:
    """The batch's rows in blocks, none of which has more text than one row may have; by themselves where need be."""
    half = len(places) // 2
    fits = batch.nbytes <= ROW_LIMIT
    if half and not fits:
        yield from _blocks(batch.slice(0, half), places[:half])
        yield from _blocks(batch.slice(half), places[half:])
        return
    columns = _columns(batch) if fits else None
    if columns is not None:
        yield Table(places, columns)
    else:
        yield from (_record(batch, index, Position.unpacked(place)) for index, place in enumerate(places))


def _columns(batch: pa.RecordBatch) -> dict[str, list[Any]] | None:
    """The columns as Python has them; None where one could hold more text than bytes, or what Python has not."""
    if not all(_is_text(kind) for kind in batch.schema.types):
        return None
    try:
        return {name: batch.column(name).to_pylist() for name in batch.schema.names}
    except UnicodeDecodeError:
        return None


def _is_text(kind: pa.DataType) -> bool:
    """Whether it is text, or lists and objects of text."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_text(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_text(field.type) for field in kind.fields) and len(set(kind.names)) == kind.num_fields
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _record(batch: pa.RecordBatch, index: int, position: Position) -> Record:
    try:
        fields = {name: _value(batch.column(name)[index]) for name in batch.schema.names}
    except UnicodeDecodeError:
        return Record(position, None, "the row is not UTF-8 text")
    if _characters(fields) > ROW_LIMIT:
        return Record(position, None, f"the row is {TOO_LONG}")
    return Record(position, fields)


def _value(scalar: pa.Scalar) -> Any:
    """As Python has it; the scalar itself where Python has no such value (a date in the year 20,000): it is no text."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError, pa.ArrowException):
        return scalar


def _characters(value: Any) -> int:
    """Characters of all text in a value."""
    if isinstance(value, str):
        return len(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_characters(one) for one in inner)


@contextmanager
def spooled(stream: IO[bytes], file_name: str) -> Iterator[IO[bytes]]:
    """The stream as a temporary file that can be read from its end.

    Raises:
        TrainerError: StoreUnavailable, no room for it.
    """
    with tempfile.TemporaryFile(prefix="dataset-") as file:
        try:
            shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
        except OSError as error:
            raise TrainerError(
                Reason.STORE_UNAVAILABLE,
                f"{file_name}: no room for a temporary copy ({error.strerror})",
                "Set resources.ephemeralStorage to more than the file needs, or put the file on a volume.",
            ) from error
        file.seek(0)
        yield file
