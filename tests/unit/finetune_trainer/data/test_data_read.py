"""Files of every format and compression give the same rows, with the positions that a person would look for."""

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import time
from unittest.mock import Mock

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.dataset import DataFile, Dataset
from finetune_trainer.data import load_rows
from finetune_trainer.data.blocks import one_by_one
from finetune_trainer.data.files import background, source
from finetune_trainer.data.files.csv_rows import read_csv
from finetune_trainer.data.files.json_array import read_json_array
from finetune_trainer.data.rows import ROW_LIMIT, Position
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.data.files import (
    BIG,
    BZIP2,
    COMPRESSIONS,
    GZIP,
    LINES,
    PARQUET,
    ROWS,
    XZ,
    ZSTD,
    as_parquet,
    as_parquet_table,
    records,
    split_file,
)


def as_csv(rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


WRITERS = {
    "csv": as_csv,
    "jsonl": lambda rows: b"".join(json.dumps(row).encode() + b"\n" for row in rows),
    "json": lambda rows: json.dumps(rows, indent=2).encode(),
    "parquet": as_parquet,
}


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
        ("json", ["row 0 (line 2)", "row 1 (line 6)", "row 2 (line 10)"]),
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
        if any(row):  # a row of empty cells is none
            begins.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    found = list(one_by_one(read_csv(stream(text.getvalue().encode()), "t.csv")))
    assert [tuple(record.fields.values()) for record in found] == list(filter(any, rows))
    assert [record.position.line for record in found] == begins


JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(alphabet='ab"\\[]{},:\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"]', max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from("ab"), JSON_VALUE), max_size=6),
    st.sampled_from([None, 0, 1, 3]),
    st.integers(1, 9) | st.sampled_from([40, 1 << 16]),
)
def test_a_json_array_comes_back_wherever_its_blocks_are_cut(rows, indent, block):
    """Rows, and the line that each begins on, are those that the file has."""
    text = json.dumps(rows, indent=indent)
    begins, at = [], 1
    for _ in rows:
        at = text.index("{", at)
        begins.append(text.count("\n", 0, at) + 1)
        at = json.JSONDecoder().raw_decode(text, at)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune_trainer.data.files.json_array._BLOCK", block)
        found = list(one_by_one(read_json_array(stream(text.encode()), "t.json")))
    assert [record.fields for record in found] == rows
    assert [record.position for record in found] == [Position(line, row=row) for row, line in enumerate(begins)]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("bom.csv", b"\xef\xbb\xbfprompt,completion\na,b\n", [(2, None)]),
        ("blank.csv", b"prompt,completion\n\na,b\n\n", [(3, None)]),
        ("no-end.csv", b"prompt,completion\na,b", [(2, None)]),
        ("short.csv", b"prompt,completion\na\na,b\na,b,c\n", [(2, "1 cell where"), (3, None), (4, "3 cells where")]),
        ("quote.csv", b'prompt,completion\n"a"b,c\na,b\n', [(2, "quotes"), (3, None)]),
        ("open.csv", b'prompt,completion\na,b\n"a,b\nc,d\n', [(2, None), (3, "never closed")]),
        ("text.csv", b"prompt,completion\na,\xff\na,b\n", [(2, "not UTF-8"), (3, None)]),
        ("inch.csv", b'prompt,completion,6" x\na,b,c\n"a",b,c\nd,e,f"\n', [(2, None), (3, None), (4, None)]),
        ("inches.csv", b'prompt;completion;id,"6\na;b;c\n"a";b\n', [(2, None), (3, "2 cells where")]),
        ("lines.csv", b'prompt,completion,"6\n;"\n"a\n",b,c\n', [(3, None)]),
        ("multi.csv", b'prompt,completion\n"a\n\xff",b\na,b\n', [(2, "not UTF-8"), (4, None)]),
        ("cr.csv", b"prompt,completion\na,b\rc,d\ne,f\n", [(2, "carriage return"), (3, None)]),
        ("ends.csv", b"prompt,completion\r\na,b\nc,d\r\n", [(2, None), (3, None)]),
        ("ragged.csv", b"prompt,completion\na\nb,c,d\ne,f\n", [(2, "1 cell where"), (3, "3 cells"), (4, None)]),
        ("column.csv", b"prompt\na\n\nb\n", [(2, None), (4, None)]),
        ("inner-cr.csv", b"prompt,completion\r\na\r,b\r\nc,d\r\n", [(2, "carriage return"), (3, None)]),
        ("again.csv", b"prompt,completion\na,b\nprompt,completion\nc,d\n", [(2, None), (3, "header"), (4, None)]),
        ("again.csv", b"prompt,id\r\na,id\r\nprompt,id\r\n", [(2, None), (3, "the header is repeated here")]),
        ("quoted.csv", b'"prompt","completion"\n"a","b"\n"prompt","completion"\n', [(2, None), (3, "header")]),
        ("marked.csv", b'\xef\xbb\xbfid,prompt\na,b\n\xef\xbb\xbf"id",prompt\n', [(2, None), (3, "header")]),
        ("breaks.csv", b"prompt,completion\n" + b"\r\n" * 9 + b"a,b\n", [(11, None)]),
        ("breaks.jsonl", b"\n \r\n" * 90_000 + b'{"a":1}\n', [(180_001, None)]),
        ("bom.jsonl", b'\xef\xbb\xbf{"a":1}\n', [(1, None)]),
        (
            "bom-again.jsonl",
            b'{"a":1}\n\xef\xbb\xbf{"a":1}\n',
            [(1, None), (2, "1: there is a byte order mark")],
        ),
        (
            "caps.csv",
            b"prompt,id\na,b\nPrompt, ID\nPrompt,x\n",
            [(2, None), (3, "header is repeated"), (4, None)],
        ),
        ("named.csv", b"[id],prompt\n1,a\n", [(2, None)]),
        ("braces.csv", b"{id},prompt\n1,a\n", [(2, None)]),
        ("twice.jsonl", b'{"a":1,"a":2}\n{"a":1}\n', [(1, "the line has the column a twice in one"), (2, None)]),
        ("deep.jsonl", b'{"a":[{"b":"\\\\","b":"\\""}]}\n', [(1, "the line has a name twice in one object, and only")]),
        (
            "twice.json",
            b'[{"a":1},{"a":2},\n{"a":1 , "a" :2}]',
            [(0, None), (1, None), (2, "element has the column a")],
        ),
        ("python.jsonl", b"{'a': 1}\n{\"a\":1}\n", [(1, "at byte 2: it has Python's single quotes"), (2, None)]),
        ("two.jsonl", b'{"a":1} {"a":2}\n{"a":1} x\n', [(1, "JSON at byte .*: another object"), (2, "something foll")]),
        ("comma.jsonl", b'{"a":1},\n{"a":1}\n', [(1, "at byte 8: a comma follows its end"), (2, None)]),
        ("cr.jsonl", b'{"a":1}\r{"a":2}\r', [(1, "lines end with a lone carriage return, not with a line feed")]),
        ("nul.jsonl", b'{"a":1}\n\0\0\0', [(1, None), (2, "a NUL byte is in it")]),
        ("typed.jsonl", "{\u201ca\u201d: 1}\n".encode(), [(1, "its quotes are typographic ones")]),
        ("bare.jsonl", b'{a: 1}\n{"a":1}\n', [(1, "names must be in double quotes"), (2, None)]),
        ("tab.jsonl", b'{"a":"x\ty"}\n{"a":1}\n', [(1, "tabs and line breaks within text are written"), (2, None)]),
        ("broken.jsonl", b'{"a":"x\ny"}\n', [(1, "tabs and line breaks within text"), (2, "at byte 1")]),
        (
            "said.jsonl",
            '{"a":"say "hi""}\n{"a":"ein "\u00fc""}\n'.encode(),
            [(n, "a quote within text") for n in (1, 2)],
        ),
        ("path.jsonl", b'{"a":"C:\\dir"}\n', [(1, "a backslash that is part of text is written twice")]),
        (
            "last.jsonl",
            b'{"a":1,}\n{"a":[1,]}',
            [(n, "at byte [89]: there is a comma before a closing") for n in (1, 2)],
        ),
        ("said.jsonl", b'// rows\n{"a":1}\n# x\n', [(1, "JSON has no comments"), (2, None), (3, "no comments")]),
        ("blank.jsonl", b'\n{"a":1}\n  \n{"a":2}', [(2, None), (4, None)]),
        ("cut.jsonl", b'{"a":1}\n{"a":', [(1, None), (2, "breaks off")]),
        ("junk.jsonl", b'nope\n{"a":1}\n', [(1, "not valid JSON at byte"), (2, None)]),
        ("text.jsonl", b'{"a":"\xff"}\n{"a":1}\n', [(1, "not UTF-8"), (2, None)]),
        ("nul.csv", b"prompt,completion\na\0,b\na,b\n", [(2, "has a NUL byte"), (3, None)]),
        ("scalar.jsonl", b'"x"\n3\nnull\n', [(n, "not a JSON object") for n in (1, 2, 3)]),
        ("list.jsonl", b'[{"a":1}]\n{"a":1}\n', [(0, None), (1, "follows the array: .* or one object a line")]),
        ("late.jsonl", b'{"a":1}\n[{"a":1}]\n', [(1, None), (2, "the line is not a JSON object")]),
        ("pretty.jsonl", b'[\n{"a":1}\n]\n', [(0, None)]),
        ("lines.json", b'\xef\xbb\xbf \n{"a":1}\n{"a":\n{"a":2}', [(2, None), (3, "breaks off"), (4, None)]),
        ("first.json", b'{"a":NaN}\n{"a":1}\n', [(1, "NaN"), (2, None)]),
        ("nan.jsonl", b'{"a":NaN}\n{"a":-Infinity}\n', [(1, "NaN or Infinity"), (2, "NaN or Infinity")]),
        ("far.jsonl", b'{"a":1e999}\n{"a":' + b"9" * 5000 + b"}", [(n, "a number that is too large") for n in (1, 2)]),
        ("half.jsonl", b'{"a":"\\ud800"}\n{"a":"\\ud800 "}\n', [(n, "half of a character") for n in (1, 2)]),
        ("deep.jsonl", b'{"a":' * 100_000 + b'\n{"a":1}\n', [(1, "nested too deeply"), (2, None)]),
        ("bom.json", b'\xef\xbb\xbf[{"a":1}]', [(0, None)]),
        ("items.json", b'[1,{"a":1},"x"]', [(0, "not a JSON object"), (1, None), (2, "not a JSON object")]),
        ("cut.json", b'[{"a":1},{"a"', [(0, None), (1, "the array breaks off")]),
        ("open.json", b'[{"a":1}', [(0, "the array breaks off")]),
        ("comma.json", b'[{"a":1},', [(0, None), (1, "the array breaks off")]),
        ("bracket.json", b"[", [(0, "the array breaks off")]),
        ("after.json", b'[{"a":1}] x', [(0, None), (1, "something follows the array")]),
        ("end.json", b' [ {"a":1} ] \r\n\n', [(0, None)]),
        ("two.json", b"[]\n[]", [(1, "something follows the array")]),
        ("gap.json", b'[{"a":1},,{"a":1},]', [(0, None), (1, "there is nothing"), (2, None), (3, "there is nothing")]),
        ("text.json", b'[{"a":"\xff"},{"a":1}]', [(0, "not UTF-8"), (1, None)]),
        ("bad.json", b'[{"a":},{"a":"]\\"},["},{"a":1}]', [(0, "not valid JSON"), (1, None), (2, None)]),
        ("brace.json", b'[{"a":1}},{"a":1}]', [(0, "not valid JSON at byte 8"), (1, None)]),
        ("far.json", b'[{"a":1e999},{"a":' + b"9" * 5000 + b"}]", [(0, "too large"), (1, "too large")]),
        ("deep.json", b'[{"a":' + b"[" * 50_000 + b"]" * 50_000 + b'},{"a":1}]', [(0, "nested too deeply"), (1, None)]),
        ("cut-deep.json", b"[" * 100_000, [(0, "the array breaks off")]),
        ("late.json", b'[{"a":1},{"a":2},{"a":NaN},{"a":4}]', [(0, None), (1, None), (2, "NaN"), (3, None)]),
        ("order.json", b'[{"a":1,"b":2},{"b":1,"a":2},{"a":1}]', [(0, None), (1, None), (2, None)]),
        ("empty.json", b"[]", []),
        ("nothing.json", b" \n", []),
    ],
)
def test_bad_rows_are_found_where_they_are(name, data, expected, tmp_path):
    (tmp_path / name).write_bytes(data)
    found = records(tmp_path / name)
    places = [record.position.line if record.position.row is None else record.position.row for record in found]
    assert places == [place for place, _ in expected]
    for record, (_, problem) in zip(found, expected, strict=True):
        assert (record.problem is None) == (problem is None)
        assert problem is None or re.search(problem, record.problem)


LONG_LINES = (b"x" * 1000 + b"\n") * (ROW_LIMIT // 900)


@pytest.mark.alike
@pytest.mark.parametrize(
    ("name", "data", "problems"),
    [
        ("long.jsonl", b'{"a":"' + BIG + b'"}\n{"a":1}\n', ["longer than 4 MiB", None]),
        ("long.csv", b"a,b\n" + BIG + b",1\n1,2\n", ["longer than 4 MiB", None]),
        ("open.csv", b'a,b\n"' + LONG_LINES, ["longer than 4 MiB"]),
        ("long.json", b'[{"a":1},{"a":"' + BIG + b'"},{"a":1}]', [None, "longer than 4 MiB", None]),
        ("space.json", b"[" + b" " * len(BIG) + b'{"a":1}]', [None]),
        ("cell.csv", b'a,b\n1,"' + LONG_LINES + b'"\n1,2\n', ["longer than 4 MiB", None]),
        ("line.csv", b'a,b\n1,"\n' + BIG + b'"\n1,2\n', ["longer than 4 MiB", None]),
        ("long.parquet", as_parquet([{"prompt": BIG.decode()}, {"prompt": "x"}]), ["longer than 4 MiB", None]),
    ],
)
def test_rows_over_the_limit_are_bad_rows(name, data, problems, tmp_path):
    (tmp_path / name).write_bytes(data)
    found = records(tmp_path / name)
    for record, problem in zip(found, problems, strict=True):
        assert (record.problem is None) == (problem is None)
        assert problem is None or problem in record.problem


WIDE_XZ = lzma.compress(LINES, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}])

WIDE = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=30)).compressobj()
WIDE = WIDE.compress(b'{"a":1}\n' * 100) + WIDE.flush()
SERVERS_WORDS = "is what a server answers that does not give the file"
TWINS = as_parquet_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["prompt", "prompt"]))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.jsonl.gz", GZIP[:-10], "t.jsonl.gz: the gzip compression breaks off in the middle"),
        ("t.jsonl.gz", b"no\0 text", "t.jsonl.gz: the gzip compression is broken, or not compressed this way"),
        ("t.jsonl.gz", GZIP[:30] + b"\0\0\0\0" + GZIP[34:], "t.jsonl.gz: the gzip compression is broken"),
        ("t.jsonl.zst", ZSTD[:-3], "t.jsonl.zst: the zstd compression breaks off in the middle"),
        ("t.jsonl.zst", b"no\0 text", "t.jsonl.zst: the zstd compression is broken, or not compressed this way"),
        ("t.jsonl.bz2", BZIP2[:-3], "t.jsonl.bz2: the bzip2 compression breaks off in the middle"),
        ("t.jsonl.bz2", BZIP2 + b"more", "t.jsonl.bz2: the bzip2 compression is broken"),
        ("t.jsonl.xz", XZ[:-3], "t.jsonl.xz: the xz compression breaks off in the middle"),
        ("t.jsonl.xz", XZ[:20] + b"\0\0\0\0" + XZ[24:], "t.jsonl.xz: the xz compression is broken"),
        ("t.jsonl.xz", WIDE_XZ, "t.jsonl.xz: the xz compression needs a window of more than 128 MiB"),
        ("t.parquet", b"PAR1 nothing", "t.parquet: is not a Parquet file, or its end is missing"),
        ("t.parquet", PARQUET[:-5], "t.parquet: is not a Parquet file, or its end is missing"),
        ("t.parquet", b"PAR1" + b"\xff" * 60 + PARQUET[64:], "t.parquet: row group 0 is broken after row 0"),
        ("t.jsonl.gz", gzip.compress(GZIP, mtime=0), "t.jsonl.gz: is compressed twice"),
        ("t.jsonl.zst", WIDE, "t.jsonl.zst: the zstd compression needs a window of more than 128 MiB"),
        ("t.json", b'{\n"prompt":"a"}', "t.json: begins with an object that is not a row: .* goes on in the next line"),
        ("t.json", b'{"rows":[{"prompt":"a"}]}', "t.json: begins with an object that is not a row: it holds the rows"),
        ("t.json", b'{"prompt":{"0":"a"},"completion":{"0":"b"}}', "t.json: begins with an object that is not a row"),
        ("t.json", b'{"0":{"prompt":"a"},"1":{"prompt":"b"}}', "t.json: begins with an object that is not a row"),
        ("t.json", b'{"prompt":["a","b"],"completion":["c","d"]}', "t.json: begins with an object that is not a row"),
        ("t.json", b'{"columns":["prompt"],"data":[["a"],["b"]]}', "t.json: begins with an object that is not a row"),
        ("t.csv", b"Report,\r\n\r\nprompt,completion\r\na,b\r\n", "t.csv: the header is on line 3, below lines"),
        ("t.csv", b"# title\nprompt;completion\na;b\n", "t.csv: the header is on line 2, below lines"),
        (
            "t.csv",
            b"| prompt | completion |\n|---|:---:|\n| a | b |\n",
            "t.csv: is a table drawn for people, as Markdown",
        ),
        ("t.csv", b"prompt | completion\r\n--- | ---\r\na | b\r\n", "t.csv: is a table drawn for people"),
        ("t.json", b"prompt,completion", "t.json: is not a JSON array"),
        ("t.csv", b'"prompt,completion\n' + b"a,b\n" * 300, "t.csv: the header cannot be read: a quote is opened"),
        ("t.csv", b"prompt,prompt\n1,2\n", "t.csv: two columns of the header are called 'prompt'"),
        ("t.csv", b'{"prompt":"a"}\n', "t.csv: begins like JSON, not like CSV"),
        ("t.csv", b"\xef\xbb\xbf[\n  {", "t.csv: begins like JSON, not like CSV"),
        ("t.csv", "prompt".encode("utf-32"), "t.csv: is UTF-32 text"),
        ("t.csv", "prompt".encode("utf-16")[:-1], "t.csv: the UTF-16 text breaks off within a character"),
        ("t.csv", b"crc\0\0\0\2\0", "t.csv: has NUL bytes at its beginning: it is not text"),
        ("t.csv", b"messages;x|messages\n", "t.csv: its header can be read by semicolons and by bars"),
        ("t.csv", b"PK\x03\x04", "t.csv: is a zip archive or a spreadsheet"),
        ("t.jsonl", b"BZh9", "t.jsonl: the bzip2 compression breaks off"),
        ("t.jsonl.bz2", bz2.compress(XZ), "t.jsonl.bz2: is compressed twice"),
        ("t.jsonl", PARQUET, "t.jsonl: is a Parquet file"),
        ("t.jsonl", b"ARROW1\0\0", "t.jsonl: is an Arrow or Feather file"),
        ("t.parquet", b"FEA1", "t.parquet: is an Arrow or Feather file"),
        ("t.csv", b"%PDF-1.4\n", "t.csv: is a PDF"),
        ("t.csv", b"+---+---+\n| a | b |\n+---+---+\n", "t.csv: is a table drawn for people"),
        ("t.csv", b" prompt | completion\n--------+-----------\n a | b\n", "t.csv: is a table drawn for people"),
        ("t.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", "t.csv: is a zip archive or a spreadsheet"),
        ("t.jsonl", b"\x89PNG\r\n\x1a\n", "t.jsonl: is a picture, a sound, .* and has no rows"),
        ("t.csv", b"{\\rtf1 a}", "t.csv: is a picture, a sound, an array, a program or a document, and has no rows"),
        ("t.jsonl", b"\x04\x22\x4d\x18", "t.jsonl: is compressed with lz4"),
        ("t.jsonl", b"Rar!\x1a\x07", "t.jsonl: is an archive of 7-Zip or RAR"),
        ("t.csv", b"\x80\x04\x95", "t.csv: is a pickle file"),
        ("t.jsonl", b"t.jsonl".ljust(257, b" ") + b"ustar\n", "t.jsonl: is a tar archive"),
        ("t.jsonl", b"\n<!DOCTYPE html>", "t.jsonl: is a web page, not data"),
        ("t.csv", b"\xef\xbb\xbf<html>", "t.csv: is a web page, not data"),
        ("t.jsonl", b'<?xml version="1.0"?>\n<posts>\n  <row Id="1"/>', "t.jsonl: is XML"),
        ("t.json", b'{"error":{"message":"Rate limit exceeded","code":429}}', SERVERS_WORDS),
        ("t.jsonl", b"Access to dataset a/b is restricted. Please log in.", SERVERS_WORDS),
        ("t.csv", b"<head><title>Sign in</title></head>", "t.csv: is a web page, not data"),
        ("t.csv", b'<table border="1"><tr><td>prompt', "t.csv: is a web page, not data"),
        ("t.jsonl", b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', SERVERS_WORDS),
        ("t.csv", b"404: Not Found", SERVERS_WORDS),
        ("t.json", b'{"message": "Not Found", "documentation_url": "https://a"}', SERVERS_WORDS),
        ("t.jsonl", b'{"error": {"code": 403, "message": "Forbidden"}}\n', SERVERS_WORDS),
        (
            "t.jsonl",
            b'{"data":[{"prompt":"a"}]}\n',
            "t.jsonl: begins with an object that is not a row: it holds the rows",
        ),
        ("t.parquet", b"version https://git-lfs.github.com/spec/v1\n", "t.parquet: is a pointer of Git LFS"),
        ("t.parquet", b"PARE" + PARQUET[4:-4] + b"PARE", "t.parquet: is an encrypted Parquet file"),
        ("t.parquet", TWINS, "t.parquet: two columns are called 'prompt'"),
        ("t.csv", b"a,\xff\n1,2\n", "t.csv: the header cannot be read: the row is not UTF-8 text"),
    ],
)
def test_a_broken_file_is_refused_by_its_name(name, data, said, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TrainerError, match=said) as raised:
        records(tmp_path / name)
    assert raised.value.reason == "DatasetInvalid"
    assert raised.value.next_step


def test_a_row_that_quotes_a_server_is_a_row(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"error":"not found: x","prompt":"What now?","completion":"b"}')
    assert len(records(tmp_path / "t.jsonl")) == 1
    (tmp_path / "t.csv").write_text("Forbidden,prompt\na,b\n")
    assert len(records(tmp_path / "t.csv")) == 1


def test_a_first_line_of_many_bars_is_looked_at_in_no_time(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"prompt,completion" + b"|" * (1 << 17) + b"\na,b\n")
    begun = time.process_time()
    assert len(records(tmp_path / "t.csv")) == 1
    assert time.process_time() - begun < 2, "it takes 15 seconds where each bar is a place to begin again"


def test_one_object_around_more_than_a_row_may_have_is_no_row(tmp_path):
    (tmp_path / "t.json").write_bytes(b'{"rows":[{"prompt":"' + BIG + b'"}]}')
    with pytest.raises(TrainerError, match="begins with an object that is not a row: it holds the rows"):
        records(tmp_path / "t.json")


def test_columns_that_no_job_asks_for_may_have_one_name(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"prompt,completion,,\na,b,,\n")
    assert records(tmp_path / "t.csv")[0].fields == {"prompt": "a", "completion": "b", "": ""}


@pytest.fixture(params=["as it is read", "by another thread"])
def hashed(request, monkeypatch):
    """How files are hashed: both ways, the first of small ones."""
    if request.param == "by another thread":
        monkeypatch.setattr(source, "PIECE_BYTES", 100)
        monkeypatch.setattr(background, "PIECE_BYTES", 100)


@pytest.mark.usefixtures("hashed")
def test_rows_that_are_added_while_a_file_is_read_are_noticed_later(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(LINES)
    with split_file(path) as file:
        found = file.records()
        next(found)
        with path.open("ab") as more:
            more.write(LINES)
        count = 1 + len(list(found))
        assert (count, file.size) == (2000, len(LINES) * 2)  # what is hashed is what was read
        assert file.sha256 == hashlib.sha256(LINES * 2).hexdigest()


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_a_large_file_that_is_written_anew_while_it_is_read_is_refused(name, tmp_path, monkeypatch):
    """Its rows may be of other bytes than its hash, which another thread makes."""
    monkeypatch.setattr(source, "PIECE_BYTES", 100)
    path = tmp_path / name
    path.write_bytes(LINES if name == "t.jsonl" else PARQUET)
    with split_file(path) as file:
        found = file.records()
        next(found)
        with path.open("r+b") as other:
            other.write(path.read_bytes()[:20])
        os.utime(path, ns=(0, 0))
        with pytest.raises(TrainerError, match=r"has changed while it was read"):
            file.sha256 if list(found) else None


def test_a_large_file_that_is_refused_by_its_name_is_hashed_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "PIECE_BYTES", 100)
    monkeypatch.setattr(background.BackgroundHash, "close", closed := Mock())
    path = tmp_path / "t.xlsx"
    path.write_bytes(LINES * 100)
    with pytest.raises(TrainerError) as refused:  # which keeps what was opened, as the verdict on a split does
        split_file(path)
    assert refused.value.reason == "SpecInvalid"
    closed.assert_called_once()


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.json", "t.jsonl.gz", "t.parquet"])
def test_size_and_hash_are_of_all_bytes_that_are_stored(name, tmp_path):
    path = tmp_path / name
    data = WRITERS[name.removeprefix("t.").removesuffix(".gz")](ROWS * 50)
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with split_file(path) as file:
        assert len(list(file.records())) == 50 * len(ROWS)
        assert (file.size, file.sha256) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.usefixtures("hashed")
def test_a_file_that_is_cut_while_it_is_read_is_not_taken_for_a_short_one(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(LINES * 100)
    with split_file(path) as file:
        found = file.records()
        next(found)
        with path.open("r+b") as other:
            other.truncate(100)
        with pytest.raises(TrainerError, match=r"t\.jsonl: has changed while it was read"):
            list(found)


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
