"""Files as old programs, editors and scrapers leave them: read where they can mean one thing, told by name else."""

import contextlib
import json
import sqlite3

import pyarrow as pa
import pytest
from pyarrow import orc

from finetune_api.exit_codes import ExitCode
from tests.unit.finetune_trainer.data.files import as_parquet, as_parquet_table
from tests.unit.finetune_trainer.following import followed

ROWS = [{"prompt": f"question {number}", "completion": f"answer {number}"} for number in range(3)]


def as_lines(rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


LINES = as_lines(ROWS)
TABLE = "prompt,completion\n" + "".join(f"question {number},answer {number}\n" for number in range(3))
ARRAY = json.dumps(ROWS)


@pytest.mark.parametrize("end", ["\x1a", "\x1a\n", "\x1a\r\n"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", TABLE),
        ("t.csv", TABLE.rstrip("\n")),
        ("t.csv", TABLE.replace("\n", "\r\n")),
        ("t.jsonl", LINES),
        ("t.jsonl", LINES.rstrip("\n")),
        ("t.json", ARRAY),
    ],
)
def test_the_end_of_a_file_of_dos_is_its_end(check, name, text, end):
    result = check(train=(name, text + end))
    assert (result.code, result.verdict.train.rows) == (ExitCode.OK, 3)
    last = check(train=("as-lines.jsonl", LINES), validation=(name, text + end)).verdict
    assert last.shared_rows[0].rows == 3, "and none of it is learnt"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.csv", TABLE + "\x1a" + TABLE, "line 5: the header is repeated here"),
        ("t.jsonl", LINES + "\x1a" + LINES, "line 4: the line is not valid JSON at byte 1: there is the end of a DOS"),
        ("t.json", ARRAY + "\x1a" + ARRAY, "something follows the array"),
    ],
)
def test_the_end_of_a_file_of_dos_within_another_is_told(check, name, data, said):
    """`copy a+b c` leaves it."""
    result = check(train=(name, data))
    assert result.code == ExitCode.DATASET_INVALID
    assert said in result.verdict.message


@pytest.mark.parametrize(
    "data", [ARRAY[:-1] + ",]", "[,]", "[,{}]", ARRAY.replace("}, {", "},, {", 1), ARRAY[:-1] + ",,]"]
)
def test_commas_without_an_element_are_told_and_which_to_take_away(check, data):
    result = check(train=("t.json", data))
    assert result.code == ExitCode.DATASET_INVALID
    assert "there is nothing between two commas" in result.verdict.message
    assert ("removes comments, commas after the last part" in result.verdict.next_step) == (data != "[,{}]")


@pytest.mark.parametrize(
    ("name", "text"),
    [("t.csv", TABLE), ("t.jsonl", LINES), ("mixed.csv", TABLE.replace("\n", "\r\n", 2).replace("\n", "\r", 3))],
)
def test_lines_that_end_as_old_macs_end_them_get_a_command_that_mends_them(check, tmp_path, name, text):
    data = text.replace("\n", "\r") if name != "mixed.csv" else "prompt,completion\r\na,b\r\nc,d\re,f\r\n"
    result = check(train=(name, data))
    assert result.code == ExitCode.DATASET_INVALID
    assert "lone carriage return" in result.verdict.message
    mended = check(train=(f"mended-{name}", followed(result.verdict.next_step, tmp_path, FILE=data)))
    assert (mended.code, mended.verdict.train.rows) == (ExitCode.OK, 3)


@pytest.mark.parametrize(
    ("name", "data"),
    [("t.jsonl", LINES.replace("n 1", "n\0 1")), ("t.csv", TABLE + "\0" * 99), ("t.jsonl", LINES + "\0")],
)
def test_nul_bytes_get_a_command_that_takes_them_away(check, tmp_path, name, data):
    result = check(train=(name, data))
    assert result.code == ExitCode.DATASET_INVALID
    assert "NUL byte" in result.verdict.message
    mended = check(train=(f"mended-{name}", followed(result.verdict.next_step, tmp_path, FILE=data)))
    assert (mended.code, mended.verdict.train.rows) == (ExitCode.OK, 3)


@pytest.mark.parametrize(
    ("name", "write", "place"),
    [
        ("t.jsonl", as_lines, "line 2"),
        ("t.json", json.dumps, "row 1 (line 1)"),
        ("t.parquet", as_parquet, "row group 0 row 1"),
    ],
)
def test_each_problem_has_a_line_of_its_own_at_a_shell(check, name, write, place):
    said = check(train=(name, write([{"prompt": "", "completion": "b"}] * 2))).err
    assert f"\n  {place}: prompt is empty" in said


SMILED = LINES.replace("answer 1", "answer 😀")
WITH_QUOTES = LINES.replace("question 1", r"question \"1\"")
MENDED = {
    "times before objects": ("t.jsonl", "".join(f"2026-11-30T09:00:00Z INFO {line}\n" for line in LINES.splitlines())),
    "a stream of events": ("t.jsonl", "".join(f"data: {line}\n\n" for line in LINES.splitlines()) + "data: [DONE]\n"),
    "a script": ("t.json", f"export const rows = {ARRAY};\n"),
    "a comment above": ("t.json", f"// rows\n{ARRAY}\n"),
    "CESU-8": ("t.jsonl", SMILED.replace("😀", "\ud83d\ude00").encode(errors="surrogatepass")),
    "CESU-8 in a table": ("t.csv", TABLE.replace("r 1", "r \ud83d\ude00").encode(errors="surrogatepass")),
    "backslashes of COPY": ("t.jsonl", WITH_QUOTES.replace("\\", "\\\\")),
    "a header in lists": (
        "t.json",
        json.dumps([["id", "prompt", "completion"], *([0, *row.values()] for row in ROWS)]),
    ),
    "a header in lists on lines": (
        "t.jsonl",
        "".join(f"{json.dumps([*row])}\n" for row in (ROWS[0], *map(dict.values, ROWS))),
    ),
    "three layouts": (
        "t.jsonl",
        f'{json.dumps(ROWS[0])}\n{{"question": "question 1", "answer": "answer 1"}}\n'
        '{"query": "question 2", "output": "answer 2"}\n',
    ),
    "times in brackets": ("t.jsonl", "".join(f"[2026-11-30 09:00:00] {line}\n" for line in LINES.splitlines())),
}


@pytest.mark.parametrize("what", MENDED)
def test_the_command_of_the_next_step_leaves_nothing_out_and_learns_nothing_else(check, tmp_path, what):
    name, data = MENDED[what]
    made = followed(check(train=(name, data)).verdict.next_step, tmp_path, FILE=data)
    mended = check(train=(f"mended-{name}", made), validation=("v.jsonl", {"CESU-8": SMILED}.get(what, LINES)))
    assert (mended.code, mended.verdict.train.rows) == (ExitCode.OK, 3), mended.err
    shared = mended.verdict.shared_rows[0].rows
    assert shared == (2 if what in ("CESU-8 in a table", "backslashes of COPY") else 3)


def test_other_columns_of_a_row_without_a_question_are_not_taken_for_it(check):
    rows = [{**ROWS[0], "source": "s", "label": "l"}, {"prompt": None, "completion": "c", "source": "s", "label": "l"}]
    data = "".join(f"{json.dumps(row)}\n" for row in rows)
    assert "several layouts" not in check(train=("t.jsonl", data)).verdict.next_step


def test_a_byte_order_mark_that_files_put_together_left_in_a_text_is_told(check):
    """Of JSON Lines the row is refused; a cell of CSV may hold anything."""
    result = check(train=("t.csv", TABLE + "\ufeffquestion 9,answer 9\n"))
    assert result.code == ExitCode.OK
    (said,) = [warning for warning in result.verdict.warnings if "U+FEFF" in warning]
    assert said.startswith("t.csv: 1 row with a byte order mark in the text (U+FEFF) (the first: line 5)")


@pytest.mark.parametrize(
    ("data", "made"),
    [
        ([[row] for row in ROWS], ROWS),
        (
            [[0, *row.values()] for row in ROWS],
            [{"column0": 0, "column1": row["prompt"], "column2": row["completion"]} for row in ROWS],
        ),
    ],
    ids=["rows in lists", "cells"],
)
def test_lists_within_a_list_are_made_rows_and_nothing_else(check, tmp_path, data, made):
    """Not a message each, nor the first two cells: wrong rows would be learnt."""
    text = json.dumps(data)
    rows = followed(check(train=("t.json", text)).verdict.next_step, tmp_path, FILE=text)
    assert [json.loads(line) for line in rows.splitlines()] == made


@pytest.mark.parametrize("ending", ["jsonlines", "jl", "JSONLINES"])
def test_other_endings_for_json_lines_are_known(check, ending):
    assert check(train=(f"t.{ending}", LINES)).verdict.train.format == "JSONLines"


def test_lines_that_are_lists_are_told_how_rows_come_of_them(check):
    result = check(train=("t.jsonl", "".join(f"{json.dumps([*row.values()])}\n" for row in ROWS)))
    assert result.code == ExitCode.DATASET_INVALID
    assert "makes rows of lists of messages, of pairs of texts" in result.verdict.next_step


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([b"a", b"b"]), "makes it of bytes, where those are UTF-8"),
        (
            pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]),
            "bytes.decode",
        ),
    ],
)
def test_bytes_of_parquet_are_told_how_text_comes_of_them(check, column, said):
    table = pa.table({"prompt": column, "completion": ["x"] * len(column)})
    result = check(train=("t.parquet", as_parquet_table(table)))
    assert result.code == ExitCode.DATASET_INVALID
    assert said in result.verdict.next_step
    assert "iconv" not in result.verdict.next_step


@pytest.mark.parametrize(
    "text", ["Fish &amp; chips", "it&#39;s", "a &lt;br&gt; b", "&nbsp;x", "caf&#xE9;", "&quot;no&quot;"]
)
@pytest.mark.parametrize("column", ["prompt", "completion"])
def test_what_html_writes_for_characters_is_warned_of(check, text, column):
    result = check(train=("t.jsonl", LINES + json.dumps({**ROWS[0], column: text}) + "\n"))
    assert result.code == ExitCode.OK
    (said,) = [warning for warning in result.verdict.warnings if "HTML" in warning]
    assert said.startswith("t.jsonl: 1 row with")
    assert "(the first: line 4)" in said


@pytest.mark.parametrize("text", ["Fish & chips", "a && b; c", "x &y; z", "?a=1&amount=2;", "&#; &#x;"])
def test_other_ampersands_are_not(check, text):
    result = check(train=("t.jsonl", json.dumps({"prompt": text, "completion": text + "!"}) + "\n"))
    assert not [warning for warning in result.verdict.warnings if "HTML" in warning]


def as_arrow(*, stream):
    table, sink = pa.Table.from_pylist(ROWS), pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def as_orc():
    sink = pa.BufferOutputStream()
    orc.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


def as_sqlite():
    with contextlib.closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE t (prompt, completion)")
        base.executemany("INSERT INTO t VALUES (?, ?)", [tuple(row.values()) for row in ROWS])
        base.commit()
        return base.serialize()


OTHERS = {
    "a stream of Arrow": ("data-00000-of-00001.arrow", as_arrow(stream=True)),
    "a file of Arrow": ("t.arrow", as_arrow(stream=False)),
    "Feather by another name": ("t.csv", as_arrow(stream=False)),
    "ORC": ("t.orc", as_orc()),
    "ORC by another name": ("t.jsonl", as_orc()),
    "SQLite": ("t.db", as_sqlite()),
    "SQLite by another name": ("t.parquet", as_sqlite()),
}


@pytest.mark.parametrize("what", OTHERS)
def test_tables_of_other_programs_are_made_rows_by_the_next_step(check, tmp_path, what):
    name, data = OTHERS[what]
    followed(check(train=(name, data)).verdict.next_step, tmp_path, {"TABLE": "t"}, FILE=data)
    (made,) = tmp_path.glob("ROWS.*")
    result = check(train=(f"made{made.suffix}", made.read_bytes()), validation=("v.jsonl", LINES))
    assert (result.code, result.verdict.shared_rows[0].rows) == (ExitCode.OK, 3), result.err


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
@pytest.mark.parametrize("begun", ["", "\\restrict AbC\n\n", "SET statement_timeout = 0;\n", "BEGIN;\n"])
def test_a_dump_of_a_database_is_told_as_one(check, name, begun):
    rows = "COPY public.rows (prompt, completion) FROM stdin;\na\tb\n\\.\n"
    dump = f"--\n-- PostgreSQL database dump\n--\n\n{begun}{rows}"
    assert "is a dump of a database" in check(train=(name, dump)).verdict.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml", "is a spreadsheet or a document of an office program"),
        (b"PK\x03\x04" + b"\0" * 26 + b"train.jsonl", "is a zip archive or a spreadsheet"),
    ],
)
def test_a_spreadsheet_is_told_from_an_archive(check, data, said):
    assert said in check(train=("t.csv", data)).verdict.message


@pytest.mark.parametrize(
    "line",
    [
        "12/31/23, 10:00 - {}: {}\n",
        "12/31/23, 10:00\u202fPM - {}: {}\n",
        "[31.12.23, 10:02:11] {}: {}\n",
        "\u200e[2023-12-31, 10:02] {}: {}\r\n",
    ],
)
def test_a_chat_of_a_messenger_is_made_pairs_by_the_next_step(check, tmp_path, line):
    said = [("Ann", "hi"), ("Ann", "are you\nthere?"), ("ANSWERER", "yes: I am"), ("Ann", "bye")]
    data = "".join(line.format(*one) for one in said)
    verdict = check(train=("chat.csv", data)).verdict
    assert verdict.message == "chat.csv: is a chat as messengers export it"
    made = [json.loads(row) for row in followed(verdict.next_step, tmp_path, FILE=data).splitlines()]
    assert made == [{"prompt": "hi\nare you\nthere?", "completion": "yes: I am"}]
