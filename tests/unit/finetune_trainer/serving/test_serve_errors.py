"""What clients are told when a request cannot be answered: status, field and message, in OpenAI's shape."""

import json
import socket

import httpx
import openai
import pytest
from running_server import SERVED, running_server

from finetune_trainer.errors import TrainerError
from finetune_trainer.serving import app
from finetune_trainer.serving.api_key import KeyFile
from finetune_trainer.serving.app import ModelHolder
from tests.unit.finetune_trainer.waiting import wait_until

CHAT = {"model": SERVED, "messages": [{"role": "user", "content": "Hello"}]}
TEXT = {"model": SERVED, "prompt": "Hello"}
CHAT_ROUTE, TEXT_ROUTE = "/v1/chat/completions", "/v1/completions"


def message(**fields):
    return {**CHAT, "messages": [{"role": "user", "content": "Hello"} | fields]}


BAD = [
    pytest.param(CHAT_ROUTE, {**CHAT, "messages": []}, "messages", id="no messages"),
    pytest.param(CHAT_ROUTE, {"model": SERVED}, "messages", id="messages missing"),
    pytest.param(CHAT_ROUTE, {"messages": CHAT["messages"]}, "model", id="model missing"),
    pytest.param(CHAT_ROUTE, message(role="robot"), "messages[0].role", id="unknown role"),
    pytest.param(CHAT_ROUTE, message(role="tool"), "messages[0].role", id="tool result"),
    pytest.param(CHAT_ROUTE, message(content=None), "messages[0].content", id="no content"),
    pytest.param(CHAT_ROUTE, message(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
                 "messages[0].content[0].type", id="an image"),
    pytest.param(CHAT_ROUTE, message(content=[]), "messages[0].content", id="content of no parts"),
    pytest.param(CHAT_ROUTE, message(content="", tool_calls=[{"id": "1"}]), "messages[0]", id="a tool is called"),
    pytest.param(CHAT_ROUTE, message(content=None, function_call={"name": "f"}), "messages[0]", id="a function is"),
    pytest.param(CHAT_ROUTE, {**CHAT, "temperature": 3}, "temperature", id="temperature too high"),
    pytest.param(CHAT_ROUTE, {**CHAT, "temperature": "hot"}, "temperature", id="temperature is a word"),
    pytest.param(CHAT_ROUTE, {**CHAT, "temperature": True}, "temperature", id="temperature is true"),
    pytest.param(CHAT_ROUTE, {**CHAT, "top_p": 0}, "top_p", id="top_p of nothing"),
    pytest.param(CHAT_ROUTE, {**CHAT, "max_tokens": 0}, "max_tokens", id="no tokens"),
    pytest.param(CHAT_ROUTE, {**CHAT, "max_completion_tokens": -1}, "max_completion_tokens", id="less than none"),
    pytest.param(CHAT_ROUTE, {**CHAT, "stop": ["a", "b", "c", "d", "e"]}, "stop", id="five stop sequences"),
    pytest.param(CHAT_ROUTE, {**CHAT, "stop": ""}, "stop", id="an empty stop sequence"),
    pytest.param(CHAT_ROUTE, {**CHAT, "seed": 1.5}, "seed", id="half a seed"),
    pytest.param(CHAT_ROUTE, {**CHAT, "stream": "yes"}, "stream", id="stream is a word"),
    pytest.param(CHAT_ROUTE, {**CHAT, "stream_options": {"include_usage": True}}, "stream_options", id="options alone"),
    pytest.param(CHAT_ROUTE, {**CHAT, "n": 0}, "n", id="no answers"),
    pytest.param(CHAT_ROUTE, {**CHAT, "n": 65}, "n", id="too many answers"),
    pytest.param(TEXT_ROUTE, {**TEXT, "prompt": ["a"] * 3, "n": 22}, "n", id="too many answers to all prompts"),
    pytest.param(CHAT_ROUTE, {**CHAT, "logprobs": 1}, "logprobs", id="logprobs are a number"),
    pytest.param(CHAT_ROUTE, {**CHAT, "top_logprobs": 2}, "top_logprobs", id="likeliest tokens without logprobs"),
    pytest.param(CHAT_ROUTE, {**CHAT, "logprobs": True, "top_logprobs": 21}, "top_logprobs", id="too many of them"),
    pytest.param(TEXT_ROUTE, {**TEXT, "logprobs": True}, "logprobs", id="logprobs are not a number"),
    pytest.param(TEXT_ROUTE, {**TEXT, "logprobs": 21}, "logprobs", id="too many likeliest tokens"),
    pytest.param(CHAT_ROUTE, {**CHAT, "tools": [{"type": "function"}]}, "tools", id="tools"),
    pytest.param(CHAT_ROUTE, {**CHAT, "response_format": {"type": "json_object"}}, "response_format", id="JSON mode"),
    pytest.param(CHAT_ROUTE, {**CHAT, "logit_bias": {"sky": 1}}, "logit_bias", id="bias of a word"),
    pytest.param(CHAT_ROUTE, {**CHAT, "logit_bias": {"999999": 1}}, "logit_bias", id="bias of no token"),
    pytest.param(CHAT_ROUTE, {**CHAT, "logit_bias": {"9" * 5000: 1}}, "logit_bias", id="bias of no number"),
    pytest.param(TEXT_ROUTE, {**TEXT, "echo": True}, "echo", id="echo"),
    pytest.param(TEXT_ROUTE, {**TEXT, "best_of": 3}, "best_of", id="best of three"),
    pytest.param(CHAT_ROUTE, {**CHAT, "allowed_token_ids": [5]}, "allowed_token_ids", id="these tokens alone"),
    pytest.param(TEXT_ROUTE, {**TEXT, "truncate_prompt_tokens": 9}, "truncate_prompt_tokens", id="part of the prompt"),
    pytest.param(CHAT_ROUTE, {**CHAT, "max_new_tokens": 5}, "max_new_tokens", id="a limit by another name"),
    pytest.param(TEXT_ROUTE, {**TEXT, "prompt": []}, "prompt", id="no prompt"),
    pytest.param(TEXT_ROUTE, {**TEXT, "prompt": ""}, "prompt", id="an empty prompt"),
    pytest.param(TEXT_ROUTE, {**TEXT, "prompt": [1, 999999]}, "prompt", id="a token that is none"),
    pytest.param(TEXT_ROUTE, {**TEXT, "prompt": [-1]}, "prompt[0]", id="a negative token"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "body", "param"), BAD)
def test_a_bad_request_is_refused_with_its_field(address, route, body, param):
    answer = httpx.post(address + route, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert error["message"]


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        (CHAT_ROUTE, {**CHAT, "stop": ["a", "b", "c", "d", "e"]}, "stop: List should have at most 4 items"),
        (TEXT_ROUTE, {**TEXT, "prompt": ["a"] * 65}, "prompt: List should have at most 64 items"),
        (TEXT_ROUTE, {**TEXT, "prompt": []}, "prompt: List should have at least 1 item, not 0."),
        (TEXT_ROUTE, {**TEXT, "logprobs": 21}, "logprobs: Input should be less than or equal to 20"),
        (
            CHAT_ROUTE,
            message(content=None, tool_calls=[{"id": "1"}]),
            "messages[0]: it calls a tool, and tools are not",
        ),
        (CHAT_ROUTE, {**CHAT, "logit_bias": {"\u0663": 1}}, "logit_bias: its keys are token ids"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(address, route, body, said):
    assert httpx.post(address + route, json=body).json()["error"]["message"].startswith(said)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"{", "EOF while parsing an object at line 1 column 1"),
        (b'{"model": "\\ud83d"}', "unexpected end of hex escape at line 1 column 18"),
        (b"[" * 100_000, "recursion limit exceeded at line 1 column 202"),
        ("{}".encode("utf-16"), "expected value at line 1 column 1"),
    ],
    ids=["nothing", "half", "half of a letter", "deep", "UTF-16"],
)
def test_what_is_no_json_is_refused_with_the_place(address, raw, why):
    answer = httpx.post(address + CHAT_ROUTE, content=raw)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, f"The body is not valid JSON: {why}.")


def test_a_byte_order_mark_before_the_json_changes_nothing(address):
    raw = b"\xef\xbb\xbf" + json.dumps(CHAT).encode()
    assert httpx.post(address + CHAT_ROUTE, content=raw).status_code == 200


def test_a_compressed_body_is_refused_by_its_header(address):
    answer = httpx.post(address + CHAT_ROUTE, content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert "'gzip' is not read here" in answer.json()["error"]["message"]


def test_another_model_is_not_found_and_the_right_one_is_named(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**CHAT | {"model": "gpt-4o"})
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert SERVED in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_a_prompt_over_the_context_is_refused_with_both_numbers(client, served):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=SERVED, prompt=[40] * served.context)
    assert (caught.value.param, caught.value.code) == ("prompt", "context_length_exceeded")
    assert str(served.context) in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=SERVED, messages=[{"role": "user", "content": "Hello " * 600}])
    assert caught.value.param == "messages"


def test_a_body_over_8_mib_is_refused(address):
    answer = httpx.post(address + TEXT_ROUTE, content=b" " * (9 << 20))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_body_that_says_that_it_is_too_long_is_not_waited_for(address):
    host, port = address.removeprefix("http://").split(":")
    head = f"POST {TEXT_ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: {9 << 30}\r\n\r\n{{".encode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_long_name_of_a_model_is_not_sent_back_whole(address):
    answer = httpx.post(address + TEXT_ROUTE, json={**TEXT, "model": "x" * 100_000})
    assert (answer.status_code, len(answer.content) < 1000) == (404, True)
    path = httpx.get(f"{address}/v1/{'x' * 30_000}")
    assert (path.status_code, len(path.content) < 1000) == (404, True)


def test_unknown_paths_and_methods_have_errors_of_the_same_shape(address):
    missing = httpx.post(f"{address}/v1/embeddings", json={})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = httpx.get(address + CHAT_ROUTE)
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "invalid_request_error")
    assert (wrong.headers["allow"], wrong.json()["error"]["message"]) == (
        "POST",
        "/v1/chat/completions does not take GET, but POST.",
    )


@pytest.mark.parametrize("path", [f"{TEXT_ROUTE}/", f"/{TEXT_ROUTE}", TEXT_ROUTE.replace("/v1/", "/v1//")])
def test_slashes_too_many_change_nothing(address, path):
    assert httpx.post(address + path, json=TEXT).status_code == 200
    assert httpx.get(f"{address}/v1/models/").json()["object"] == "list"


@pytest.mark.parametrize("path", ["/health", "/metrics", "/v1/models", f"/v1/models/{SERVED}"])
def test_what_can_be_got_can_be_looked_at(address, path):
    looked = httpx.head(address + path)
    assert (looked.status_code, looked.content) == (200, b"")


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_failure(address, caplog):
    host, port = address.removeprefix("http://").split(":")
    head = f"POST {CHAT_ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head)
    wait_until(lambda: 'status="499"' in httpx.get(f"{address}/metrics").text)
    assert "Traceback" not in caplog.text


def test_a_bug_is_told_in_the_same_shape(served, monkeypatch):
    monkeypatch.setattr(app, "parse", lambda *_: 1 / 0)
    with running_server(ModelHolder(served)) as address:
        answer = httpx.post(address + CHAT_ROUTE, json=CHAT)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "division" not in answer.text


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("first-key\n")
    return path


def ask(address, key):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
        return client.completions.create(**TEXT, max_tokens=1)


def test_the_key_guards_answers_but_not_health_and_metrics(served, key_file):
    with running_server(ModelHolder(served), KeyFile(key_file)) as address:
        assert ask(address, "first-key").usage.completion_tokens == 1
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(address, "other-key")
        assert caught.value.code == "invalid_api_key"
        assert httpx.post(address + TEXT_ROUTE, json=TEXT).status_code == 401
        assert httpx.get(f"{address}/v1/models").status_code == 401
        assert httpx.get(f"{address}/v1/models", headers={"Authorization": "Basic first-key"}).status_code == 401
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/metrics").status_code == 200


def test_a_changed_key_holds_at_once(key_file):
    keys = KeyFile(key_file)
    new = key_file.with_name("new")
    new.write_text("second-key")
    new.replace(key_file)  # as kubelet changes a mounted Secret
    assert keys.accepts("Bearer second-key")
    assert not keys.accepts("Bearer first-key")
    key_file.unlink()
    assert not keys.accepts("Bearer second-key")


def test_two_lines_are_two_keys_and_an_empty_key_is_none(key_file):
    key_file.write_text("old\n\nnew\n")
    keys = KeyFile(key_file)
    assert keys.accepts("Bearer old")
    assert keys.accepts("bearer new")
    assert not keys.accepts("Bearer ")
    assert not keys.accepts(None)


@pytest.mark.parametrize("text", ["", "  \n", None])
def test_a_server_does_not_start_with_a_key_file_without_a_key(tmp_path, text):
    path = tmp_path / "key"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TrainerError, match="no key can be read"):
        KeyFile(path)
