"""Rows of JSON Lines with the same names and nothing but text are read into columns: the same rows, in less time."""

import io
import json

import msgspec
import pytest

from finetune_trainer.data.blocks import Block, Table, one_by_one
from finetune_trainer.data.files.json_lines import read_json_lines
from finetune_trainer.data.rows import Record


def read_by(text: bytes, size: int) -> list[Record | Block]:
    return list(read_json_lines(io.BufferedReader(io.BytesIO(text), buffer_size=size)))


ALIKE = [{"prompt": f"p{n}", "completion": "c" * n} for n in range(12)]
NOT_ALL_ALIKE = {
    "one name more": {"prompt": "p", "completion": "c", "id": "7"},
    "one name less": {"prompt": "p"},
    "another name": {"prompt": "p", "Completion": "c"},
    "another order": {"completion": "c", "prompt": "p"},
    "nothing": {"prompt": "p", "completion": None},
    "a number": {"prompt": 5, "completion": "c"},
    "parts": {"prompt": "p", "completion": ["c"]},
    "quotes and escapes": {"prompt": '"\\" {}\n', "completion": "\u2028 é"},
    "no names": {},
}


@pytest.mark.parametrize("size", [64, 300, 100_000])
@pytest.mark.parametrize("odd", NOT_ALL_ALIKE)
def test_rows_that_are_alike_are_read_into_columns_and_the_others_as_they_are(odd, size):
    rows = [*ALIKE, NOT_ALL_ALIKE[odd], *ALIKE]
    found = read_by(b"".join(json.dumps(row).encode() + b"\n" for row in rows), size)
    assert [record.fields for record in one_by_one(found)] == rows
    assert [record.position.line for record in one_by_one(found)] == list(range(1, len(rows) + 1))
    if size == 300:
        assert any(isinstance(one, Table) for one in found)


def test_a_name_twice_among_rows_that_are_alike_is_told():
    lines = [json.dumps(row) for row in ALIKE]
    lines[9] = '{"prompt": "p", "completion": "c", "prompt": "q"}'
    problems = [record.problem for record in one_by_one(read_by("\n".join([*lines, ""]).encode(), 300))]
    assert [line for line, problem in enumerate(problems, 1) if problem] == [10]
    assert "has the column prompt twice" in problems[9]


@pytest.mark.parametrize(
    "name", ["from", "a column", "a.b", "é", "0", "", '"quoted"', "back\\slash", "column_1", "new\nline"]
)
def test_any_name_is_a_column(name):
    rows = [{name: str(n), "column_0": "c" * 20} for n in range(40)]
    found = read_by(b"".join(json.dumps(row).encode() + b"\n" for row in rows), 300)
    assert [record.fields for record in one_by_one(found)] == rows


def test_a_file_of_ever_other_names_is_read_to_its_end_with_few_decoders(monkeypatch):
    made = []
    make = msgspec.defstruct
    monkeypatch.setattr(msgspec, "defstruct", lambda *args, **about: made.append(args) or make(*args, **about))
    rows = [{f"name{n}": "some text"} for n in range(200)]
    found = read_by(b"".join(json.dumps(row).encode() + b"\n" for row in rows), 64)
    assert [record.fields for record in one_by_one(found)] == rows
    assert len(made) <= 16
