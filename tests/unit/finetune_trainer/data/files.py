"""Files of rows in every format."""

import bz2
import gzip
import io
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from finetune_api.dataset import Columns, DataFile
from finetune_trainer.data.columns import Layouts, Unusable, to_rows
from finetune_trainer.data.read import SplitFile
from finetune_trainer.data.rows import ROW_LIMIT, Record, Row

ROWS = [
    {"prompt": "one", "completion": "eins"},
    {"prompt": 'line\nbreak, and "quotes"', "completion": "ä\r\nö"},
    {"prompt": "three 🙂", "completion": "drei"},
]


def as_parquet(rows, row_group_size=2):
    return as_parquet_table(pa.Table.from_pylist(rows), row_group_size=row_group_size)


def as_parquet_table(table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


COMPRESSIONS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def split_file(path, *, data_format="Auto", **columns):
    data = DataFile(uri=f"file://{path}", format=data_format)
    return SplitFile(data, "train", Columns(**columns), allow_local=True, air_gapped=False)


def records(path, **kwargs):
    with split_file(path, **kwargs) as file:
        return list(file.records())


BIG = b"x" * (ROW_LIMIT + 200_000)
LINES = b'{"a":1}\n' * 1000
GZIP, ZSTD, BZIP2, XZ = (
    gzip.compress(LINES, mtime=0),
    zstandard.compress(LINES),
    bz2.compress(LINES),
    lzma.compress(LINES),
)
PARQUET = as_parquet(ROWS)


def to_row(record: Record, columns: Columns) -> Row | Unusable:
    """The check's result for a single record."""
    (row,) = to_rows([record], Layouts(columns))
    return row
