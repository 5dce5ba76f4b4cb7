"""Files of every format and compression give the same rows, with the positions that a person would look for."""

import csv
import gzip
import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.job import Columns, DataFile, Dataset
from finetune_trainer.data import load_rows
from finetune_trainer.data.csv_rows import read_csv
from finetune_trainer.data.json_array import read_json_array
from finetune_trainer.data.json_lines import read_json_lines
from finetune_trainer.data.read import SplitFile
from finetune_trainer.data.rows import ROW_LIMIT
from finetune_trainer.errors import TrainerError

ROWS = [
    {"prompt": "one", "completion": "eins"},
    {"prompt": 'line\nbreak, and "quotes"', "completion": "ä\r\nö"},
    {"prompt": "three 🙂", "completion": "drei"},
]


def as_csv(rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows, row_group_size=2):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=row_group_size)
    return sink.getvalue()


WRITERS = {
    "csv": as_csv,
    "jsonl": lambda rows: b"".join(json.dumps(row).encode() + b"\n" for row in rows),
    "json": lambda rows: json.dumps(rows, indent=2).encode(),
    "parquet": as_parquet,
}
COMPRESSIONS = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


def split_file(path, *, data_format="Auto", **columns):
    data = DataFile(uri=f"file://{path}", format=data_format)
    return SplitFile(data, "train", Columns(**columns), allow_local=True, air_gapped=False)


def records(path, **kwargs):
    with split_file(path, **kwargs) as file:
        return list(file.records())


def stream(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_fields(ending, compression, tmp_path):
    path = tmp_path / f"train.{ending}{compression}"
    path.write_bytes(COMPRESSIONS[compression](WRITERS[ending](ROWS)))
    with split_file(path) as file:
        assert [record.fields for record in file.records()] == ROWS
        assert file.size == path.stat().st_size
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert list(file.columns_seen) == ["prompt", "completion"]


@pytest.mark.parametrize(
    ("ending", "places"),
    [
        ("csv", ["line 2", "line 3", "line 6"]),  # the second row spans three lines
        ("jsonl", ["line 1", "line 2", "line 3"]),
        ("json", ["row 0", "row 1", "row 2"]),
        ("parquet", ["row group 0 row 0", "row group 0 row 1", "row group 1 row 0"]),
    ],
)
def test_positions_are_where_rows_begin(ending, places, tmp_path):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(WRITERS[ending](ROWS))
    assert [str(record.position) for record in records(path)] == places


CELL = st.text(alphabet=st.sampled_from("ab ,\"\n\r'äß;\t"), max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), max_size=20))
def test_csv_of_any_text_comes_back_with_the_line_it_begins_on(rows):
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["prompt", "completion"])
    begins = []
    for row in rows:
        begins.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    found = list(read_csv(stream(text.getvalue().encode()), "t.csv", {}))
    assert [tuple(record.fields.values()) for record in found] == rows
    assert [record.position.line for record in found] == begins


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_a_reader(data):
    for read in (
        lambda: list(read_csv(stream(data), "t", {})),
        lambda: list(read_json_lines(stream(data))),
        lambda: list(read_json_array(stream(data), "t")),
    ):
        reason = "DatasetInvalid"
        try:
            assert all((record.fields is None) == (record.problem is not None) for record in read())
        except TrainerError as error:
            reason = error.reason
        assert reason == "DatasetInvalid"


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("bom.csv", b"\xef\xbb\xbfprompt,completion\na,b\n", [(2, None)]),
        ("blank.csv", b"prompt,completion\n\na,b\n\n", [(3, None)]),
        ("no-end.csv", b"prompt,completion\na,b", [(2, None)]),
        ("short.csv", b"prompt,completion\na\na,b\na,b,c\n", [(2, "1 cells where"), (3, None), (4, "3 cells where")]),
        ("quote.csv", b'prompt,completion\n"a"b,c\na,b\n', [(2, "quotes"), (3, None)]),
        ("open.csv", b'prompt,completion\na,b\n"a,b\nc,d\n', [(2, None), (3, "never closed")]),
        ("text.csv", b"prompt,completion\na,\xff\na,b\n", [(2, "not UTF-8"), (3, None)]),
        ("multi.csv", b'prompt,completion\n"a\n\xff",b\na,b\n', [(2, "not UTF-8"), (4, None)]),
        ("cr.csv", b"prompt,completion\na,b\rc,d\ne,f\n", [(2, "carriage return"), (3, None)]),
        ("bom.jsonl", b'\xef\xbb\xbf{"a":1}\n', [(1, None)]),
        ("blank.jsonl", b'\n{"a":1}\n  \n{"a":2}', [(2, None), (4, None)]),
        ("cut.jsonl", b'{"a":1}\n{"a":', [(1, None), (2, "breaks off")]),
        ("junk.jsonl", b'nope\n{"a":1}\n', [(1, "not valid JSON at byte"), (2, None)]),
        ("text.jsonl", b'{"a":"\xff"}\n{"a":1}\n', [(1, "not UTF-8"), (2, None)]),
        ("list.jsonl", b'[1]\n"x"\n3\nnull\n', [(n, "no JSON object") for n in (1, 2, 3, 4)]),
        ("deep.jsonl", b"[" * 100_000 + b'\n{"a":1}\n', [(1, "nested too deeply"), (2, None)]),
        ("bom.json", b'\xef\xbb\xbf[{"a":1}]', [(0, None)]),
        ("items.json", b'[1,{"a":1},"x"]', [(0, "no JSON object"), (1, None), (2, "no JSON object")]),
        ("cut.json", b'[{"a":1},{"a"', [(0, None), (1, "not valid JSON from here on")]),
        ("after.json", b'[{"a":1}] x', [(0, None), (1, "not valid JSON from here on")]),
        ("text.json", b'[{"a":"\xff"}]', [(0, "not valid JSON from here on")]),
        ("big.json", b'[{"a":123456789012345678901234567890}]', [(0, None)]),
        ("empty.json", b"[]", []),
    ],
)
def test_bad_rows_are_found_where_they_are(name, data, expected, tmp_path):
    (tmp_path / name).write_bytes(data)
    found = records(tmp_path / name)
    places = [record.position.line if record.position.line is not None else record.position.row for record in found]
    assert places == [place for place, _ in expected]
    for record, (_, problem) in zip(found, expected, strict=True):
        assert (record.problem is None) == (problem is None)
        assert problem is None or problem in record.problem


BIG = b"x" * (ROW_LIMIT + 200_000)


@pytest.mark.parametrize(
    ("name", "data", "problems"),
    [
        ("long.jsonl", b'{"a":"' + BIG + b'"}\n{"a":1}\n', ["longer than 4 MiB", None]),
        ("long.csv", b"a,b\n" + BIG + b",1\n1,2\n", ["longer than 4 MiB", None]),
        ("open.csv", b'a,b\n"' + (b"x" * 1000 + b"\n") * (ROW_LIMIT // 900), ["longer than 4 MiB"]),
        ("long.json", b'[{"a":1},{"a":"' + BIG + b'"},{"a":1}]', [None, "longer than 4 MiB; what follows"]),
        ("long.parquet", as_parquet([{"prompt": BIG.decode()}, {"prompt": "x"}]), ["longer than 4 MiB", None]),
    ],
)
def test_rows_over_the_limit_are_bad_rows(name, data, problems, tmp_path):
    (tmp_path / name).write_bytes(data)
    found = records(tmp_path / name)[: len(problems)]
    for record, problem in zip(found, problems, strict=True):
        assert (record.problem is None) == (problem is None)
        assert problem is None or problem in record.problem


GZIP, ZSTD, PARQUET = (
    gzip.compress(b'{"a":1}\n' * 1000, mtime=0),
    zstandard.compress(b'{"a":1}\n' * 1000),
    as_parquet(ROWS),
)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.jsonl.gz", GZIP[:-10], "t.jsonl.gz: the gzip compression breaks off in the middle"),
        ("t.jsonl.gz", b"plain text", "t.jsonl.gz: the gzip compression is broken, or not compressed this way"),
        ("t.jsonl.gz", GZIP[:30] + b"\0\0\0\0" + GZIP[34:], "t.jsonl.gz: the gzip compression is broken"),
        ("t.jsonl.zst", ZSTD[:-3], "t.jsonl.zst: the zstd compression breaks off in the middle"),
        ("t.jsonl.zst", b"plain text", "t.jsonl.zst: the zstd compression is broken, or not compressed this way"),
        ("t.parquet", b"PAR1 nothing", "t.parquet: is no Parquet file, or its end is missing"),
        ("t.parquet", b"", "t.parquet: is no Parquet file, or its end is missing"),
        ("t.parquet", PARQUET[:-5], "t.parquet: is no Parquet file, or its end is missing"),
        ("t.parquet", b"PAR1" + b"\xff" * 60 + PARQUET[64:], "t.parquet: row group 0 is broken after row 0"),
        ("t.json", b'{"a":1}\n{"a":2}', "t.json: begins with an object, not an array; .* format: JSONLines"),
        ("t.json", b"prompt,completion", "t.json: is no JSON array"),
        ("t.csv", b"a,a\n1,2\n", "t.csv: two columns of the header have the same name"),
        ("t.csv", b"a,\xff\n1,2\n", "t.csv: the header cannot be read: the row is not UTF-8 text"),
    ],
)
def test_a_broken_file_is_refused_by_its_name(name, data, said, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TrainerError, match=said) as raised:
        records(tmp_path / name)
    assert raised.value.reason == "DatasetInvalid"
    assert raised.value.next_step


def test_parquet_with_bytes_that_are_no_text_is_a_bad_row(tmp_path):
    binary = pa.array([b"ok", b"\xff", b"fine"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, binary.buffers())
    pq.write_table(pa.table({"prompt": column}), tmp_path / "t.parquet")
    assert [record.problem for record in records(tmp_path / "t.parquet")] == [None, "the row is not UTF-8 text", None]


def test_parquet_reads_conversations_and_only_the_columns_of_the_job(tmp_path):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pq.write_table(pa.Table.from_pylist([{"chat": messages, "other": 1}]), tmp_path / "t.parquet")
    found = records(tmp_path / "t.parquet", messages="chat")
    assert [record.fields for record in found] == [{"chat": messages}]


@pytest.mark.parametrize("name", ["data", "data.txt", "data.gz", "data.tsv"])
def test_an_unknown_ending_asks_for_the_format(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(TrainerError, match=r"spec\.dataset\.train: the ending of") as raised:
        records(tmp_path / name)
    assert raised.value.reason == "SpecInvalid"
    assert raised.value.next_step == "Set spec.dataset.train.format to CSV, JSONLines, JSON or Parquet."


@pytest.mark.parametrize(("name", "data"), [("data", b'{"a":1}\n'), ("data.csv.gz", GZIP)])
def test_the_format_of_the_job_goes_before_the_ending(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert records(tmp_path / name, data_format="JSONLines")[0].fields == {"a": 1}


def test_load_rows_gives_rows_in_order_and_nothing_for_an_absent_split(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(WRITERS["jsonl"](ROWS))
    dataset = Dataset(train=DataFile(uri=f"file://{path}"))
    rows = list(load_rows(dataset, "train", allow_local=True))
    assert [row.completion for row in rows] == [row["completion"] for row in ROWS]
    assert [row.prompt[0].content for row in rows] == [row["prompt"] for row in ROWS]
    assert list(load_rows(dataset, "test", allow_local=True)) == []


def test_load_rows_refuses_a_bad_row_and_a_file_that_changed(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(WRITERS["jsonl"](ROWS) + b'{"prompt": "x"}\n')
    dataset = Dataset(train=DataFile(uri=f"file://{path}"))
    with pytest.raises(TrainerError, match=r"t\.jsonl: line 4: completion is missing"):
        list(load_rows(dataset, "train", allow_local=True))
    path.write_bytes(WRITERS["jsonl"](ROWS))
    with pytest.raises(TrainerError, match="has changed since it was checked"):
        list(load_rows(dataset, "train", allow_local=True, expected_sha256="0" * 64))
