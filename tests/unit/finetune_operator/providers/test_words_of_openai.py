"""What services with OpenAI's API say is wrong: readable words, whatever their shape; no row, and no secret."""

import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.providers.openai import wire
from finetune_operator.providers.openai.refusals import translated, with_spec_field
from finetune_operator.providers.openai.words import ErrorText, error_text

ROW = "Frau Huber hat Fieber"
MESSAGES = {"messages": [{"role": "user", "content": ROW}]}
KEY = "sk-abcdefghijklmnopqrstuv"
FASTAPI = {
    "detail": [
        {
            "type": "int_parsing",
            "loc": ["body", "hyperparameters", "n_epochs"],
            "msg": "Input should be a valid integer",
            "input": MESSAGES,
            "ctx": {"error": ROW},
        },
        {"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": MESSAGES},
    ]
}
_FASTAPI = "hyperparameters.n_epochs: Input should be a valid integer; model: Field required"
_OPENAI = {"error": {"message": "no room", "type": "server_error", "param": None, "code": "busy"}}

ROW_3 = {"loc": ["body", 3, "messages"], "msg": "too long"}
GOOGLE = {"code": 400, "message": "no room", "status": "INVALID_ARGUMENT"}
NEST = {"statusCode": 400, "message": ["no room", "no luck"], "error": "Bad Request"}
RFC_9457 = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "no room"}

SHAPES: dict[str, tuple[Any, ErrorText]] = {
    "OpenAI's": (_OPENAI, ErrorText("no room", "busy")),
    "as the SDK hands it over": (_OPENAI["error"], ErrorText("no room", "busy")),
    "a text": ("no room", ErrorText("no room")),
    "a list of texts": (["no room", "no luck"], ErrorText("no room; no luck")),
    "a list of lists": ([["no room"], [["no luck"]]], ErrorText("no room; no luck")),
    "a list of many": (["a", "b", "c", "d"], ErrorText("a; b; c")),
    "one in another": ({"error": {"error": {"error": _OPENAI}}}, ErrorText("no room", "busy")),
    "FastAPI's of fields": (FASTAPI, ErrorText(_FASTAPI, "", "hyperparameters.n_epochs")),
    "FastAPI's in words": ({"detail": "Not Found"}, ErrorText("Not Found")),
    "FastAPI's of rows": ({"detail": [ROW_3]}, ErrorText("3.messages: too long", "", "3.messages")),
    "an odd place": ({"detail": [{"loc": ["body", ROW, {"a": ROW}], "msg": "no"}]}, ErrorText("no")),
    "Google's": ([{"error": GOOGLE}], ErrorText("no room", "INVALID_ARGUMENT")),
    "Nest's": (NEST, ErrorText("no room; no luck")),
    "OAuth's": ({"error": "invalid_grant", "error_description": "no room"}, ErrorText("no room")),
    "Cloudflare's": (
        {"success": False, "errors": [{"code": 7003, "message": "no room"}]},
        ErrorText("no room", "7003"),
    ),
    "of a problem (RFC 9457)": (RFC_9457, ErrorText("no room")),
    "with more": (
        {"message": "invalid", "errors": [{"message": "no room", "param": "model"}]},
        ErrorText("invalid; no room", "", "model"),
    ),
    "JSON in a text": ({"message": json.dumps(_OPENAI)}, ErrorText("no room", "busy")),
    "JSON behind words": ({"message": f"BadRequest: {json.dumps(_OPENAI)}"}, ErrorText("BadRequest: no room", "busy")),
    "Python's notation behind words": (f"Error code: 400 - {_OPENAI}", ErrorText("Error code: 400: no room")),
    "nothing": ({}, ErrorText()),
    "null": (None, ErrorText()),
    "a number": (7, ErrorText()),
    "empty": ({"error": {"message": " ", "code": None}, "detail": []}, ErrorText()),
    "deeper than anybody reads": (json.loads("[" * 100 + '"x"' + "]" * 100), ErrorText()),
}


@pytest.mark.parametrize("name", SHAPES)
def test_whatever_the_shape_words_code_and_field_are_read(name: str) -> None:
    told, found = SHAPES[name]
    assert error_text(told) == found


QUOTING: dict[str, tuple[str, str]] = {
    "an object": (f"cannot read {json.dumps(MESSAGES)}", "cannot read {…}"),
    "an object with columns that have names of words": (
        f"cannot read {json.dumps({'title': ROW, 'message': ROW, 'error': ROW})}",
        "cannot read {…}",
    ),
    "the same as Python has it": (f"cannot read { ({'message': ROW, 'code': ROW}) }", "cannot read {…}"),
    "an object as Python has it": (f"cannot read {MESSAGES} here", "cannot read {…} here"),
    "an object that is cut": (f"cannot read {json.dumps(MESSAGES)[:-9]}", "cannot read {…}"),
    "an object within a text within a text": (json.dumps(json.dumps({"error": f"bad {json.dumps(MESSAGES)}"})), "…"),
    "a list of objects": (f"cannot read [{json.dumps(MESSAGES)}], sorry", "cannot read [{…}, sorry"),
    "pydantic's": (
        f"1 validation error for Row\ncontent\n  Input should be a valid list [type=list_type, input_value='{ROW}', "
        "input_type=str]",
        "1 validation error for Row content   Input should be a valid list [type=list_type, , input_type=str]",
    ),
    "behind the number of a line": (f"Line 17: {ROW}", "Line 17"),
    "behind the place in a line": (f"bad file. Example 3, message 2: {ROW}", "bad file. Example 3, message 2"),
    "in quotation marks": (f"the prompt '{ROW}' is too long", "the prompt '…' is too long"),
    "in others": (f'"{ROW}" has no answer', '"…" has no answer'),
    "in some that do not end": (f'unterminated: "{ROW}', 'unterminated: "…"'),
    "a long word": ("token '" + "x" * 65 + "' is too long", "token '…' is too long"),
}


@pytest.mark.parametrize("name", QUOTING)
def test_what_a_text_quotes_of_a_row_is_left_out(name: str) -> None:
    text, shown = QUOTING[name]
    for told in (text, {"error": {"message": text}}, {"detail": [{"loc": ["body"], "msg": text}]}):
        assert "Huber" not in error_text(told).words
    if name != "an object within a text within a text":
        assert error_text(text).words == shown


@pytest.mark.parametrize(
    "text",
    [
        "The model `gpt-9` does not exist or you do not have access to it.",
        "No such File object: file-1",
        "'n_epochs' must be at most 10; supported values are: 'auto', '1'",
        "the user's organization hasn't verified its owner's address",
        "Example 6174 message contains an invalid token",
        "[model-gateway] n_epochs: at most 10",
    ],
)
def test_words_that_quote_no_more_than_names_stay_as_they_are(text: str) -> None:
    assert error_text({"error": {"message": text}}).words == text


CANARY = "hunter2"
_ANYTHING = st.recursive(
    st.sampled_from([CANARY, f"{CANARY} x", None, 1, True, 1.5]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["input", "ctx", "messages", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
_BODIES = st.recursive(
    st.sampled_from(["no room", "{", '{"a', "['", "x" * 70, "", None, 7]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(
            lambda part, row: {**part, "input": row, "ctx": row},
            st.dictionaries(
                st.sampled_from(["message", "detail", "error", "loc", "code", "errors", "msg"]), inner, max_size=4
            ),
            _ANYTHING,
        )
    ),
    max_leaves=20,
)


@given(_BODIES)
def test_of_any_answer_only_the_fields_that_say_something_are_shown(body: Any) -> None:
    for told in (body, json.dumps(body), f"failed: {json.dumps(body)}"):
        found = error_text(told)
        assert CANARY not in f"{found.words} {found.code} {found.param}"


def refusal(status: int, body: Any) -> openai.APIStatusError:
    request = httpx2.Request("POST", "https://llm.example.com/v1/fine_tuning/jobs")
    response = httpx2.Response(status, json=body, request=request)
    return openai.AsyncOpenAI(api_key="k")._make_status_error_from_response(response)


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 422, 429, 500])
@pytest.mark.parametrize(
    "body",
    [FASTAPI, [FASTAPI], {"error": [FASTAPI]}, {"error": MESSAGES}, MESSAGES, json.dumps(FASTAPI), f"{KEY} {FASTAPI}"],
)
def test_no_refusal_shows_what_was_sent(status: int, body: Any) -> None:
    found = translated(refusal(status, body), "llm.example.com")
    assert "Huber" not in found.message
    assert KEY not in found.message
    assert found.failure().next_step


def test_a_field_that_is_refused_is_named_as_the_job_has_it() -> None:
    found = with_spec_field(translated(refusal(422, FASTAPI), "llm.example.com"))  # type: ignore[arg-type]
    assert found.message == f"spec.hyperparameters.epochs: llm.example.com refuses (422): {_FASTAPI}"


def test_what_the_sdk_takes_for_the_error_is_not_all_that_is_read() -> None:
    found = translated(refusal(400, {"error": "Bad Request", "message": ["no room"]}), "llm.example.com")
    assert found.message == "llm.example.com refuses (400): no room"


@pytest.mark.parametrize("body", [{}, [], "", {"error": None}, 7])
def test_a_refusal_without_a_word_has_its_status(body: Any) -> None:
    assert translated(refusal(422, body), "llm.example.com").message == "llm.example.com refuses (422)"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (["no room"], "no room"),
        ([{"msg": "no room", "input": MESSAGES}], "no room"),
        ({"code": "busy", "message": [{"msg": "no room"}]}, "busy: no room"),
        (f"Line 3: {ROW}", "Line 3"),
        (MESSAGES, "the provider gives no reason"),
        ({"code": None, "message": None}, "the provider gives no reason"),
    ],
)
def test_why_a_job_failed_is_told_without_its_rows(error: Any, message: str) -> None:
    failure = wire.job({"id": "j", "status": "failed", "error": error}).failure
    assert failure is not None
    assert failure.message == message


@pytest.mark.parametrize("field", ["error", "error_message", "failure_reason", "status_message"])
def test_why_a_job_failed_is_found_where_services_have_it(field: str) -> None:
    failure = wire.job({"id": "j", "status": "failed", field: "no room"}).failure
    assert failure is not None
    assert failure.message == "no room"
