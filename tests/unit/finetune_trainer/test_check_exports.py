"""Files as other programs export them: what is said of each leads, when it is followed, to rows that can be used."""

import json

import pytest

from finetune_api.exit_codes import ExitCode
from tests.unit.finetune_trainer.following import followed

ASKED = ["How do I reset the router?", "Is it broken?\nIt does not start."]
ANSWERED = ["Hold the button for five seconds.", "Perhaps: is it plugged in?"]
PAIRS = list(zip(ASKED, ANSWERED, strict=True))
PREFERENCE = {"preference": {}}


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def node(name, parent, role=None, *parts):
    said = None if role is None else {"author": {"role": role}, "content": {"content_type": "text", "parts": [*parts]}}
    return {"id": name, "parent": parent, "message": said}


def of_chatgpt(asked, answered):
    """With an answer that was generated anew, a hidden system message, a picture and a last word of thanks."""
    nodes = [
        node("root", None),
        node("hidden", "root", "system", ""),
        node("asked", "hidden", "user", {"content_type": "image_asset_pointer"}, asked),
        node("old", "asked", "assistant", "an answer that was dismissed"),
        node("new", "asked", "assistant", answered),
        node("thanks", "new", "user", "thanks"),
    ]
    return {"title": "t", "mapping": {one["id"]: one for one in nodes}, "current_node": "thanks", "create_time": 1.7e9}


def of_claude(asked, answered):
    said = [{"sender": "human", "text": asked}, {"sender": "assistant", "text": answered}]
    return {"uuid": "1", "name": "n", "chat_messages": [*said, {"sender": "human", "text": "thanks"}]}


def of_label_studio(asked, _, **value):
    result = [{"value": value or {"choices": ["positive"]}, "from_name": "s", "to_name": "text"}]
    return {"id": 1, "annotations": [{"id": 1, "result": result}], "data": {"text": asked}, "meta": {}}


def dialogue(asked, answered):
    return f"\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: {asked}\n\nAssistant: {answered}"


EXPORTS = {
    "ChatGPT": ([of_chatgpt(*pair) for pair in PAIRS], {}),
    "Claude": ([of_claude(*pair) for pair in PAIRS], {}),
    "choices of Label Studio": ([of_label_studio(*pair) for pair in PAIRS], {}),
    "texts of Label Studio": ([of_label_studio(*pair, text=[pair[1]]) for pair in PAIRS], {}),
    "intents": ([{"tag": "t", "patterns": [one], "responses": [other, "z"]} for one, other in PAIRS], {}),
    "Argilla": (
        [{"id": "1", "fields": {"NAME": one}, "responses": {"NAME": [{"value": other}]}} for one, other in PAIRS],
        {},
    ),
    "Cohere": (
        [
            {"message": one, "chat_history": [{"role": "USER", "message": "a"}, {"role": "CHATBOT", "message": "b"}]}
            | {"response": other}
            for one, other in PAIRS
        ],
        {},
    ),
    "HH-RLHF": ([{"chosen": dialogue(*pair), "rejected": dialogue(pair[0], "no")} for pair in PAIRS], PREFERENCE),
    "an answer within an object": ([{"prompt": one, "id": 1, "fields": {"x": other}} for one, other in PAIRS], {}),
    "authors": (
        [
            {"messages": [{"author": "user", "content": one}, {"author": "bot", "content": other}]}
            for one, other in PAIRS
        ],
        {},
    ),
    "senders": (
        [
            {"messages": [{"sender": "human", "text": one}, {"sender": "assistant", "text": other}]}
            for one, other in PAIRS
        ],
        {},
    ),
    "thoughts of Gemini": (
        [
            {
                "contents": [
                    {"role": "user", "parts": [{"text": one}]},
                    {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": other}]},
                ]
            }
            for one, other in PAIRS
        ],
        {},
    ),
    "thoughts of Claude": (
        [
            {
                "messages": [
                    user(one),
                    assistant([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": other}]),
                ]
            }
            for one, other in PAIRS
        ],
        {},
    ),
    "logs": (
        [
            {"request": {"messages": [user(one)]}, "response": {"choices": [{"message": assistant(other)}]}}
            for one, other in PAIRS
        ],
        {},
    ),
    "a batch of Vertex": (
        [
            {
                "request": {"contents": [{"role": "user", "parts": [{"text": one}]}]},
                "response": {"candidates": [{"content": {"role": "model", "parts": [{"text": other}]}}]},
            }
            for one, other in PAIRS
        ],
        {},
    ),
    "completions that OpenAI has stored": (
        [{"id": "1", "input": [user(x)], "choices": [{"index": 0, "message": assistant(y)}]} for x, y in PAIRS],
        {},
    ),
    "responses beside messages": (
        [{"messages": [user(x)], "response": json.dumps({"choices": [{"message": assistant(y)}]})} for x, y in PAIRS],
        {},
    ),
    "a log of Bedrock": (
        [
            {
                "schemaType": "ModelInvocationLog",
                "input": {"inputBodyJson": {"messages": [user([{"text": one}])], "system": [{"text": "s"}]}},
                "output": {"outputBodyJson": {"output": {"message": assistant([{"text": other}])}}},
            }
            for one, other in PAIRS
        ],
        {},
    ),
    "requests and responses as JSON text, a question without a role": (
        [
            {
                "request": json.dumps({"contents": [{"parts": [{"text": one}]}]}),
                "response": json.dumps({"candidates": [{"content": {"role": "model", "parts": [{"text": other}]}}]}),
            }
            for one, other in PAIRS
        ],
        {},
    ),
    "a batch of Bedrock": (
        [
            {"recordId": "1", "modelInput": {"system": "s", "messages": [user(one)]}, "modelOutput": {"content": parts}}
            for one, other in PAIRS
            for parts in [[{"type": "text", "text": other}]]
        ],
        {},
    ),
    "Prodigy": (
        [
            {"text": one, "label": other, "answer": answer, "_input_hash": 1}
            for one, other in PAIRS
            for answer in ("accept", "reject", "ignore")
        ],
        {},
    ),
    "a history before an instruction": (
        [
            {"instruction": one, "input": "", "output": other, "history": [["Hello", "Hi!"]], "system": "s"}
            for one, other in PAIRS
        ],
        {},
    ),
    "rows as JSON text": ([{"id": 1, "text": json.dumps({"prompt": x, "completion": y})} for x, y in PAIRS], {}),
    "Capybara": (
        [{"source": "s", "conversation": [{"input": x, "output": y}, {"input": x, "output": y}]} for x, y in PAIRS],
        {},
    ),
    "turns of questions and answers": (
        [{"id": 1, "turns": [{"question": x, "answer": y}, {"question": x, "answer": y}]} for x, y in PAIRS],
        {},
    ),
    "MMLU": ([{"question": x, "choices": [y, "no"], "answer": 0} for x, y in PAIRS], {}),
    "ARC": (
        [
            {"question": x, "choices": {"text": [y, "no"], "label": ["1", "2"]}, "answerKey": "1", "id": "x"}
            for x, y in PAIRS
        ],
        {},
    ),
    "messages whose text is called data": (
        [{"messages": [{"type": "human", "data": x}, {"type": "ai", "data": {"content": y}}]} for x, y in PAIRS],
        {},
    ),
    "messages within an object": ([{"data": {"messages": [user(x), assistant(y)]}} for x, y in PAIRS], {}),
    "KTO": (
        [
            {"prompt": one, "completion": said, "label": label}
            for one, other in PAIRS
            for said, label in ((other, True), ("no", False), ("dismissed", False))
        ],
        PREFERENCE,
    ),
    "UltraChat": ([{"id": "1", "data": ["Hello", "Hi!", *pair]} for pair in PAIRS], {}),
    "Slack": (
        [
            {"type": "message", "user": who, "text": said, "ts": f"{number}.{place}", "thread_ts": f"{number}.0"}
            for number, pair in enumerate(PAIRS)
            for place, (who, said) in enumerate(zip(("U1", "ANSWERER", "U1"), (*pair, "thanks"), strict=True))
        ],
        {},
    ),
}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize("what", EXPORTS)
def test_the_command_of_the_next_step_makes_rows_of_an_export(check, tmp_path, what, name):
    rows, spec = EXPORTS[what]
    data = json.dumps(rows) if name == "rows.json" else as_lines(rows)
    refused = check(train=(name, data), spec=dict(spec))
    assert refused.code == ExitCode.DATASET_INVALID
    made = followed(refused.verdict.next_step, tmp_path, FILE=data)
    mended = check(train=("mended.jsonl", made), spec=dict(spec))
    assert (mended.code, mended.verdict.train.rows) == (ExitCode.OK, len(PAIRS)), mended.err
    assert "thanks" not in made
    assert "dismissed" not in made
    assert all(json.dumps(asked)[1:-1] in made for asked in ASKED), "nothing is lost"


def test_turns_that_a_table_has_as_json_are_not_lost(check, tmp_path):
    turns = [{"role": "USER", "message": "a"}, {"role": "CHATBOT", "message": "b"}]
    data = as_lines({"message": one, "chat_history": json.dumps(turns), "response": other} for one, other in PAIRS)
    made = followed(check(train=("t.jsonl", data)).verdict.next_step, tmp_path, FILE=data)
    assert [len(json.loads(line)["messages"]) for line in made.splitlines()] == [4] * len(PAIRS)


def test_a_document_beside_a_question_is_not_taken_for_its_answer(check):
    data = as_lines([{"asked": [user("q")], "documents": [{"content": "d", "url": "u"}]}])
    assert "puts the answers" not in check(train=("rows.jsonl", data)).verdict.next_step


OTHER_PARTS = {
    "an image": [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
    ],
    "an image of Bedrock": [{"text": "What is it?"}, {"image": {"format": "png"}}],
    "a tool's answer": [{"type": "tool_result", "tool_use_id": "1", "content": "4"}],
}


@pytest.mark.parametrize("what", OTHER_PARTS)
def test_rows_that_show_something_else_than_text_are_left_out_by_the_next_step(check, tmp_path, what):
    plain = [{"messages": [user([{"type": "text", "text": one}]), assistant(other)]} for one, other in PAIRS]
    row = {"messages": [user(OTHER_PARTS[what]), assistant("a cat")]}
    data = as_lines([plain[0], row, plain[1]])
    refused = check(train=("rows.jsonl", data))
    assert "1 of 3 rows cannot be used: line 2: content of message 1 has a" in refused.verdict.message
    made = followed(refused.verdict.next_step, tmp_path, FILE=data)
    assert made == as_lines(plain).replace(", ", ",").replace('": ', '":')


@pytest.mark.parametrize(
    ("columns", "mapped"),
    [
        (
            ("instruction", "chosen_response", "rejected_response", "chosen_rating", "rejected_rating"),
            "{prompt: instruction, chosen: chosen_response, rejected: rejected_response}",
        ),
        (("prompt_id", "question", "preferred", "loser"), "{prompt: question, chosen: preferred, rejected: loser}"),
        (("prompt-id", "promt", "chosen", "rejected"), "{prompt: promt}"),
    ],
)
def test_what_says_something_of_a_column_is_not_taken_for_it(check, columns, mapped):
    rows = [dict.fromkeys(columns, f"text {number}") for number in range(2)]
    refused = check(train=("rows.jsonl", as_lines(rows)), spec=dict(PREFERENCE))
    assert f"spec.dataset.columns: {mapped}," in refused.verdict.next_step


def test_a_whole_conversation_is_mapped_as_one_and_not_as_an_answer(check):
    rows = [{"prompt": x, "chosen": [user(x), assistant(y)], "rejected": [user(x), assistant("no")]} for x, y in PAIRS]
    assert "spec.dataset.columns: {messages: chosen}," in check(train=("t.jsonl", as_lines(rows))).verdict.next_step


def test_marks_within_a_text_are_not_taken_for_rows(check):
    rows = [{"document": x, "spans": [{"text": "router", "label": "y"}]} for x, _ in PAIRS]
    assert "takes the rows" not in check(train=("t.jsonl", as_lines(rows))).verdict.next_step


def test_lines_of_single_messages_become_rows_of_neighbours(check, tmp_path):
    said = [one for x, y in PAIRS for one in ({"role": "system", "content": "s"}, user(x), assistant(y))]
    data = as_lines(said)
    made = followed(check(train=("rows.jsonl", data)).verdict.next_step, tmp_path, FILE=data)
    assert [json.loads(line)["messages"] for line in made.splitlines()] == [[user(x), assistant(y)] for x, y in PAIRS]


def test_one_answer_is_not_taken_where_two_are_asked_for(check):
    rows = [{"question": "q", "answers": ["a", "b"]}]
    step = check(train=("rows.jsonl", as_lines(rows)), spec=dict(PREFERENCE)).verdict.next_step
    assert step.endswith("write a column for each of prompt, chosen, rejected.")


def test_a_number_is_not_taken_for_an_answer(check):
    rows = [{"prompt": "p", "first": "c", "second": "d", "preferred": 1}]
    refused = check(train=("rows.jsonl", as_lines(rows)), spec=dict(PREFERENCE))
    assert "spec.dataset.columns: {chosen: NAME, rejected: NAME}," in refused.verdict.next_step


@pytest.mark.parametrize("what", OTHER_PARTS)
def test_where_every_row_shows_something_else_than_text_none_is_left_out(check, what):
    row = {"messages": [user(OTHER_PARTS[what]), assistant("a cat")]}
    refused = check(train=("rows.jsonl", as_lines([row, row])))
    assert "every row has something else in it" in refused.verdict.next_step
    assert "jq" not in refused.verdict.next_step


def test_where_every_row_calls_tools_none_is_left_out(check):
    row = {"messages": [user("2 + 2?"), {"role": "assistant", "tool_calls": [{"id": "1"}]}, assistant("4")]}
    refused = check(train=("rows.jsonl", as_lines([row, row])))
    assert "every row has some: write calls and what came of them as text" in refused.verdict.next_step
    assert "jq" not in refused.verdict.next_step


def test_answers_without_a_question_get_no_command_for_dialogues(check):
    data = as_lines({"chosen": other, "rejected": "no"} for _, other in PAIRS)
    assert check(train=("t.jsonl", data), spec=dict(PREFERENCE)).verdict.next_step.endswith("text has no turns.")
