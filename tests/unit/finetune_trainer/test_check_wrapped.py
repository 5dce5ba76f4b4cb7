"""Rows that stand within something else, text with marks or an object: the next step's command makes rows of them."""

import bz2
import gzip
import json
import lzma

import pytest

from finetune_api.exit_codes import ExitCode
from tests.unit.finetune_trainer.data.files import as_parquet
from tests.unit.finetune_trainer.following import followed

ASKED = ["How do I reset it?\nIt hangs.", "[x] Is a # b: ok?"]
ANSWERED = ["Hold the button.\n\nFor five seconds.", "Yes: <b>it</b> is."]
PAIRS = list(zip(ASKED, ANSWERED, strict=True))
ROWS = [{"prompt": one, "completion": other} for one, other in PAIRS]
MESSAGES = [
    {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": other}]} for one, other in PAIRS
]


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


MARKED = {
    "[INST]": "<s>[INST] {} [/INST] {} </s>",
    "[INST] without ends": "[INST]{}[/INST]{}",
    "ChatML": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n",
    "Llama 4": "<|header_start|>user<|header_end|>\n\n{}<|eot|><|header_start|>assistant<|header_end|>\n\n{}<|eot|>",
    "Granite": "<|start_of_role|>user<|end_of_role|>{}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>{}",
    "Llama 3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>"
    ),
    "Gemma": "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n{}<end_of_turn>",
    "Zephyr": "<|user|>\n{}</s>\n<|assistant|>\n{}</s>",
    "Phi": "<|user|>\n{}<|end|>\n<|assistant|>\n{}<|end|>",
    "Guanaco": "### Human: {}### Assistant: {}",
    "Alpaca": "Below is an instruction.\n\n### Instruction:\n{}\n\n### Response:\n{}",
    "names": "User: {}\nAssistant: {}",
    "capitals": "USER: {}\n\n\nASSISTANT: {} ",
    "letters": "Q: {}\nA: {}\n",
}
"""A question and its answer as text, as training scripts want them that know no chat template."""


@pytest.mark.parametrize("what", MARKED)
def test_conversations_as_text_are_made_messages_by_the_next_step(check, tmp_path, what):
    data = as_lines({"id": number, "text": MARKED[what].format(*pair)} for number, pair in enumerate(PAIRS))
    refused = check(train=("t.jsonl", data)).verdict
    assert "column text holds conversations as text, marked by " in refused.message
    made = followed(refused.next_step, tmp_path, FILE=data)
    assert [json.loads(line)["messages"] for line in made.replace('"model"', '"assistant"').splitlines()] == [
        row["messages"] for row in MESSAGES
    ]
    assert check(train=("made.jsonl", made)).code == ExitCode.OK


def test_system_messages_later_turns_and_inputs_keep_their_place(check, tmp_path):
    data = as_lines(
        {"text": text}
        for text in (
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\na [/INST] b </s><s>[INST] c [/INST] d </s>",
            "[INST] a [/INST] b",
        )
    )
    made = followed(check(train=("t.jsonl", data)).verdict.next_step, tmp_path, FILE=data)
    said = [[turn["content"] for turn in json.loads(line)["messages"]] for line in made.splitlines()]
    assert said == [["Be brief.", "a", "b", "c", "d"], ["a", "b"]]
    data = as_lines([{"text": "### Instruction:\na\n\n### Input:\nb\n\n### Response:\nc\n\n"}])
    made = followed(check(train=("t.jsonl", data)).verdict.next_step, tmp_path, FILE=data)
    assert [turn["content"] for turn in json.loads(made)["messages"]] == ["a\n\nb", "c"]


@pytest.mark.parametrize(
    "row", [{"text": "[INST] a [/INST] b", "answer": "c"}, {"text": "a story"}, {"text": "A: b", "note": "User: c"}]
)
def test_other_text_is_not_taken_for_conversations(check, row):
    assert "marked by" not in check(train=("t.jsonl", as_lines([row]))).verdict.message


@pytest.mark.parametrize(
    ("prompt", "completion", "mark"),
    [("[INST] a [/INST]", "b", "[INST]"), ("a", "b</s>", "</s>"), ("<|im_start|>user\na", "b", "<|im_start|>")],
)
def test_a_chat_format_in_rows_that_need_none_is_warned_of(check, prompt, completion, mark):
    found = check(train=("t.jsonl", as_lines([{"prompt": prompt, "completion": completion}]))).verdict.warnings
    assert f"t.jsonl: the first row has marks of a chat in its text, such as {mark}: " in "\n".join(found)


SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "c",
                    "qas": [
                        *({"question": one, "answers": [{"text": other}, {"text": "x"}]} for one, other in PAIRS),
                        {"question": "no answer?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
WRAPPED = {
    "a list": {"data": ROWS},
    "a list among others": {"took": 5, "examples": ROWS, "note": "n"},
    "splits": {"train": ROWS, "validation": ROWS[:1]},
    "rows of datasets' server": {
        "features": [],
        "rows": [{"row_idx": 1, "row": row, "truncated_cells": []} for row in ROWS],
    },
    "split of pandas": {"columns": ["prompt", "completion"], "index": [0, 1], "data": [list(pair) for pair in PAIRS]},
    "columns of ClickHouse": {
        "meta": [{"name": name, "type": "String"} for name in ("prompt", "completion")],
        "data": [list(pair) for pair in PAIRS],
        "rows": 2,
    },
    "cells of Databricks": {
        "manifest": {"schema": {"columns": [{"name": "prompt"}, {"name": "completion"}]}},
        "result": {"data_array": [list(pair) for pair in PAIRS]},
    },
    "columns of pandas": {"prompt": {"0": ASKED[0], "1": ASKED[1]}, "completion": {"0": ANSWERED[0], "1": ANSWERED[1]}},
    "lists": {"prompt": ASKED, "completion": ANSWERED},
    "index of pandas": {"0": ROWS[0], "1": ROWS[1]},
    "table of pandas": {"schema": {"fields": []}, "data": ROWS},
    "rows behind what they are described by": {
        "features": [{"name": "prompt"}],
        "rows": [{"row": row} for row in ROWS],
    },
    "hits of Elasticsearch": {"took": 5, "hits": {"total": {"value": 2}, "hits": [{"_source": row} for row in ROWS]}},
    "edges of GraphQL": {"data": {"list": {"edges": [{"node": row, "cursor": "x"} for row in ROWS]}}},
    "a tree of Firebase": {"pairs": {"-Nx1": ROWS[0], "-Nx2": ROWS[1]}},
    "values of Google's sheets": {"range": "A1:B3", "values": [["prompt", "completion"], *map(list, PAIRS)]},
}


@pytest.mark.parametrize(
    ("what", "name"), [*((what, "t.json") for what in WRAPPED), ("lists", "t.jsonl"), ("columns of pandas", "t.jsonl")]
)
def test_rows_within_an_object_are_taken_out_by_name(check, tmp_path, what, name):
    data = json.dumps(WRAPPED[what])
    made = followed(check(train=(name, data)).verdict.next_step, tmp_path, FILE=data)
    assert [json.loads(line) for line in made.splitlines()] == ROWS


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_rows_are_taken_out_of_several_pages(check, tmp_path, name):
    data = as_lines({"data": [row], "next": "x"} for row in ROWS)
    made = followed(check(train=(name, data)).verdict.next_step, tmp_path, FILE=data)
    assert [json.loads(line) for line in made.splitlines()] == ROWS


def test_lines_that_have_lists_of_objects_are_lines_whatever_their_file_is_called(check):
    data = as_lines({"text": one, "label": other, "spans": [{"start": 0, "end": 3}]} for one, other in PAIRS)
    assert "{prompt: text, completion: label}" in check(train=("t.json", data)).verdict.next_step


def test_labels_beside_cells_are_not_names_of_columns(check):
    data = json.dumps({"labels": ["pos", "neg"], "data": [["great", "pos"], ["bad", "neg"]]})
    assert "names of the columns" not in (check(train=("t.json", data)).verdict.next_step or "")


def test_a_row_with_an_odd_name_beside_a_column_is_not_an_object_of_questions(check):
    step = check(train=("t.jsonl", '{"prompt": "a", "Answer (English)": "b"}')).verdict.next_step
    assert "to_entries" not in (step or "")


def test_squad_becomes_rows_of_its_answered_questions_in_one_step_or_in_two(check, tmp_path):
    data = json.dumps(SQUAD, indent=2)
    on_a_line = followed(check(train=("t.json", data)).verdict.next_step, tmp_path, FILE=data)
    made = followed(check(train=("t.jsonl", on_a_line)).verdict.next_step, tmp_path, FILE=on_a_line)
    assert [json.loads(line) for line in made.splitlines()] == [
        {**row, "prompt": f"c\n\n{row['prompt']}"} for row in ROWS
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"id": 1, "row": {"prompt": "a", "completion": "b"}},
        {"inputs": {"question": "a"}, "outputs": {"answer": "b"}},
        {"data": {"more here": {"prompt": "a", "completion": "b"}}},
        {"Item": {"prompt": {"S": "a"}, "completion": {"S": "b"}}},
    ],
)
def test_columns_within_objects_are_taken_out_by_name(check, tmp_path, row):
    data = as_lines([row])
    made = followed(check(train=("t.jsonl", data)).verdict.next_step, tmp_path, FILE=data)
    assert json.loads(made) == {"prompt": "a", "completion": "b"}


def test_columns_within_objects_get_the_names_that_the_job_asks_for(check, tmp_path):
    data = as_lines([{"d": {"q": "a"}, "label": "b"}])
    spec = {"dataset": {"columns": {"prompt": "d.q", "completion": "label"}}}
    made = followed(check(train=("t.jsonl", data), spec=dict(spec)).verdict.next_step, tmp_path, FILE=data)
    assert check(train=("made.jsonl", made), spec=dict(spec)).code == ExitCode.OK


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("v.jsonl", as_lines([{"question": "a", "answer": "b"}]), None),
        (
            "v.csv",
            "question,answer\na,b\n",
            "write the same names into the first line of this one, prompt for question",
        ),
        ("v.parquet", as_parquet([{"question": "a", "answer": "b"}]), """'. + {"prompt": .["question"], """),
    ],
)
def test_a_file_with_other_names_than_another_one_is_renamed_and_not_mapped(check, tmp_path, name, data, said):
    """A mapping would fit this file, and no longer the other one."""
    train = ("t.jsonl", as_lines(ROWS))
    verdict = check(train=train, validation=(name, data)).verdict
    if said is not None:
        assert said in verdict.next_step
        return
    made = followed(verdict.next_step, tmp_path, FILE=data)
    assert check(train=train, validation=("made.jsonl", made)).code == ExitCode.OK


def test_texts_within_objects_are_named_where_nobody_knows_which_is_meant(check):
    step = check(train=("t.jsonl", as_lines([{"translation": {"en": "a", "de": "b"}}]))).verdict.next_step
    assert step.endswith("takes them out of objects. Texts are translation.en, translation.de.")


@pytest.mark.parametrize(
    "row",
    [
        {"Ada 4111111111111111": [{"prompt": "a", "completion": "b"}]},
        {"Ada 4111111111111111": "[INST] a [/INST] b", "label": "c"},
        {"answers": {"Ada 4111111111111111": "a", "b": "c"}},
        {"answers": {f"Ada{number}": "a" for number in range(20)}},
    ],
)
def test_names_that_may_be_data_are_not_repeated(check, row):
    result = check(train=("t.jsonl", as_lines([row])))
    assert "Ada" not in result.verdict.model_dump_json() + result.err


REQUESTED = [
    {"custom_id": str(at), "url": "/v1/chat/completions", "body": {"messages": row["messages"][:1]}}
    for at, row in enumerate(MESSAGES)
]
ANSWERS = [
    {"custom_id": str(at), "response": {"body": {"choices": [{"message": {**row["messages"][1], "refusal": None}}]}}}
    for at, row in enumerate(MESSAGES)
]
OF_CLAUDE = [{"custom_id": one["custom_id"], "params": {"system": "s", **one["body"]}} for one in REQUESTED]
BY_CLAUDE = [
    {
        "custom_id": str(at),
        "result": {
            "type": "succeeded",
            "message": {"role": "assistant", "content": [{"type": "text", "text": row["messages"][1]["content"]}]},
        },
    }
    for at, row in enumerate(MESSAGES)
]
OF_RESPONSES = [
    {"custom_id": "0", "url": "/v1/responses", "body": {"instructions": "s", "input": ASKED[0]}},
    {"custom_id": "1", "url": "/v1/responses", "body": {"input": REQUESTED[1]["body"]["messages"]}},
]
BY_RESPONSES = [
    {
        "custom_id": str(at),
        "response": {
            "body": {
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": said}]},
                ]
            }
        },
    }
    for at, said in enumerate(ANSWERED)
]
FAILED = {"custom_id": "9", "response": {"status_code": 500, "body": {"error": {}}}}


@pytest.mark.parametrize(
    ("asked", "answered"),
    [(REQUESTED, [FAILED, *ANSWERS[::-1]]), (OF_CLAUDE, BY_CLAUDE), (OF_RESPONSES, BY_RESPONSES)],
    ids=["OpenAI", "Anthropic", "responses of OpenAI"],
)
@pytest.mark.parametrize("given", [0, 1], ids=["requests", "results"])
def test_requests_of_a_batch_and_their_answers_become_rows(check, tmp_path, asked, answered, given):
    files = [as_lines(asked), as_lines(answered)]
    refused = check(train=("t.jsonl", files[given])).verdict
    made = followed(refused.next_step, tmp_path, FILE=files[0], OTHER=files[1])
    mended = check(train=("made.jsonl", made))
    assert (mended.code, mended.verdict.train.rows) == (ExitCode.OK, len(PAIRS)), mended.err


OF_LISTS = {
    "pairs in an array": ("t.json", json.dumps(PAIRS)),
    "pairs on lines": ("t.jsonl", as_lines(PAIRS)),
    "conversations in an array": ("t.json", json.dumps([row["messages"] for row in MESSAGES])),
    "objects as text on lines": ("t.jsonl", as_lines(json.dumps(row) for row in ROWS)),
    "objects as text in an array": ("t.json", json.dumps([json.dumps(row) for row in MESSAGES])),
}


@pytest.mark.parametrize("what", OF_LISTS)
def test_one_command_makes_rows_of_what_are_no_objects(check, tmp_path, what):
    name, data = OF_LISTS[what]
    made = followed(check(train=(name, data)).verdict.next_step, tmp_path, FILE=data)
    mended = check(train=("made.jsonl", made))
    assert (mended.code, mended.verdict.train.rows) == (ExitCode.OK, len(PAIRS)), mended.err


def with_bad(rows, *bad):
    """Good rows, and bad ones among them."""
    return [*rows, *bad, *rows]


def test_named_rows_are_left_out_by_their_lines(check, tmp_path):
    data = (
        "\n"
        + as_lines(with_bad(MESSAGES, {"messages": []}, {"prompt": None, "completion": "a"}))
        + "not json\n"
        + as_lines(ROWS)
    )
    made = followed(check(train=("t.jsonl", data)).verdict.next_step, tmp_path, FILE=data)
    assert made == "\n" + as_lines([*MESSAGES, *MESSAGES, *ROWS])


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("t.jsonl.gz", lambda data: gzip.compress(data.encode())),
        ("t.jsonl.xz", lambda data: lzma.compress(data.encode())),
        ("t.jsonl", lambda data: data.encode("utf-16")),
        ("t.jsonl.bz2", lambda data: bz2.compress(data.encode("utf-16"))),
        ("t.jsonl", lambda data: data.encode("utf-16-be")),
    ],
)
def test_what_no_command_reads_as_it_is_is_unpacked_first(check, tmp_path, name, packed):
    data = packed(as_lines(with_bad(ROWS, {"prompt": "a"})))
    made = followed(check(train=(name, data)).verdict.next_step, tmp_path, PACKED=data)
    assert made == as_lines([*ROWS, *ROWS])


@pytest.mark.parametrize("separator", [",", ";"])
def test_rows_of_a_table_with_too_few_cells_and_headers_among_them_are_left_out(check, tmp_path, separator):
    lines = ["prompt,completion", 'a,"b\nc"', "alone", "d,e", "prompt,completion", "f,g", "h,i"]
    data = "\n".join(lines).replace(",", separator)
    made = followed(check(train=("t.csv", data)).verdict.next_step, tmp_path, FILE=data)
    assert made == "prompt,completion\nf,g\nh,i\n", "and those beside them, which may be parts of one text"


@pytest.mark.parametrize("end", ["(3 rows)\n", "(3 rows affected)", "\\.\n", "prompt,completion\n"])
def test_lines_that_are_no_rows_are_taken_out_of_a_table_and_their_neighbours_are_not(check, tmp_path, end):
    data = f"prompt,completion\na,b\nc,d\ne,f\n{end}"
    made = followed(check(train=("t.csv", data)).verdict.next_step, tmp_path, FILE=data)
    assert made == data.removesuffix(end)


def test_row_numbers_are_told_though_texts_have_as_many_of_another_separator(check, tmp_path):
    data = "prompt\tcompletion\n1\ta\tHold, then release\n2\tb\tIt is; well\n"
    made = followed(check(train=("t.tsv", data)).verdict.next_step, tmp_path, FILE=data)
    assert made == f"number\t{data}"


def test_lines_above_a_table_are_taken_away(check, tmp_path):
    data = "A report\n\nprompt,completion\na,b\nc,d\n"
    made = followed(check(train=("t.csv", data)).verdict.next_step, tmp_path, FILE=data)
    assert made == "prompt,completion\na,b\nc,d\n"


def test_a_file_that_breaks_off_in_its_last_row_is_told_as_that(check):
    step = check(train=("t.jsonl", as_lines(ROWS)[:-9])).verdict.next_step
    assert step.startswith("The file ends within a row, as it does where writing or uploading broke off")


@pytest.mark.parametrize("name", ["t.json", "t.csv", "t.parquet"])
def test_rows_that_lack_a_text_are_left_out_by_what_they_lack(check, tmp_path, name):
    rows = with_bad(ROWS, {"prompt": "a", "completion": ""}, {"prompt": " ", "completion": "b"})
    table = "sep=,\nprompt,completion\n" + "".join(f'"{row["prompt"]}","{row["completion"]}"\n' for row in rows)
    data = {"t.json": json.dumps(rows), "t.csv": table, "t.parquet": as_parquet(rows)}[name]
    made = followed(check(train=(name, data)).verdict.next_step, tmp_path, FILE=data)
    assert [json.loads(line) for line in made.splitlines()] == [*ROWS, *ROWS]


def test_where_most_rows_are_bad_none_are_left_out(check):
    assert "sed" not in check(train=("t.jsonl", as_lines(ROWS[:1]) + "x\ny\n")).verdict.next_step


def test_quotes_of_a_table_that_knows_none_are_kept(check, tmp_path):
    table = 'prompt\tcompletion\n"Hi" she said\tb\nc\td\n'
    step = check(train=("t.tsv", table)).verdict.next_step
    made = followed(step.replace("`sed", ""), tmp_path, FILE=table)
    assert made == 'prompt,completion\n"""Hi"" she said",b\nc,d\n'


@pytest.mark.parametrize(
    "table",
    [
        "prompt,completion\na,Hold, then release\nb,It is\n",
        "prompt,completion\na,Hold, then release,\nb,It is,\n",
        'prompt,completion\na,"Hold, then release"\nb,It is,,\n',
        'prompt,completion\na,"Hold, then release"\n"b","say \\"hi\\" now"\n',
        'prompt, completion\n"a", "Hold, then release"\n"b", "It is"\n',
        '"prompt", "completion"\n"a", "Hold, then release"\n"b", "It is"\n',
        '"prompt,completion"\n"a,""Hold, then release"""\n"b,It is"\n',
        'prompt,completion\na,"Hold, then release"\n"b","say\n\\"hi\\" now"\n',
        "'prompt','completion'\n'a','Hold, then release'\n'b','It''s'\n",
        '\ufeffa,"Hold, then release"\nb,It is\n',
        'prompt^completion\na^"Hold, then release"\nb^It is\n',
        '"prompt","completion"\n"a";"Hold, then release"\n"b";"It is"\n',
    ],
    ids=[
        *("commas", "commas at the end", "one row", "backslashes", "spaces", "spaces in the header", "whole lines"),
        *(
            "backslashes over several lines",
            "single quotes",
            "no header",
            "a separator that no table has",
            "other separators",
        ),
    ],
)
def test_tables_whose_cells_are_not_quoted_are_written_anew(check, tmp_path, table):
    made = followed(check(train=("t.csv", table)).verdict.next_step, tmp_path, FILE=table)
    mended = check(train=("made.csv", made))
    assert (mended.code, mended.verdict.train.rows) == (ExitCode.OK, 2), mended.err
    assert '"Hold, then release"' in made
