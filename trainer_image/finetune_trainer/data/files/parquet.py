"""Parquet → rows, in small batches, only the required columns.

Parquet is read from its end, so it needs a file: a mounted one directly, anything else through a temporary copy.
Memory is bounded by the pages of the columns that are read, not by rows or row groups.
"""

import shutil
import tempfile
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, groupby, islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune_api.reasons import Reason
from finetune_trainer.data.blocks import Block, Table
from finetune_trainer.data.files.background import prefetched
from finetune_trainer.data.files.lines import TOO_LONG
from finetune_trainer.data.files.source import broken_file
from finetune_trainer.data.rows import ROW_LIMIT, Position, Record, group_places
from finetune_trainer.errors import TrainerError

_BATCH_ROWS, _MAX_ROWS = 256, 512
"""Rows of a block: the target if rows are short, and the maximum."""
_AHEAD_ROWS, _AHEAD_BYTES = 4096, 1024 * 1024
"""Size of a batch that another thread decodes: waiting for one takes as long as checking hundreds of rows."""
_BATCH_BYTES = 64 * 1024 * 1024
_BLOCK_BYTES = 128 * 1024
_SMALL_GROUP = 16 * 1024 * 1024
_FIRST_ROW_COLUMNS = 64  # columns of the first row


class ParquetRows:
    """The rows of an open Parquet file.

    Only plain numbers of the footer are used: pyarrow aborts the whole process when asked for column metadata that is
    corrupt or encrypted. Its readers raise an error instead.
    """

    def __init__(self, file: Any, file_name: str) -> None:
        self._file_name = file_name
        try:
            self._parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            self.columns: list[str] = list(self._parquet.schema_arrow.names)
            """Names of all columns."""
            kinds = zip(self.columns, self._parquet.schema_arrow.types, strict=True)
            self.object_columns = frozenset(name for name, kind in kinds if pa.types.is_struct(kind))
            """Names of the columns that hold objects."""
        except MemoryError:  # Arrow's own is also an ArrowException; it says nothing about the file
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise broken_file(file_name, "is not a Parquet file, or its end is missing") from error
        self._group: Any = self._parquet.metadata.row_group

    def first_row(self) -> dict[str, Any]:
        """The first text columns of the first row; {} if it cannot be read."""
        kinds = zip(self.columns, self._parquet.schema_arrow.types, strict=True)
        of_text = [name for name, kind in kinds if _is_text(kind)][:_FIRST_ROW_COLUMNS]
        try:
            batch = next(self._parquet.iter_batches(1, [0], of_text, use_threads=False), None) if of_text else None
            rows = [] if batch is None or batch.nbytes > ROW_LIMIT else batch.slice(0, 1).to_pylist()
        except (pa.ArrowException, OSError, ValueError, OverflowError):
            return {}
        return next(iter(rows), {})

    def blocks(self, wanted: Collection[str]) -> Iterator[Record | Block]:
        """Every row, as a Record or in a Block, with those of the wanted columns that exist.

        Raises:
            TrainerError: DatasetInvalid, a page is corrupt or encrypted, or two columns have the same wanted name.
        """
        present = [name for name in self.columns if name in wanted]
        duplicate = next((name for name in present if present.count(name) > 1), None)
        if duplicate is not None:
            raise broken_file(self._file_name, f"two columns are called {duplicate!r}", "Rename one of them.")
        groups = range(self._parquet.num_row_groups)
        if not present:
            places = chain.from_iterable(self._places(groups))
            yield from (Record(Position.unpacked(place), {}) for place in places)
            return
        for rows, same_size in groupby(groups, lambda group: batch_rows(self._group(group))):
            yield from self._read(list(same_size), present, rows)

    def _places(self, groups: Iterable[int]) -> Iterator[Sequence[int]]:
        """Packed positions of all rows of some row groups, group by group."""
        return (group_places(group, self._group(group).num_rows) for group in groups)

    def _read(self, groups: list[int], columns: list[str], rows: int, passed: int = 0) -> Iterator[Record | Block]:
        """Read consecutive row groups in batches of `rows`: one reader per group would cost as much as 20 rows.

        `passed`: rows of the first group to skip, because they were already yielded.
        """
        places = _Places(self._places(groups))
        places.take(passed)
        batches = _merged(_skipping(passed, self._batches(groups, columns, rows)))
        while True:
            try:
                batch = next(batches, None)
            except MemoryError:
                raise
            except (pa.ArrowException, OSError) as error:
                yield from self._rows_before_error(groups, columns, rows, next(iter(places.take(1)), None), error)
                return
            taken = places.take(1 if batch is None else batch.num_rows)
            if len(taken) != (0 if batch is None else batch.num_rows):
                raise broken_file(self._file_name, "holds another number of rows than its end says")
            if batch is None:
                return
            yield from _blocks(batch, taken)

    def _batches(self, groups: list[int], columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Batches of at most a block's rows. Larger ones are decoded ahead, while they are as large as the footer says.

        They may be larger because a dictionary value is stored once, and decoded as often as it occurs.

        Raises:
            pa.ArrowException: the next rows need smaller batches, or cannot be read.
        """
        read = partial(self._parquet.iter_batches, row_groups=groups, columns=columns, use_threads=False)
        if rows <= _MAX_ROWS:
            yield from read(rows)
            return
        deque(_while_as_expected(islice(read(_MAX_ROWS), 1), rows), 0)
        for batch in prefetched(_while_as_expected(read(rows), rows)):
            yield from (batch.slice(at, _MAX_ROWS) for at in range(0, batch.num_rows, _MAX_ROWS))

    def _rows_before_error(
        self, groups: list[int], columns: list[str], rows: int, place: int | None, error: Exception
    ) -> Iterator[Record | Block]:
        """The rows from `place` on, where a batch begins that fails in one of several row groups.

        Small batches lose no row before the corrupt page, and long rows take no more memory than necessary.
        """
        last = groups[-1]
        at = Position(row_group=last, row=self._group(last).num_rows) if place is None else Position.unpacked(place)
        if len(groups) == 1 and rows <= _MAX_ROWS:
            if "decrypt" in str(error).lower():
                raise broken_file(self._file_name, "is an encrypted Parquet file", "Write it without encryption.")
            raise broken_file(self._file_name, f"row group {last} is broken after row {at.row}") from error
        for group in (one for one in groups if one >= (at.row_group or 0)):
            passed = (at.row or 0) if group == at.row_group else 0
            yield from self._read([group], columns, min(rows, _MAX_ROWS), passed)


class _Places:
    """Positions of the rows of several groups, taken part by part: a range if the part is within one group."""

    def __init__(self, groups: Iterator[Sequence[int]]) -> None:
        self._groups = groups
        self._left: Sequence[int] = ()

    def take(self, count: int) -> Sequence[int]:
        """The next `count` positions, fewer only at the end."""
        taken, self._left = self._left[:count], self._left[count:]
        while len(taken) < count and (group := next(self._groups, None)) is not None:
            missing = count - len(taken)
            taken = [*taken, *group[:missing]] if taken else group[:missing]
            self._left = group[missing:]
        return taken


def _while_as_expected(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The batches up to the first whose rows take far more memory than assumed for batches of `rows`."""
    for batch in batches:
        yield batch
        if batch.nbytes * rows > 2 * _AHEAD_BYTES * batch.num_rows:
            raise pa.ArrowInvalid("rows are longer than the end of the file says")


def _skipping(rows: int, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches without the first `rows` rows."""
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)


def _merged(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Merges small batches: a block of six rows takes as long to check as one of fifty.

    Batches before an error are yielded before it is raised.
    """
    waiting, rows, size, broken = list[pa.RecordBatch](), 0, 0, None
    try:
        for batch in batches:
            waiting.append(batch)
            rows += batch.num_rows
            size += 0 if rows >= _BATCH_ROWS else batch.get_total_buffer_size()
            if rows >= _BATCH_ROWS or size >= _BLOCK_BYTES:
                yield waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting)
                waiting, rows, size = [], 0, 0
    except (pa.ArrowException, OSError) as error:
        broken = error
    if waiting:
        yield pa.concat_batches(waiting)
    if broken is not None:
        raise broken


def batch_rows(group: Any) -> int:
    """Rows of a row group that may be in memory at once.

    A row is assumed to have the average size, but in a small group the size of the whole group: each row may be the
    same dictionary value, stored once and decoded as often as it occurs. If the size is unknown, rows are read singly.
    """
    size = group.total_byte_size
    a_row, most = (size, _BATCH_ROWS) if size <= _SMALL_GROUP else (size // max(group.num_rows, 1), _AHEAD_ROWS)
    if a_row <= 0:
        return 1
    many = 1 << (_AHEAD_BYTES // a_row).bit_length() >> 1  # rounded, so that similar groups share one reader
    return int(max(1, min(most, _BATCH_BYTES // a_row, max(many, _MAX_ROWS))))


def _blocks(batch: pa.RecordBatch, places: Sequence[int]) -> Iterator[Record | Block]:
    """The batch's rows in blocks that each have no more text than a row may have; as single records if necessary."""
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
    """The columns as Python values; None if one could have more text than bytes, or values unknown to Python."""
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
    """The Python value; the scalar itself if Python has none (a date in the year 20,000): it is not text."""
    try:
        return scalar.as_py()
    except (UnicodeDecodeError, MemoryError):
        raise
    except (ValueError, OverflowError, pa.ArrowException):
        return scalar


def _characters(value: Any) -> int:
    """Number of characters of all text in a value."""
    if isinstance(value, str):
        return len(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_characters(one) for one in inner)


@contextmanager
def spooled(stream: IO[bytes], file_name: str) -> Iterator[IO[bytes]]:
    """The stream as a temporary file, which can be read from its end.

    Raises:
        TrainerError: ArtifactFailed, there is no space for it.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile(prefix="dataset-"))
            shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
        except OSError as error:
            raise TrainerError(
                Reason.ARTIFACT_FAILED,
                f"{file_name}: no room for a temporary copy ({error.strerror})",
                "Set resources.ephemeralStorage to more than the file needs, or put the file on a volume.",
            ) from error
        file.seek(0)
        yield file
