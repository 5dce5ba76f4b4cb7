"""Answers that people have compared, as arenas and data sets of preferences have them, and rows of tables with nested
values: the command of the next step makes rows of them, in every format."""

import csv
import io
import json
import subprocess

import pytest

from finetune_api.exit_codes import ExitCode
from tests.unit.finetune_trainer.data.files import as_parquet
from tests.unit.finetune_trainer.following import followed

GOOD, BAD = "It is blue.\nReally.", "No idea"
ASKED = "What colour is the sky?"
BOTH = [{"role": "user", "content": ASKED}]
COMPARED = {
    "conversations of an arena": [
        {
            "winner": who,
            "conversation_a": [*BOTH, {"role": "assistant", "content": a}],
            "conversation_b": [*BOTH, {"role": "assistant", "content": b}],
        }
        for who, a, b in (("model_a", GOOD, BAD), ("model_b", BAD, GOOD), ("tie", BAD, BAD), ("tie (bothbad)", "", ""))
    ],
    "answers of two models": [
        {"prompt": ASKED, "response_a": a, "response_b": b, "winner": who}
        for who, a, b in (("model_a", GOOD, BAD), ("B", BAD, GOOD), ("tie", BAD, BAD))
    ],
    "UltraFeedback": [
        {
            "instruction": ASKED,
            "models": ["a", "b"],
            "completions": [{"response": BAD, "overall_score": low}, {"response": GOOD, "overall_score": high}],
        }
        for low, high in ((1.0, 10.0), (2.0, 3.5))
    ],
    "answers by number": [
        {"question": ASKED, "answer_1": a, "answer_2": b, "preference": which}
        for which, a, b in ((1, GOOD, BAD), ("2", BAD, GOOD), ("tie", BAD, BAD), (None, BAD, BAD))
    ],
    "scores beside answers": [
        {"prompt": ASKED, "responses": texts, "scores": scores}
        for texts, scores in (([BAD, GOOD], [1, 2.5]), ([GOOD, "so-so", BAD], [0, -1, -2]), ([BAD, BAD], [1, 1]))
    ],
    "answers with ranks": [
        {"question": ASKED, "answers": [{"text": GOOD, "rank": 1}, {"text": BAD, "rank": 10}, {"text": BAD, "rank": 9}]}
    ]
    * 2,
    "HelpSteer3": [
        {"context": BOTH, "response1": a, "response2": b, "overall_preference": how}
        for how, a, b in ((-2, GOOD, BAD), (1, BAD, GOOD), (0, BAD, BAD))
    ],
}


def as_csv(rows):
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


WRITTEN = {
    "t.jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    "t.json": lambda rows: json.dumps(rows).encode(),
    "t.parquet": as_parquet,
    "t.csv": lambda rows: as_csv(rows).encode(),
}


@pytest.mark.parametrize(
    ("what", "name"),
    [
        *((what, "t.jsonl") for what in COMPARED),
        ("conversations of an arena", "t.json"),
        ("conversations of an arena", "t.parquet"),
        ("HelpSteer3", "t.parquet"),
        ("answers by number", "t.csv"),
    ],
)
def test_of_compared_answers_the_better_one_is_chosen(check, tmp_path, what, name):
    data = WRITTEN[name](COMPARED[what])
    for spec in ({"preference": {}}, {}):
        made = followed(check(train=(name, data), spec=dict(spec)).verdict.next_step, tmp_path, FILE=data)
        mended = check(train=("made.jsonl", made), spec=dict(spec))
        assert (mended.code, mended.verdict.train.rows) == (ExitCode.OK, 2), mended.err
        rows = [json.loads(line) for line in made.splitlines()]
        assert {row.get("chosen", row.get("completion")) for row in rows} == {GOOD}
        assert {row.get("rejected") for row in rows} == ({BAD} if spec else {None})
        assert all(ASKED in json.dumps(row["prompt"]) for row in rows)


def test_who_has_won_is_not_counted_from_0_where_the_answers_are_counted_from_1(check, tmp_path):
    rows = [{"prompt": "a", "response_1": "b", "response_2": "c", "winner": number} for number in (1, 0, 1)]
    data = WRITTEN["t.jsonl"](rows)
    with pytest.raises(subprocess.CalledProcessError):
        followed(check(train=("t.jsonl", data), spec={"preference": {}}).verdict.next_step, tmp_path, FILE=data)
    assert not (tmp_path / "ROWS.jsonl").read_text()


def test_numbers_that_do_not_tell_which_answer_they_mean_are_for_the_reader_to_name(check, tmp_path):
    rows = [{"prompt": f"p{at}", "response_a": "a", "response_b": "b", "label": at} for at in (0, 1)]
    data = "".join(json.dumps(row) + "\n" for row in rows)
    step = check(train=("t.jsonl", data), spec={"preference": {}}).verdict.next_step
    made = followed(step, tmp_path, {"ONE": "1", "TWO": "0"}, FILE=data)
    assert [json.loads(line)["chosen"] for line in made.splitlines()] == ["b", "a"]


def test_the_name_of_who_has_won_is_no_answer(check):
    rows = [{"question": "a", "first": "b", "second": "c", "winner": "first"}]
    step = check(train=("t.jsonl", WRITTEN["t.jsonl"](rows)), spec={"preference": {}}).verdict.next_step
    assert "{prompt: question, chosen: NAME, rejected: NAME}" in step


TREE = [
    {"message_id": "1", "parent_id": None, "role": "prompter", "text": ASKED},
    {"message_id": "2", "parent_id": "1", "role": "assistant", "text": BAD},
    {"message_id": "3", "parent_id": "1", "role": "assistant", "text": GOOD},
    {"message_id": "4", "parent_id": "3", "role": "prompter", "text": "and at night?"},
    {"message_id": "5", "parent_id": "4", "role": "assistant", "text": "black"},
    {"message_id": "6", "parent_id": "5", "role": "prompter", "text": "thanks"},
]
MARKED = "<|im_start|>user\nWhat's 'it'?<|im_end|>\n<|im_start|>assistant\nblue, I think<|im_end|>\n"
NESTED = {
    "a tree": (TREE, [[ASKED, BAD], [ASKED, GOOD, "and at night?", "black"]]),
    "marked text": ([{"id": 1, "text": MARKED}], [["What's 'it'?", "blue, I think"]]),
    "a last question": (
        [{"messages": [*BOTH, {"role": "assistant", "content": GOOD}, *BOTH]}],
        [[ASKED, GOOD]],
    ),
}


@pytest.mark.parametrize(
    ("what", "name"),
    [("a tree", "t.json"), *((what, name) for what in NESTED for name in ("t.jsonl", "t.parquet")), ("a tree", "t.csv"),
     ("marked text", "t.csv")],
)  # fmt: skip
def test_conversations_of_any_format_are_mended_by_the_command(check, tmp_path, what, name):
    rows, said = NESTED[what]
    data = WRITTEN[name](rows)
    made = followed(check(train=(name, data)).verdict.next_step, tmp_path, FILE=data)
    found = [[turn["content"] for turn in json.loads(line)["messages"]] for line in made.splitlines()]
    assert found == said
    assert check(train=("made.jsonl", made)).code == ExitCode.OK
