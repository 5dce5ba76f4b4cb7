"""Rows that are read and judged many at once get the verdict that they get one by one, whatever the file holds."""

import csv
import io
import json
from contextlib import ExitStack, suppress
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finetune_api.dataset import Columns, DataFile
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.data import check_dataset
from finetune_trainer.data.blocks import Block, Objects, one_by_one
from finetune_trainer.data.columns import to_rows
from finetune_trainer.data.files.array_blocks import elements
from finetune_trainer.data.files.csv_rows import _row
from finetune_trainer.data.files.json_lines import read_json_lines
from finetune_trainer.data.fingerprints import fingerprint, fingerprints
from finetune_trainer.data.layouts import Layouts
from finetune_trainer.data.read import SplitFile
from finetune_trainer.data.rows import Position, Row, Rows, Turn, element_places, line_places
from finetune_trainer.errors import TrainerError
from tests.unit.finetune_trainer.data.edits import EDITS, edited

DATA = "finetune_trainer.data"
CAREFULLY = {
    f"{DATA}.files.lines.Lines.ahead": lambda _: b"",
    f"{DATA}.files.json_array.complete_elements": lambda *_: None,
    f"{DATA}.files.parquet._columns": lambda _: None,
    f"{DATA}.columns._plain": lambda *_: None,
}
"""What makes blocks, and what takes rows together, put out of work."""

TEXT = st.sampled_from(
    ["a", "b c", "ä", "x,y", 'say "so"', "two\nlines", "a\rb", " lead", "}\n{", "🙂", "", " ", "\u200b", "~~~"]
)
ODD = st.none() | st.integers(-9, 9) | st.sampled_from([[], ["a"], {}, True, "\x85"])
TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT})
PLAIN_ROW = st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT}, optional={"system": TEXT, "id": TEXT})
ROW = PLAIN_ROW | st.fixed_dictionaries(
    {}, optional={"prompt": TEXT | ODD, "completion": TEXT | ODD, "system": TEXT | ODD, "messages": st.lists(TURN)}
)
WHO = st.sampled_from(["system", "user", "assistant", "assistant", "developer", "human", "gpt", "tool"])
SAID = st.sampled_from(["a", "ä", " lead", "}\n{", "\u200b", ""])
MESSAGE = st.fixed_dictionaries({"role": WHO, "content": SAID | ODD}, optional={"weight": st.sampled_from([0, 1])})
ANSWERED = st.lists(st.sampled_from(["a", "ä", " lead", "}\n{", "nan"]), min_size=2, max_size=5).map(
    lambda texts: [
        {"role": role, "content": text}
        for role, text in zip(["user", "assistant", "user", "system", "assistant"], texts, strict=False)
    ]
)
CHAT = st.fixed_dictionaries({"messages": ANSWERED | ANSWERED | st.lists(MESSAGE, max_size=4)})
SHAREGPT = ANSWERED.map(
    lambda turns: {"conversations": [{"from": turn["role"], "value": turn["content"]} for turn in turns]}
)
ROWS = (
    st.lists(PLAIN_ROW, max_size=12)
    | st.lists(PLAIN_ROW | st.just({}), max_size=12)
    | st.lists(ROW, max_size=12)
    | st.lists(CHAT, max_size=12)
    | st.lists(SHAREGPT, max_size=12)
    | st.lists(PLAIN_ROW | CHAT | SHAREGPT, max_size=12)
)
LINE_END = st.sampled_from(["\n", "\r\n"])


def as_json_lines(rows, end):
    return "".join(json.dumps(row) + end for row in rows).encode()


def as_json(rows, end):
    return ("[" + f",{end}".join(json.dumps(row) for row in rows) + "]").encode()


def as_csv(rows, end):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["prompt", "completion", "system"], lineterminator=end, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows, _end):
    def column(name):
        return [row.get(name) if isinstance(row.get(name), str | None) else None for row in rows]

    def turns_of(row):
        found = row.get("messages")
        return found and [one if isinstance(one["content"], str | None) else one | {"content": None} for one in found]

    names = sorted({name for row in rows for name in row} - {"messages", "conversations"}) or ["prompt"]
    table = pa.table({name: pa.array(column(name), pa.string()) for name in names})
    if any("messages" in row for row in rows):
        turn = pa.struct({"role": pa.string(), "content": pa.string()})
        table = table.append_column("messages", pa.array(map(turns_of, rows), pa.list_(turn)))
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=5)
    return sink.getvalue()


WRITERS = {"jsonl": as_json_lines, "json": as_json, "csv": as_csv, "parquet": as_parquet}


def everything_on(path, data):
    """The verdict on a job that trains on the file and validates on it too, all its records, and what is learnt."""
    path.write_bytes(data)
    same = DataFile(uri=path.as_uri())
    spec = {"connectionRef": {"name": "c"}, "baseModel": "m", "modelRef": {"name": "m"}}
    spec = FineTuneJobSpec.model_validate(spec | {"dataset": {"train": same, "validation": same}})
    verdict = check_dataset(spec, tokenizer=None, allow_local=True)
    records = []
    with suppress(TrainerError), SplitFile(same, "train", Columns(), allow_local=True, air_gapped=False) as file:
        records.extend(file.records())
    rows = []
    with suppress(TrainerError), SplitFile(same, "train", Columns(), allow_local=True, air_gapped=False) as file:
        for found in to_rows(file.blocks(), Layouts(Columns())):
            rows.extend(found.rows() if isinstance(found, Rows) else [found])
    return verdict, records, rows


@pytest.mark.parametrize("ending", WRITERS)
def test_any_file_gets_the_verdict_that_its_rows_get_one_by_one(ending, tmp_path):
    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(ROWS, LINE_END, st.just([]) | EDITS, st.integers(1, 400))
    @example([{"prompt": "a", "completion": "b"}] * 9, "\n", [], 64)
    @example([{"prompt": "a", "completion": "b", "system": "c"}] * 9, "\r\n", [(0.9, 0.0, b'"')], 400)
    @example(
        [{"prompt": "a", "completion": "b"}, *[{}] * 5, {"prompt": "c", "completion": "d"}, *[{}] * 9], "\r\n", [], 30
    )
    @example([{}] * 9, "\n", [(0.8, 0.0, b"\n\r\n,\r")], 400)
    def check(rows, end, edits, buffer):
        data = edited(WRITERS[ending](rows, end), edits)
        with ExitStack() as stack:
            stack.enter_context(patch(f"{DATA}.files.source.BUFFER", buffer))
            stack.enter_context(patch(f"{DATA}.files.json_array._BLOCK", buffer))
            together = everything_on(tmp_path / f"t.{ending}", data)
            for name, instead in CAREFULLY.items():
                stack.enter_context(patch(name, instead))
            assert together == everything_on(tmp_path / f"t.{ending}", data)

    check()


MARKS = rb"""{ } {} , [ ] : " \" "a" "a": "a":1 {"a":1} {"a":"}"} {"a":"x","a":"y"} {"a":[{"b":1} ,{"b":2}]}""".split()
PIECES = st.sampled_from([*MARKS, b" ", b"\n", b"\n", b"}\n{", b"}\r\n{"])


@settings(deadline=None, database=None, max_examples=500)
@given(st.lists(PIECES, max_size=14).map(b"".join))
@example(b'{"a":1}{"b":2}\n{"c":\n3}\n')
@example(b'{"a":[{"b":1}\n,{"c":2}]}\n{}{}\n')
@example(b'{"a":[{"b":1},\n{"c":2}]}\n{}{}\n')
@example(b'{"a":1}\n[{"b":1}]\n{}\n')
def test_lines_read_together_are_the_objects_that_each_of_them_holds(lines):
    together = list(one_by_one(read_json_lines(io.BufferedReader(io.BytesIO(lines)))))
    with patch(f"{DATA}.files.lines.Lines.ahead", lambda _: b""):
        assert together == list(one_by_one(read_json_lines(io.BufferedReader(io.BytesIO(lines)))))


@pytest.mark.parametrize("names", [("role", "content", "messages"), ("from", "value", "conversations")])
def test_plain_conversations_are_taken_together_and_those_with_earlier_answers_one_by_one(names):
    role, content, column = names
    short = [{role: "user", content: "a"}, {role: "assistant", content: "b"}]
    block = Objects(line_places(1, 5), [{column: turns} for turns in (short, short, short * 2, short, short)])
    found = list(to_rows([block], Layouts(Columns())))
    assert [len(one) if isinstance(one, Rows) else one.position.line for one in found] == [2, 3, 2]


@pytest.mark.parametrize(
    ("text", "breaks"),
    [
        (b'{"k":1},', [0]),
        (b'{"k":1},{"k":"]},{"},', [0, 0]),
        (b'{"k":1},\r\n{"k":2} ,\n', None),
        (b'{"k":1},\r\n{"k":2},\r\n', [0, 1]),
        (b'{\n"k":1},\n\n{"k":2},\n\n{"k":3},', [0, 3, 5]),
        (b'{"k":[{"k":1},\n{"k":2}]}, {"k":3}, ', [0, 1]),
        (b'{"k":3}, {"k":[{"k":1},\n{"k":2}]}, ', [0, 0]),
        (b'{"k":1},{"k":2},\n{"k":3},', None),  # not the same between all
        (b'{"k":[{"k":1},', None),  # cut within an element
        (b'{"k":"a},', None),
        (b'{"k":1}', None),
        (b'{"k":1},,', None),
        (b'{"k":1} {"k":2},', None),
        (b'{"k":1},5,', None),
        (b'{"k":NaN},', None),
        (b'{"k":"\xff"},', None),
        (b'{"k":' + b"[" * 50_000 + b"]" * 50_000 + b"},", None),
    ],
)
def test_elements_of_an_array_are_read_together_only_where_their_lines_are_sure(text, breaks):
    found = elements(text)
    assert (None if found is None else list(found.breaks)) == breaks
    assert found is None or found.rows == json.loads(b"[%b]" % text.rstrip()[:-1])


def test_places_of_elements_are_their_packed_positions_also_beyond_what_fits():
    for row, line in ((0, 1), (5, 7), ((1 << 30) - 2, 1), (0, (1 << 30) - 3)):
        for breaks in ([0, 0, 0], range(0, 6, 2), [0, 1, 5]):
            one_by_one = [Position(line + before, row=row + n).packed() for n, before in enumerate(breaks)]
            assert list(element_places(row, line, breaks)) == one_by_one
            assert max(one_by_one) < 1 << 63


@pytest.mark.parametrize("ending", WRITERS)
def test_good_rows_are_read_in_blocks(ending, tmp_path):
    """Else the other tests of this file would compare nothing."""
    path = tmp_path / f"t.{ending}"
    path.write_bytes(WRITERS[ending]([{"prompt": "a, b", "completion": "two\nlines"}] * 50, "\n"))
    with SplitFile(DataFile(uri=path.as_uri()), "train", Columns(), allow_local=True, air_gapped=False) as file:
        found = list(file.blocks())
    assert any(isinstance(one, Block) for one in found)
    assert [record.position for record in one_by_one(found)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_of_separators_alone_are_passed_over_many_at_once(end, tmp_path, monkeypatch):
    """Spreadsheets end with as many as they have rows: one by one a million of 50 columns took longer than all else."""
    path = tmp_path / "t.csv"
    path.write_text(f"prompt,completion,a{end}x,y,z{end}" + f",,{end}" * 20_000, newline="")
    asked = []
    monkeypatch.setattr(f"{DATA}.files.csv_rows._row", lambda reader, source: asked.append(1) or _row(reader, source))
    with SplitFile(DataFile(uri=path.as_uri()), "train", Columns(), allow_local=True, air_gapped=False) as file:
        assert len(list(one_by_one(file.blocks()))) == 1
        assert len(asked) < 100
        assert (file.empty_rows.count, str(file.empty_rows.first)) == (20_000, "line 3")


def test_rows_together_have_the_fingerprints_that_they_have_alone():
    roles = ("system", "user", "assistant")
    rows = Rows([4, 8], roles, (["s", "t"], ["a", "b"], ["x", "y"]))
    alone = [
        Row(Position(line=line), tuple(map(Turn, roles, texts)))
        for line, texts in ((1, ("s", "a", "x")), (2, ("t", "b", "y")))
    ]
    assert list(rows.rows()) == alone
    assert list(fingerprints(rows)) == [fingerprint(row) for row in alone]
