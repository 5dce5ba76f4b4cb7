"""What makes a row usable, and what is said of one that is not."""

import json

import pytest

from finetune_api.dataset import Columns
from finetune_trainer.data.columns import Unusable
from finetune_trainer.data.fixes import column_names
from finetune_trainer.data.rows import Position, Record
from finetune_trainer.data.turns import MESSAGES_LIMIT
from tests.unit.finetune_trainer.data.files import to_row

LINE = Position(line=17)
SYSTEM = {"role": "system", "content": "s"}
USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
TEXT, IMAGE = {"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "https://x.test"}}
GEMINI = {"role": "user", "parts": [{"text": "a"}]}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}


def row_of(fields, **columns):
    return to_row(Record(LINE, fields), Columns(**columns))


@pytest.mark.parametrize(
    ("fields", "turns"),
    [
        ({"prompt": "a", "completion": "b"}, "user:a assistant:b"),
        ({"prompt": "a", "completion": "b", "system": "s"}, "system:s user:a assistant:b"),
        ({"prompt": "a", "completion": "b", "system": None}, "user:a assistant:b"),
        ({"prompt": "a", "completion": "b", "system": " "}, "user:a assistant:b"),
        ({"prompt": "a", "completion": "b", "messages": 3, "more": 4}, "user:a assistant:b"),
        ({"prompt": "a", "completion": "b", "system": "\u200b"}, "user:a assistant:b"),
        ({"messages": [USER, ANSWER]}, "user:a assistant:b"),
        ({"prompt": None, "completion": None, "messages": [USER, ANSWER]}, "user:a assistant:b"),
        ({"messages": [USER, ANSWER], "conversations": [{"from": "human", "value": "c"}]}, "user:a assistant:b"),
        ({"messages": [SYSTEM, USER, ANSWER]}, "system:s user:a assistant:b"),
        ({"messages": [{"role": "system", "content": None}, USER, ANSWER]}, "user:a assistant:b"),
        ({"messages": [USER, ANSWER, USER, ANSWER]}, "user:a assistant:b user:a assistant:b"),
        ({"messages": [{**USER, "name": "x"}, {**ANSWER, "thinking": None}]}, "user:a assistant:b"),
        ({"system": "s", "messages": [USER, ANSWER]}, "system:s user:a assistant:b"),
        (
            {"system": "s", "messages": [SYSTEM, USER, ANSWER]},
            "system:s user:a assistant:b",
        ),
        (
            {"system": " ", "messages": [SYSTEM, USER, ANSWER]},
            "system:s user:a assistant:b",
        ),
        ({"messages": [USER, {**ANSWER, "weight": 1, "tool_calls": []}]}, "user:a assistant:b"),
        ({"messages": [{**USER, "content": [TEXT]}, {**ANSWER, "content": [TEXT, TEXT]}]}, "user:t assistant:t\nt"),
        ({"messages": [{**SYSTEM, "content": []}, USER, {**ANSWER, "content": [{"text": "t"}]}]}, "user:a assistant:t"),
        ({"messages": [{**SYSTEM, "content": [{**TEXT, "text": " "}]}, USER, ANSWER]}, "user:a assistant:b"),
        ({"messages": [USER, ANSWER], "system": [{"text": "s"}]}, "system:s user:a assistant:b"),
        ({"prompt": [TEXT], "completion": [{**TEXT, "cache": None}]}, "user:t assistant:t"),
        ({"prompt": [{**TEXT, "content": ""}], "completion": "b"}, "user:t assistant:b"),
        ({"prompt": [{**TEXT, "text": "", "content": "t"}], "completion": "b"}, "user:t assistant:b"),
        ({"messages": [{"role": "developer", "content": "s"}, USER, ANSWER]}, "system:s user:a assistant:b"),
        ({"messages": [{"role": "User", "content": "a"}, {"role": "Chatbot", "content": "b"}]}, "user:a assistant:b"),
        ({"contents": [GEMINI, {"role": "model", "parts": [{"text": "b"}]}]}, "user:a assistant:b"),
        (
            {
                "systemInstruction": {"role": "system", "parts": [{"text": "s"}]},
                "contents": [GEMINI, {"role": "model", "parts": [{"text": "b"}, {"text": "c"}]}],
                "generationConfig": {},
            },
            "system:s user:a assistant:b\nc",
        ),
        (
            {
                "messages": [
                    {"from": "system", "value": "s"},
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                ]
            },
            "system:s user:a assistant:b",
        ),
    ],
)
def test_usable_rows(fields, turns):
    assert " ".join(f"{turn.role}:{turn.content}" for turn in row_of(fields).turns) == turns


TALK = [USER, ANSWER, {**USER, "content": "c"}]


@pytest.mark.parametrize(
    ("fields", "turns", "unlearnt"),
    [
        ({"prompt": [USER], "completion": [ANSWER]}, "user:a assistant:b", ()),
        ({"prompt": USER, "completion": ANSWER}, "user:a assistant:b", ()),
        ({"prompt": {"messages": [SYSTEM, USER]}, "completion": "b"}, "system:s user:a assistant:b", ()),
        ({"prompt": "a", "completion": [ANSWER], "system": "s"}, "system:s user:a assistant:b", ()),
        ({"prompt": TALK, "completion": [ANSWER]}, "user:a assistant:b user:c assistant:b", (1,)),
        (
            {"prompt": TALK, "completion": [{**ANSWER, "weight": 0}, USER, ANSWER], "system": "s"},
            "system:s user:a assistant:b user:c assistant:b user:a assistant:b",
            (2, 4),
        ),
        ({"messages": [USER, {**ANSWER, "weight": 0}, USER, ANSWER]}, "user:a assistant:b user:a assistant:b", (1,)),
        ({"messages": [USER, {**ANSWER, "train": False}, USER, ANSWER]}, "user:a assistant:b user:a assistant:b", (1,)),
        ({"messages": [USER, {**ANSWER, "loss": 0}, USER, ANSWER]}, "user:a assistant:b user:a assistant:b", (1,)),
        (
            {"messages": [USER, {**ANSWER, "train": True}, USER, {**ANSWER, "loss": 1.0}]},
            "user:a assistant:b user:a assistant:b",
            (),
        ),
        (
            {"messages": [{**SYSTEM, "content": ""}, USER, {**ANSWER, "weight": 0}, USER, ANSWER], "system": "s"},
            "system:s user:a assistant:b user:a assistant:b",
            (2,),
        ),
        ({"messages": json.dumps([USER, ANSWER])}, "user:a assistant:b", ()),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "user:a assistant:b", ()),
        ({"instruction": "a", "input": "i", "output": "b"}, "user:a\n\ni assistant:b", ()),
        ({"instruction": "a", "input": " ", "output": "b"}, "user:a assistant:b", ()),
        ({"instruction": "a", "output": "b", "system": "s"}, "system:s user:a assistant:b", ()),
        ({"Prompt": "a", " COMPLETION": "b", "System": "s"}, "system:s user:a assistant:b", ()),
        ({"prompt": "a", "Completion": "b"}, "user:a assistant:b", ()),
        ({"PROMPT": "a", "completion": "b"}, "user:a assistant:b", ()),
        ({"prompt": "a", "completion\u200b": "b"}, "user:a assistant:b", ()),
        ({"\u200bprompt": "a", "completion\ufeff": "b"}, "user:a assistant:b", ()),
        ({"instruction": "a", "context": "i", "response": "b", "category": "c"}, "user:a\n\ni assistant:b", ()),
        ({"instruction": "a", "response": "b"}, "user:a assistant:b", ()),
        ({"prompt": "a", "messages": [SYSTEM, USER, ANSWER]}, "system:s user:a assistant:b", ()),
        ({"prompt": "a", "completion": None, "messages": [USER, ANSWER]}, "user:a assistant:b", ()),
        ({"prompt": [USER], "messages": [USER, ANSWER], "system": "s"}, "system:s user:a assistant:b", ()),
        ({"prompt": "a", "completion": "b", "messages": [USER, ANSWER]}, "user:a assistant:b", ()),
        ({"prompt": "a", "completion": "b", "messages": json.dumps([USER, ANSWER])}, "user:a assistant:b", ()),
        ({"prompt": "a", "completion": "b", "messages": [], "system": "s"}, "system:s user:a assistant:b", ()),
        ({"prompt": "a", "completion": "b", "messages": [USER]}, "user:a assistant:b", ()),
        ({"prompt": "a", "completion": "b", "messages": "[none of them]"}, "user:a assistant:b", ()),
        ({"prompt": None, "completion": "b", "messages": [USER, ANSWER]}, "user:a assistant:b", ()),
        ({"Instruction": "a", "Input": "i", "Output": "b", "System": "s"}, "system:s user:a\n\ni assistant:b", ()),
        ({"INSTRUCTION": "a", "response": "b"}, "user:a assistant:b", ()),
        ({"Conversations": [USER, ANSWER]}, "user:a assistant:b", ()),
        ({"messages": [{**USER, "from": "human", "value": "a"}, ANSWER]}, "user:a assistant:b", ()),
        (
            {"messages": [{"role": None, "content": None, "from": "human", "value": "a"}, {**ANSWER, "value": None}]},
            "user:a assistant:b",
            (),
        ),
    ],
)
def test_usable_rows_of_other_layouts(fields, turns, unlearnt):
    row = row_of(fields)
    assert " ".join(f"{turn.role}:{turn.content}" for turn in row.turns) == turns
    assert row.unlearnt == unlearnt


@pytest.mark.parametrize("row", [{"instruction": "a", "output": "b"}, {"conversations": [USER, ANSWER]}])
def test_other_layouts_are_known_only_where_the_job_names_no_columns(row):
    assert row_of(row, prompt="text").what == "prompt (column text) is missing"


OTHER = {"messages": [{**USER, "content": "another"}, ANSWER]}


@pytest.mark.parametrize(
    ("fields", "field", "what"),
    [
        ({"prompt": "a", "completion": "b", **OTHER}, "messages", "messages says something else than prompt and comp"),
        ({"prompt": "a", "completion": "b", "messages": json.dumps(OTHER["messages"])}, "messages", "messages says"),
        ({"prompt": "a", "completion": "b", "messages": [*TALK, ANSWER]}, "messages", "messages says something else"),
        ({"completion": "z", **OTHER}, "completion", "messages says something else than completion: leave one of"),
        ({"messages": [{**USER, "from": "gpt"}, ANSWER]}, "messages", "message 1 has role and from, which say diff"),
        ({"messages": [USER, {**ANSWER, "value": "z"}]}, "messages", "message 2 has content and value, which say diff"),
        ({"messages": [USER, {**ANSWER, "content": "", "value": "z"}]}, "messages", "message 2 has content and value"),
        ({"messages": [{**USER, **GEMINI, "content": "z"}, ANSWER]}, "messages", "message 1 has content and parts"),
        (
            {"prompt": [{"type": "text", "text": "a", "content": "z"}]},
            "prompt",
            "prompt has a part of type text that s",
        ),
        ({"prompt": [{**USER, "from": "gpt"}], "completion": "b"}, "prompt", "message 1 has role and from"),
    ],
)
def test_a_row_that_says_two_things_is_refused(fields, field, what):
    found = row_of(fields)
    assert isinstance(found, Unusable)
    assert (found.field, found.what[: len(what)]) == (field, what)


def test_columns_that_the_job_names_are_read_whatever_stands_beside_them():
    row = row_of({"question": "a", "completion": "b", **OTHER}, prompt="question")
    assert [turn.content for turn in row.turns] == ["a", "b"]


def test_names_in_other_letters_are_read_only_where_one_column_can_be_meant():
    row = {"Instruction": "a", "INSTRUCTION": "c", "output": "b"}
    assert row_of(row).what == "prompt is missing"


def test_text_is_taken_as_it_is():
    assert row_of({"prompt": " a\n", "completion": "\tb "}).turns[0].content == " a\n"


def test_columns_are_mapped():
    fields = {"text": "a", "label": "b", "rule": "s", "prompt": 3}
    row = row_of(fields, prompt="text", completion="label", system="rule")
    assert [turn.content for turn in row.turns] == ["s", "a", "b"]


def test_a_conversation_may_be_in_the_column_called_prompt():
    row = row_of({"prompt": [USER, ANSWER]}, messages="prompt")
    assert [turn.content for turn in row.turns] == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "kind", "column", "said"),
    [
        ({"completion": "b"}, "Missing", "prompt", "prompt is missing"),
        ({}, "Missing", "prompt", "prompt is missing"),
        ({"prompt": None, "completion": "b"}, "Missing", "prompt", "prompt is missing"),
        ({"prompt": "a"}, "Missing", "completion", "completion is missing"),
        ({"prompt": "a", "completion": ""}, "Empty", "completion", "completion is empty"),
        ({"prompt": " \n\t ", "completion": "b"}, "Empty", "prompt", "prompt is empty"),
        ({"prompt": "\u200b\ufeff\x00\u00a0", "completion": "b"}, "Empty", "prompt", "prompt is empty"),
        ({"prompt": None, "completion": "b", "messages": None}, "Missing", "prompt", "prompt is missing"),
        ({"prompt": "a", "completion": 3}, "NotText", "completion", "completion is a number, not text"),
        ({"prompt": "a", "completion": 3.5}, "NotText", "completion", "completion is a number, not text"),
        ({"prompt": "a", "completion": True}, "NotText", "completion", "completion is true or false, not text"),
        ({"prompt": ["a"], "completion": "b"}, "NotText", "prompt", "prompt is a list, not text"),
        (
            {"prompt": [IMAGE, TEXT], "completion": "b"},
            "NotText",
            "prompt",
            "prompt has an image in it: only text can be learnt",
        ),
        (
            {"prompt": [{"audio": "x", "text": None}], "completion": "b"},
            "NotText",
            "prompt",
            "prompt has audio in it: only text can be learnt",
        ),
        (
            {"prompt": [{"type": "x"}], "completion": "b"},
            "NotText",
            "prompt",
            "prompt has something other than text in it: only text can be learnt",
        ),
        (
            {"prompt": [{"type": "text"}], "completion": "b"},
            "NotText",
            "prompt",
            "prompt has a part of type text without text",
        ),
        ({"prompt": [], "completion": "b"}, "Empty", "prompt", "prompt is empty"),
        ({"prompt": "\u3164\ufe0f\u2800", "completion": "b"}, "Empty", "prompt", "prompt is empty"),
        (
            {"messages": [{**USER, "content": [IMAGE]}, ANSWER]},
            "NotText",
            "messages",
            "content of message 1 has an image in it: only text can be learnt",
        ),
        (
            {"messages": [USER, {"from": "gpt", "value": "b", "weight": 0}]},
            "Malformed",
            "messages",
            "message 2 has weight 0, but the last answer is always learnt: remove weight, or the row",
        ),
        (
            {"messages": [USER, {**ANSWER, "train": False}]},
            "Malformed",
            "messages",
            "message 2 has train false, but the last answer is always learnt: remove train, or the row",
        ),
        (
            {"messages": [USER, {**ANSWER, "loss": "no"}, USER, ANSWER]},
            "Malformed",
            "messages",
            "message 2 has a loss other than 0 and 1, or false and true",
        ),
        (
            {"messages": [USER, {**ANSWER, "reasoning": "c"}]},
            "Malformed",
            "messages",
            "message 2 has reasoning beside its content",
        ),
        ({"prompt": {"a": 1}, "completion": "b"}, "NotText", "prompt", "prompt is an object, not text"),
        ({"prompt": b"a", "completion": "b"}, "NotText", "prompt", "prompt is bytes, not text"),
        ({"prompt": "a", "completion": "b", "system": 1}, "NotText", "system", "system is a number, not text"),
        ({"messages": [USER, ANSWER], "system": 1}, "NotText", "system", "system is a number, not text"),
        (
            {"messages": [SYSTEM, USER, ANSWER], "system": "t"},
            "Malformed",
            "system",
            "system is another one than that of the conversation",
        ),
        ({"messages": None}, "Missing", "messages", "messages is missing"),
        ({"messages": []}, "Empty", "messages", "messages is empty"),
        ({"messages": "a"}, "Malformed", "messages", "messages is not a list of messages"),
        ({"messages": 5}, "Malformed", "messages", "messages is not a list of messages"),
        ({"messages": '"a"'}, "Malformed", "messages", "messages is not a list of messages, but text"),
        ({"messages": {"0": ANSWER}}, "Malformed", "messages", "messages is not a list of messages, but an object"),
        *(
            (
                {"messages": [{"role": role, "content": "a"}, ANSWER]},
                "Malformed",
                "messages",
                "message 1 has a role other",
            )
            for role in ({}, ["user"], 1)
        ),
        ({"messages": [1, ANSWER]}, "Malformed", "messages", "message 1 is not an object with role and content"),
        (
            {"contents": [GEMINI, {"role": "model", "parts": [{"text": "b", "thought": True}]}]},
            "NotText",
            "contents",
            "content of message 2 has reasoning in it",
        ),
        (
            {"contents": [GEMINI, {"role": "model", "parts": [{"functionCall": {"name": "f"}}]}]},
            "NotText",
            "contents",
            "content of message 2 has a tool's call or answer in it",
        ),
        ({"contents": "a", "label": "b"}, "Missing", "prompt", "prompt is missing"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "Malformed",
            "messages",
            "message 1 is a tool's, which cannot",
        ),
        ({"messages": [{"value": "a"}]}, "Malformed", "messages", "message 1 has no role"),
        ({"messages": [{"from": "human", "value": "a"}]}, "NoCompletion", "messages", "the last message is not"),
        ({"messages": [USER, CALL, ANSWER]}, "Malformed", "messages", "message 2 calls a tool"),
        (
            {"messages": [USER, {"from": "observation", "value": "x"}, ANSWER]},
            "Malformed",
            "messages",
            "message 2 is a t",
        ),
        ({"messages": [{"from": "function_call", "value": "x"}]}, "Malformed", "messages", "message 1 is a tool's"),
        (
            {"messages": [USER, {**ANSWER, "weight": 0.5}, USER, ANSWER]},
            "Malformed",
            "messages",
            "message 2 has a weight other than 0 and 1",
        ),
        ({"messages": " "}, "Empty", "messages", "messages is empty"),
        ({"messages": "{}"}, "Malformed", "messages", "messages is not a list of messages"),
        (
            {"messages": "[{'role': 'user'}]"},
            "Malformed",
            "messages",
            "messages is a list as Python's str writes it, not JSON",
        ),
        (
            {"messages": "[" * 5000},
            "Malformed",
            "messages",
            "messages is not a list of messages, nor one written as JSON",
        ),
        ({"messages": json.dumps([USER])}, "NoCompletion", "messages", "the last message is not the assistant's"),
        ({"prompt": [USER, ANSWER], "completion": "b"}, "Malformed", "prompt", "the last message of the prompt is not"),
        ({"prompt": [{}, USER], "completion": "b"}, "Malformed", "prompt", "message 1 has no role"),
        (
            {"prompt": "a", "completion": [USER, ANSWER]},
            "NoCompletion",
            "completion",
            "completion is not the assistant's",
        ),
        ({"prompt": "a", "completion": []}, "Empty", "completion", "completion is empty"),
        (
            {"prompt": [SYSTEM, USER], "completion": "b", "system": "t"},
            "Malformed",
            "system",
            "system is another one than that of the conversation",
        ),
        ({"prompt": "a", "completion": [CALL]}, "Malformed", "completion", "message 1 calls a tool"),
        ({"instruction": " ", "input": "a", "output": "b"}, "Empty", "instruction", "prompt (column instruction) is"),
        ({"instruction": "a", "input": 3, "output": "b"}, "NotText", "input", "prompt (column input) is a number"),
        ({"instruction": "a", "output": None}, "Missing", "output", "completion (column output) is missing"),
        ({"instruction": "a", "output": "b", "history": []}, "Missing", "prompt", "prompt is missing"),
        ({"instruction": "a", "output": "b", "response": "c"}, "Missing", "prompt", "prompt is missing"),
        ({"instruction": "a", "input": "b", "context": "c", "output": "d"}, "Missing", "prompt", "prompt is missing"),
        ({"prompt": "a", "completion": None, "messages": []}, "Missing", "completion", "completion is missing"),
        (
            {"prompt": "another", "messages": [USER, ANSWER]},
            "Malformed",
            "prompt",
            "messages is a conversation of its own, and prompt is not in it",
        ),
        (
            {"prompt": ANSWER["content"], "messages": [USER, ANSWER]},
            "Malformed",
            "prompt",
            "messages is a conversation of its own, and prompt is not in it",
        ),
        (
            {"messages": [USER, {**ANSWER, "reasoning_content": "r"}]},
            "Malformed",
            "messages",
            "message 2 has reasoning_content beside its content",
        ),
        ({"messages": [USER, {**ANSWER, "thinking": ["r"]}]}, "Malformed", "messages", "message 2 has thinking beside"),
        ({"Prompt": "a", "PROMPT": "a", "completion": "b"}, "Missing", "prompt", "prompt is missing"),
        ({"prompt": "a", "instruction": "b", "output": "c"}, "Missing", "completion", "completion is missing"),
        ({"messages": [{"role": "user"}, ANSWER]}, "Missing", "messages", "content of message 1 is missing"),
        ({"messages": [USER, {**ANSWER, "content": ""}]}, "Empty", "messages", "content of message 2 is empty"),
        ({"messages": [USER, {**ANSWER, "content": [1]}]}, "NotText", "messages", "content of message 2 is a list"),
        ({"messages": [USER]}, "NoCompletion", "messages", "the last message is not the assistant's"),
        ({"messages": [ANSWER]}, "Missing", "messages", "no message of the user before the answer"),
        ({"messages": [USER, ANSWER] * MESSAGES_LIMIT}, "Malformed", "messages", "more than 256 messages"),
    ],
)
def test_unusable_rows(fields, kind, column, said):
    found = row_of(fields)
    assert isinstance(found, Unusable)
    assert (found.kind, found.field, found.position) == (kind, column, LINE)
    assert found.what.startswith(said)


def test_an_unreadable_record_is_malformed():
    found = to_row(Record(LINE, None, "the line is not UTF-8 text"), Columns())
    problem = found.named("train.jsonl")
    assert (problem.problem, problem.line, problem.field) == ("Malformed", 17, None)
    assert problem.message == "line 17: the line is not UTF-8 text"


def test_a_mapped_column_is_called_by_both_names():
    found = row_of({"text": "a", "label": ""}, prompt="text", completion="label")
    assert found.what == "completion (column label) is empty"
    assert found.named("t.csv").field == "label"


@pytest.mark.parametrize("fields", [{"prompt": "secret", "completion": 1}, {"messages": [{"role": "secret"}]}])
def test_no_text_of_the_row_is_quoted(fields):
    assert "secret" not in row_of(fields).named("t").model_dump_json()


def test_what_is_said_of_a_row_is_as_long_as_a_verdict_may_hold():
    said = Unusable(LINE, "Malformed", "it is " + "very " * 100 + "long").named("t").message
    assert said.startswith("line 17: it is very")
    assert len(said) == 300


@pytest.mark.parametrize(
    ("asked", "seen", "meant"),
    [
        ({"prompt": "q", "completion": "x"}, ["prompt", "response"], {"prompt": "prompt", "completion": "response"}),
        ({"messages": "conv"}, ["messages"], {"messages": "messages"}),
        ({"chosen": "good", "rejected": "bad"}, ["chosen", "rejected"], {"chosen": "chosen", "rejected": "rejected"}),
    ],
)
def test_columns_that_are_called_as_we_call_them_are_meant_where_the_job_maps_others(asked, seen, meant):
    assert column_names.probable_columns(Columns(**asked), seen) == meant
