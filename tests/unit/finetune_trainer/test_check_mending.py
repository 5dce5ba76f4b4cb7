"""What `finetune-trainer check` says to do about rows that cannot be read: its commands are run, and help."""

import csv
import json
import re
import shutil
import subprocess
import sys
from datetime import timedelta

import pyarrow as pa
import pytest

from tests.assets.tiny_model import NAME as TINY
from tests.unit.finetune_trainer.data.files import as_parquet, as_parquet_table
from tests.unit.finetune_trainer.following import followed

ROWS = [{"prompt": f"Größe {number}?", "completion": f"schön {number}"} for number in range(3)]
LINES = [json.dumps(row, ensure_ascii=False) for row in ROWS]


@pytest.fixture
def mended(check, tmp_path):
    """The file that the next step's command makes of a bad one, and the verdict on it."""

    def run(name, data, **spec):
        bad = check(train=(name, data), spec=dict(spec)).verdict
        assert not bad.valid
        (command,) = re.findall(r"`((?:python3|sed|jq) .*?)`(?: |$)", bad.next_step)
        if not shutil.which(command.split()[0]):
            pytest.skip(f"{command.split()[0]} is not installed here")
        command = re.sub(r"\bFILE\b", str(tmp_path / name), command.replace("python3", sys.executable, 1))
        command = re.sub(r"\bROWS\b(\.(jsonl|csv))?", str(tmp_path / "new"), command)
        said = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
        text = (tmp_path / "new").read_bytes() if (tmp_path / "new").exists() else said
        made = f"mended-{name}" if not text.startswith(b"{") else f"mended-{name}.jsonl"
        return text.decode(), check(train=(made, text), spec=dict(spec)).verdict

    return run


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("quotes.jsonl", "".join(f"{row}\n" for row in ROWS)),
        ("quotes.json", str(ROWS)),
        ("none.jsonl", "".join(f"{ {**row, 'note': None} }\n" for row in ROWS)),
        ("commas.jsonl", "".join(f"{line},\n" for line in LINES)),
        ("commas.jsonl", "".join(f"{line}, \r\n" for line in LINES)),
        ("one-line.jsonl", "".join(LINES)),
        ("put-together.jsonl", "\ufeff" + "\n\ufeff".join(LINES)),
        ("marked-twice.jsonl", "\ufeff\ufeff" + "\n".join(LINES)),
        ("pretty.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
        ("arrays.jsonl", "".join(f"[{line}]\n" for line in LINES)),
        ("last-comma.jsonl", "".join(f"{line[:-1]}, }}\r\n" for line in LINES)),
        ("no-commas.json", "[" + "\n".join(LINES) + "]\n"),
        ("an-array-first.jsonl", f"[{LINES[0]}]\n" + "\n".join(LINES[1:])),
        ("no-commas.json", "[\n" + "\n".join(LINES) + "\n]"),
        ("nan.jsonl", "".join(f'{line[:-1]}, "score": NaN}}\n' for line in LINES)),
        ("nan.json", f'[{", ".join(LINES)[:-1]}, "score": NaN}}]'),
    ],
)
def test_the_command_makes_rows_of_what_is_nearly_json(mended, name, data):
    text, verdict = mended(name, data)
    assert verdict.valid, verdict.message
    assert [json.loads(line)["prompt"] for line in text.splitlines()] == [row["prompt"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.jsonl", '// don\'t "read"\n/* nor this */' + " // {}\n".join(LINES) + " # x\n#y"),
        ("t.json", "[" + ", // it's\n".join(LINES).replace("{", "{ /* a */") + "]"),
        ("t.jsonl", '{"prompt": "http://a/b # /* c */", "completion": "d"} // e\n' * 3),
    ],
)
def test_comments_are_taken_away_and_nothing_of_a_text_is(mended, name, data):
    text, verdict = mended(name, data)
    assert (verdict.valid, verdict.train.rows) == (True, 3), verdict.message
    assert ("http://a/b # /* c */" in text) is ("http" in data)


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_lines_of_two_encodings_are_mended_without_touching_those_that_are_right(mended, name):
    """iconv over the whole file would write Ã¶ for ö in the lines that are UTF-8 already."""
    lines = LINES if name == "t.jsonl" else ["prompt,completion", *(",".join(row.values()) for row in ROWS)]
    mixed = b"".join(f"{line}\n".encode("cp1252" if number == 2 else "utf-8") for number, line in enumerate(lines))
    text, verdict = mended(name, mixed)
    assert verdict.valid, verdict.message
    assert text.splitlines() == lines


@pytest.mark.parametrize("mark", [",", ";"])
@pytest.mark.parametrize(
    ("bad", "made"),
    [
        ("Hello, what is it?,A tree", [["Hello, what is it?", "A tree"]]),
        ("Well,It is, I think, a tree", [["Well", "It is, I think, a tree"]]),
        ("Why, so?,Yes,,", [["Why, so?", "Yes"]]),
        ("What is 1,5 and 2?,3", []),
    ],
    ids=["question", "answer", "empty cells", "nobody knows"],
)
def test_a_separator_within_a_text_is_never_taken_for_the_end_of_a_question(mended, bad, made, mark):
    """The rest of a question would become a part of its answer, and be learnt."""
    table = f"prompt,completion\nOne?,1\n{bad}\n\nTwo?, 2\n".replace(",", mark)
    text, verdict = mended("t.csv", table)
    assert verdict.valid, verdict.message
    want = [["prompt", "completion"], ["One?", "1"], *made, ["Two?", " 2"]]
    assert list(csv.reader(text.splitlines(), delimiter=",")) == [[c.replace(",", mark) for c in row] for row in want]


@pytest.mark.parametrize(("mark", "other"), [(",", ";"), (";", ","), ("\t", ","), (",", "\t"), (",", "|")])
def test_a_header_gets_the_separators_of_the_rows(mended, mark, other):
    """Where some rows have the header's separator in a text, to leave out the others would keep the wrong ones."""
    rows = ["One?{}1", "Two{}2", "Three; or 4{}3" if other in "\t|" else "Three{}3", "Four{}4", '"a{} b"{}"c\nd"']
    table = "".join(f"{row.format(*[other] * row.count('{}'))}\n" for row in [*rows, f"So{mark} why?{other}3"])
    text, verdict = mended("t.csv", f"prompt{mark}completion\n{table}")
    assert (verdict.valid, verdict.train.rows) == (True, 6), verdict.message
    assert text == f"prompt{other}completion\n{table}"


def test_a_header_is_left_as_it_is_where_rows_have_its_separators_too(check):
    """Numbers before the prompts, and a comma in each: cut at the comma they would be learnt."""
    step = check(train=("t.csv", "prompt;completion\n1;q, x;a\n2;q, y;b\n")).verdict.next_step
    assert "different separators" not in step


def test_an_encoding_is_mended_first_whatever_is_wrong_with_other_rows(check):
    verdict = check(train=("t.csv", "prompt,completion\nGr\u00f6\u00dfe,sch\u00f6n\nx,\n".encode("cp1252"))).verdict
    assert (verdict.train.rows, verdict.train.bad_rows) == (2, 2)
    assert "iconv -f ENCODING" in verdict.next_step
    assert "If other lines of the file are UTF-8 already" in verdict.next_step


def test_a_whole_file_of_another_encoding_is_for_iconv_alone(check):
    step = check(train=("t.csv", "prompt,completion\nö,ü\n".encode("cp1252"))).verdict.next_step
    assert "`iconv -f ENCODING -t UTF-8 FILE`" in step
    assert "python3" not in step


def test_numbers_of_rows_get_a_name_in_the_header(mended):
    """As R writes tables. To join or leave out cells would leave no row."""
    text, verdict = mended("t.csv", '"prompt","completion"\n"1","a, b","c"\n"2","d","e"\n')
    assert (verdict.valid, verdict.train.rows) == (True, 2), verdict.message
    assert text.startswith('number,"prompt","completion"\n')


@pytest.mark.parametrize("completions", [[1, 0, 1], [True, False, True], [0.5, 1.0, 2], [2**60 + 1, 0.1, 1e22]])
def test_numbers_and_booleans_are_answered_with_how_they_become_text(mended, completions):
    data = "".join(json.dumps({"text": "a", "label": one}) + "\n" for one in completions)
    text, verdict = mended("t.jsonl", data, dataset={"columns": {"prompt": "text", "completion": "label"}})
    assert verdict.valid, verdict.message
    assert [json.loads(line)["label"] for line in text.splitlines()] == [json.dumps(one) for one in completions]


@pytest.mark.parametrize("column", ["it's", 'a "b"', "a\\b $HOME", "'; echo '"])
def test_a_command_takes_the_name_of_a_column_as_it_is(mended, column):
    """A shell would run the rest of a name behind a quote in it."""
    rows = [{"prompt": "a", column: number} for number in range(3)]
    data = "".join(json.dumps(row) + "\n" for row in rows)
    text, verdict = mended("t.jsonl", data, dataset={"columns": {"completion": column}})
    assert verdict.valid, verdict.message
    assert [json.loads(line) for line in text.splitlines()] == [{**row, column: str(row[column])} for row in rows]


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ('{"prompt":"a","completion":NaN}', "to_json of pandas"),
        ('{"prompt":"C:\\users","completion":"a"}', "json.dumps"),
        ('{"prompt":"a\tb","completion":"a"}', "json.dumps"),
        ('{"prompt":"a\\ud83d","completion":"a"}', "in the middle of a character"),
        ("nothing like it", "set spec.dataset.train.format if it is something else"),
    ],
)
def test_what_is_wrong_with_all_rows_decides_what_to_do(check, line, step):
    assert step in check(train=("t.jsonl", f"{line}\n")).verdict.next_step


def test_one_line_that_is_no_row_is_not_taken_for_a_file_without_any(check):
    step = check(train=("t.jsonl", "\n".join([*LINES, "5"]))).verdict.next_step
    assert step.startswith("Correct the rows")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system message') }}",
        "{{ messages[0].content.index('Is it so') }}{{ messages[-1].content }}",
    ],
)
def test_rows_that_the_models_chat_template_refuses_are_no_fault_of_their_own(check, tiny_model, tmp_path, template):
    cache = tmp_path / "cache"
    shutil.copytree(tiny_model, cache)
    (cache / TINY / "chat_template.jinja").write_text(template)
    verdict = check("--model-cache", cache, train=("t.jsonl", "\n".join(LINES))).verdict
    assert "3 of 3 rows cannot be used: line 1: the model's chat template refuses it" in verdict.message
    assert verdict.next_step.startswith("Leave out what the model's chat template refuses")


def test_pythons_constants_are_told_apart_from_other_text(check):
    verdict = check(train=("t.jsonl", '{"prompt": "a", "completion": None}\n')).verdict
    assert "line 1: the line is not valid JSON at byte 31: None, True and False are Python's" in verdict.message
    assert "hunter" not in check(train=("t.jsonl", '{"prompt": "a", "completion": hunter}\n')).verdict.message


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv"])
def test_a_fence_of_markdown_is_told_as_one(check, name):
    verdict = check(train=(name, f"```json\n{LINES[0]}\n```\n")).verdict
    assert verdict.message == f"{name}: begins with a fence of Markdown"
    assert verdict.next_step == "Remove the lines with ``` from it."


ASKED = [{"role": "user", "content": 'it\'s "a"?'}, {"role": "assistant", "content": "b, ü"}]


def written(name, rows):
    return json.dumps(rows) if name == "t.json" else "".join(f"{json.dumps(row)}\n" for row in rows)


def as_table(column, cells, separator=","):
    return f"{column}{separator}id\n" + "".join(
        '"' + cell.replace('"', '""') + f'"{separator}{number}\n' for number, cell in enumerate(cells)
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("between", [", ", "\n "], ids=["a list", "an array of numpy"])
def test_messages_that_python_has_written_into_a_table_are_made_json(mended, separator, between):
    text, verdict = mended("t.csv", as_table("messages", [between.join(map(str, ASKED)).join("[]")] * 2, separator))
    assert verdict.valid, verdict.message
    assert json.loads(text.splitlines()[0])["messages"] == ASKED


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_messages_that_python_has_written_into_json_are_made_json(mended, name):
    rows = [{"messages": str(ASKED)}] * 2
    text, verdict = mended(
        name, json.dumps(rows) if name == "t.json" else "".join(f"{json.dumps(row)}\n" for row in rows)
    )
    assert verdict.valid, verdict.message
    assert json.loads(text.splitlines()[0])["messages"] == ASKED


def test_pairs_as_clickhouse_shows_them_are_made_lists(check, tmp_path):
    data = as_table("messages", [str([tuple(one.values()) for one in ASKED])])
    made = followed(check(train=("t.csv", data)).verdict.next_step, tmp_path, FILE=data)
    step = check(train=("made.jsonl", made)).verdict.next_step
    (tmp_path / "ROWS.jsonl").unlink()
    assert json.loads(followed(step, tmp_path, FILE=made))["messages"] == ASKED


def test_structs_with_the_text_first_get_no_command_that_fails(check):
    cells = ["[{'content': What, 'role': user}, {'content': 'a, b', 'role': assistant}]"]
    step = check(train=("t.csv", as_table("messages", cells))).verdict.next_step
    assert step.startswith("Write messages as JSON where they are exported: to_json(COLUMN)")
    assert "`" not in step


def test_objects_on_a_line_that_is_too_long_get_a_command(check):
    step = check(train=("t.jsonl", LINES[0] * 90_000)).verdict.next_step
    assert "(`jq -c . FILE > ROWS.jsonl` does it with objects over several lines)" in step


def test_a_table_called_json_lines_gets_no_command_that_fails(check):
    step = check(train=("t.jsonl", "prompt,completion\na,b\n")).verdict.next_step
    assert step.endswith("set spec.dataset.train.format if it is something else, or write one object a line.")


THANKS = {"from": "human", "value": "thanks"}
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "GPT", "value": "b"}]


@pytest.mark.parametrize("as_text", [False, True], ids=["lists", "text"])
@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_conversations_that_end_with_the_user_are_cut_behind_the_last_answer(mended, name, as_text):
    found = [[*SHAREGPT, THANKS], [*SHAREGPT, THANKS, THANKS], [THANKS]]
    rows = [{"conversations": json.dumps(one) if as_text else one} for one in found]
    data = written(name, rows)
    spec = {"dataset": {"columns": {"messages": "conversations"}}}
    text, verdict = mended(name, data, **spec)
    assert verdict.valid, verdict.message
    assert [json.loads(line)["conversations"] for line in text.splitlines()] == [SHAREGPT] * 2


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
OLD_CALL = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
NO_CALL = {"role": "assistant", "content": "b", "tool_calls": [], "function_call": None}


@pytest.mark.parametrize(
    "called", [CALL, OLD_CALL, {"role": "tool", "content": "1"}, {"from": "observation", "value": "1"}]
)
def test_rows_in_which_tools_are_called_are_left_out_by_the_command(mended, called):
    rows = [{"messages": [ASKED[0], called, ASKED[1]]}, {"messages": [ASKED[0], NO_CALL]}, {"messages": ASKED}]
    text, verdict = mended("t.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    assert verdict.valid, verdict.message
    assert [json.loads(line) for line in text.splitlines()] == rows[1:]


@pytest.mark.parametrize("completion", [["b"], ["b", "c"]])
def test_lists_of_one_text_become_that_text(mended, completion):
    text, verdict = mended("t.jsonl", json.dumps({"prompt": "a", "completion": completion}))
    assert verdict.valid, verdict.message
    assert json.loads(text) == {"prompt": "a", "completion": "b"}


AS_TEXT = "' > ROWS.jsonl` makes it of these"


@pytest.mark.parametrize(
    ("prompts", "said", "step"),
    [
        (pa.array([{"x": "a"}, {"x": "b"}]), "is an object", """then .NAME else . end)' > ROWS.jsonl`"""),
        (pa.array([1, 2], pa.timestamp("s")), "is a time", AS_TEXT),
        (pa.array([1, 2], pa.date32()), "is a date", AS_TEXT),
        (pa.array([1, 2], pa.time32("s")), "is a time of day", AS_TEXT),
        (
            pa.array([[("x", "a")], [("x", "b")]], pa.map_(pa.string(), pa.string())),
            "is a map of Parquet",
            "makes objects of maps",
        ),
    ],
)
def test_what_is_no_text_in_parquet_is_answered_with_what_makes_text_of_it(check, prompts, said, step):
    table = pa.table({"prompt": prompts, "completion": ["x", "y"]})
    verdict = check(train=("t.parquet", as_parquet_table(table))).verdict
    assert f"row group 0 row 0: prompt {said}, not text" in verdict.message
    assert step in verdict.next_step


def test_bytes_numbers_and_lists_of_parquet_become_text_by_the_commands(mended):
    """One after the other: pyarrow alone reads the file, since users of Parquet have it, and pandas not all."""
    table = pa.table({"prompt": [b"a"] * 4, "completion": [["1"], ["2"], [], ["3"]], "when": [timedelta(1)] * 4})
    _, verdict = mended("t.parquet", as_parquet_table(table))
    assert "completion is a list, not text" in verdict.message
    assert "takes the first of each list" in verdict.next_step, "though one row has none"
    table = pa.table({"prompt": ["a"] * 4, "completion": [1, 2, None, 3]})
    text, verdict = mended("t.parquet", as_parquet_table(table))
    assert [json.loads(line)["completion"] for line in text.splitlines()] == ["1", "2", None, "3"]


def test_messages_that_are_maps_of_parquet_become_objects_by_the_command(mended, check):
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    table = pa.table({"messages": pa.array([[list(one.items()) for one in ASKED]], kind)})
    verdict = check(train=("t.parquet", as_parquet_table(table))).verdict
    assert "row group 0 row 0: message 1 is a map of Parquet, not an object with role and content" in verdict.message
    text, verdict = mended("t.parquet", as_parquet_table(table))
    assert verdict.valid, verdict.message
    assert json.loads(text) == {"messages": ASKED}


@pytest.mark.parametrize("odd", [["b"], {"x": "b"}, 5])
def test_rows_that_are_right_already_stay_as_they_are(check, tmp_path, odd):
    rows = [{"prompt": "a", "completion": odd}, {"prompt": "c", "completion": "d"}]
    data = written("t.jsonl", rows)
    text = followed(check(train=("t.jsonl", data)).verdict.next_step, tmp_path, FILE=data)
    made = [json.loads(line)["completion"] for line in text.splitlines()]
    assert (type(made[0]), made[1]) == (str, "d")


def test_objects_with_lists_in_parquet_are_written_as_json_by_the_command(check, tmp_path):
    """pandas reads such lists as arrays of numpy, which json.dumps does not know."""
    answers = pa.array([{"text": ["b"], "answer_start": [0]}] * 2)
    data = as_parquet_table(pa.table({"prompt": ["x", "y"], "completion": answers}))
    step = check(train=("t.parquet", data)).verdict.next_step
    rows = followed(step, tmp_path, FILE=data)
    assert json.loads(rows.splitlines()[0])["completion"] == '{"text":["b"],"answer_start":[0]}'


@pytest.mark.parametrize("kind", ["S", "stringValue", "string"])
def test_a_text_that_stands_with_its_type_is_taken_and_not_learnt_as_json(check, tmp_path, kind):
    data = json.dumps({"prompt": "a", "completion": {kind: "b"}}) + "\n" + '{"prompt": "a", "completion": {"x": "b"}}\n'
    made = followed(check(train=("t.jsonl", data)).verdict.next_step, tmp_path, FILE=data)
    assert [json.loads(line)["completion"] for line in made.splitlines()] == ["b", '{"x":"b"}']


def test_an_object_for_a_text_is_answered_with_how_a_part_of_it_is_taken_out(check):
    """As SQuAD has its answers."""
    row = {"id": "1", "context": "c", "question": "q", "answers": {"text": ["b"], "answer_start": [0]}}
    spec = {"dataset": {"columns": {"prompt": "question", "completion": "answers"}}}
    verdict = check(train=("t.jsonl", json.dumps(row)), spec=dict(spec)).verdict
    assert ".text[0] is an answer of SQuAD" in verdict.next_step
    assert "then tojson else . end)' FILE > ROWS.jsonl` writes objects as JSON" in verdict.next_step


@pytest.mark.parametrize(
    ("answers", "made"), [('"[""b"", ""c""]"', "b"), ('"{""text"": [""b""]}"', "b"), ("plain text", None)]
)
def test_questions_with_several_answers_in_a_table_are_read_as_the_json_that_they_are(check, tmp_path, answers, made):
    data = f"question,answers\nq,{answers}\n"
    step = check(train=("t.csv", data)).verdict.next_step
    if made is None:
        assert "jq" not in step
    else:
        assert json.loads(followed(step, tmp_path, FILE=data)) == {"prompt": "q", "completion": made}


@pytest.mark.parametrize("context", [{}, {"context": "c"}], ids=["question", "with context"])
@pytest.mark.parametrize("answers", [["b", "c"], {"text": ["b"], "answer_start": [0]}], ids=["list", "SQuAD"])
@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.parquet"])
def test_questions_with_several_answers_become_rows_of_the_first(mended, name, answers, context):
    rows = [{"id": str(number), **context, "question": "q", "answers": answers} for number in range(2)]
    as_lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    written = {"t.jsonl": as_lines, "t.json": json.dumps(rows), "t.parquet": as_parquet(rows)}
    text, verdict = mended(name, written[name])
    assert verdict.valid, verdict.message
    assert json.loads(text.splitlines()[0]) == {"prompt": "c\n\nq" if context else "q", "completion": "b"}


def messages(*turns):
    return [{"messages": [dict(turn) for turn in turns]}] * 2


NO_WEIGHT, NOT_TRAINED = {**ASKED[1], "weight": 0}, {**ASKED[1], "train": False}
OTHER_LETTERS = [{"Role": "user", "Content": "q"}, {"Role": "assistant", "Content": "a"}]
OTHER_NAMES = [{"role": "user", "text": "q"}, {"role": "assistant", "message": "a"}]
OTHER_WORDS = [{"from": who, "value": "text"} for who in ("agent", "guest", "agent")]
MENDED = {
    "pairs of role and text": [{"messages": [["user", "q"], ["Assistant", "a"]]}] * 2,
    "text within text": [{"messages": json.dumps(json.dumps(ASKED))}] * 2,
    "a list within a list": [{"messages": [ASKED]}] * 2,
    "columns for a list": [{"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}}] * 2,
    "an object for a list": [{"messages": {"0": ASKED[0], "1": ASKED[1]}}] * 2,
    "a list within an object": [{"messages": {"turns": ASKED}}] * 2,
    "names and nulls": [{"messages": [{"user": "q", "assistant": None}, {"user": None, "assistant": "a"}]}] * 2,
    "the last answer's weight": messages(*ASKED, ASKED[0], NO_WEIGHT),
    "an answer among them": messages({**ASKED[0], "weight": 0}, ASKED[1], ASKED[0], NOT_TRAINED),
    "weights of all answers": messages(ASKED[0], NO_WEIGHT),
    "weights of parts": messages(ASKED[0], {**ASKED[1], "weight": 0.7}),
    "weights as text": messages(ASKED[0], {**ASKED[1], "weight": "1"}),
    "other letters": messages(*OTHER_LETTERS),
    "other names": messages(*OTHER_NAMES),
    "other words": messages(*OTHER_WORDS),
    "texts that take turns": [{"messages": ["q", "a"]}],
    "pairs": [{"messages": [["q", "a"], ["r", "b"]]}],
    "reasoning": messages(ASKED[0], {**ASKED[1], "reasoning_content": "hm"}),
    "numbers": messages(ASKED[0], {**ASKED[1], "content": 5}),
    "booleans": messages(ASKED[0], {**ASKED[1], "content": True}),
    "lists of text": messages({**ASKED[0], "content": ["a", "b"]}, ASKED[1]),
    "objects": messages({"from": "human", "value": {"said": "q"}}, ASKED[1]),
    "speakers as names": [{"messages": [{"human": "q", "gpt": "a"}, {"Human": "r"}, {"GPT": "b"}]}] * 2,
    "no answers": [{"messages": [ASKED[0]], "best": "b"}],
    "answers beside": [{"messages": [ASKED[0]], "response": "b"}],
    "choices": [{"messages": [ASKED[0]], "choices": [{"index": 0, "message": ASKED[1]}]}],
    "no prompts": [{"prompt": " ", "completion": "b"}],
}
"""Rows of which all have the same wrong."""

READERS_WORDS = {
    "other words": {"ASKER": "guest", "ANSWERER": "agent"},
    "objects": {"NAME": "said"},
    "no answers": {"NAME": "best"},
}
"""What a reader writes for words of the command."""


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
@pytest.mark.parametrize("what", MENDED)
def test_what_is_wrong_with_all_conversations_is_mended_by_a_command(check, tmp_path, what, name):
    rows, words = MENDED[what], READERS_WORDS.get(what, {})
    data = written(name, rows)
    bad = check(train=(name, data)).verdict
    assert not bad.valid
    made = followed(bad.next_step, tmp_path, words, FILE=data)
    mended = check(train=("mended.jsonl", made)).verdict
    assert (mended.valid, mended.train.rows) == (True, len(rows)), mended.message
    assert '"content":"user"' not in made


def test_speakers_are_known_with_spaces_around_their_words(check):
    rows = [{"messages": [{"role": "user ", "content": "q"}, {"role": " Assistant", "content": "a"}]}]
    assert check(train=("t.jsonl", written("t.jsonl", rows))).verdict.valid
