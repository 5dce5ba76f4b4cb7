"""Answers of a service over HTTP: bounded, repeated where that can help, counted where it cannot, never quoted."""

import gzip
import json
import os
import resource
import signal
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from finetune_api.evaluation import Endpoint
from finetune_trainer.attempt.interruption import Interrupted, Interruption
from finetune_trainer.data import Turn
from finetune_trainer.evaluation.endpoint import TRIES, ask
from finetune_trainer.evaluation.response import LITTLE_ROOM, asked_pause

SECRET = "the row's own text"


def good(text="red", tokens=7):
    return 200, {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": tokens}}, {}


def bad(status, **headers):
    return status, {"error": {"message": SECRET}}, {name.replace("_", "-"): value for name, value in headers.items()}


def thought(text):
    """All that is left to say of a model that has reasoned up to its limit."""
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": "length"}]}, {}


def put(service, rows=3, key=None, **fields):
    answers = []
    asked = [(row, (Turn("system", "s"), Turn("user", f"{SECRET} {row}"))) for row in range(rows)]
    outcome = ask(service.endpoint(**fields), key, asked, max_tokens=9, on_answer=answers.append, pause=0.001)
    assert SECRET not in str(outcome.problem)
    return outcome, sorted(answers)


def test_a_question_is_asked_as_openai_has_it(serve):
    service = serve(lambda _: good(" red\n"))
    outcome, answers = put(service, rows=2, key="sk-1\n")  # as a Secret has it that was made from a file
    assert (outcome.errors, outcome.problem) == (0, None)
    assert [tuple(answer) for answer in answers] == [(0, "red", 7), (1, "red", 7)]
    path, authorization, body = service.requests[0]
    assert (path, authorization) == ("/v1/chat/completions", "Bearer sk-1")
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": f"{SECRET} 0"}],
        "max_tokens": 9,
        "temperature": 0,
    }


def test_without_a_key_none_is_sent(serve):
    service = serve(lambda _: good())
    put(service, rows=1)
    assert service.requests[0][1] is None


@pytest.mark.parametrize("key", ["sk-ключ", "sk-1\nsk-2", "sk-\x7f", "“sk-1”"])
def test_a_key_that_no_header_may_have_is_told_as_such_and_not_shown(serve, key):
    service = serve(lambda _: good())
    outcome, answers = put(service, key=key)
    assert (answers, service.requests, outcome.errors) == ([], [], 3)
    assert outcome.problem == (
        "3 rows were not answered: its key has line breaks or letters beyond ASCII: write it again into its Secret"
    )


@pytest.mark.parametrize("failure", [bad(500), bad(503), bad(429), bad(429, Retry_After="0"), bad(408)])
def test_what_may_pass_is_tried_again(serve, failure):
    left = [failure] * (TRIES - 1)
    service = serve(lambda _: left.pop() if left else good())
    outcome, answers = put(service, rows=1)
    assert (outcome.errors, len(answers), len(service.requests)) == (0, 1, TRIES)


@pytest.mark.parametrize(
    ("failure", "requests", "says"),
    [
        (bad(500), 3 * TRIES, "3 rows were not answered: HTTP 500"),
        (bad(422), 3, "3 rows were not answered: HTTP 422"),
        (bad(302, Location="http://127.0.0.1:1/"), 3, "HTTP 302"),
        (bad(401), 1, "3 rows were not answered: HTTP 401: it does not accept the key"),
        (bad(404), 1, "HTTP 404: there is no such path or model"),
        ((200, {"choices": []}, {}), 3, "an answer has no choices[0].message.content"),
        (thought(""), 3, "its tokens were used up before it said anything"),
        (thought(None), 3, "its tokens were used up before it said anything"),
        ((200, b"<html>", {}), 3, "an answer has no choices[0].message.content"),
        ((200, b"x" * (1 << 20) + b"x", {}), 3, "an answer is longer than 1 MiB"),
    ],
)
def test_what_does_not_pass_is_counted_and_told(serve, failure, requests, says):
    service = serve(lambda _: failure)
    outcome, answers = put(service)
    assert (outcome.errors, answers) == (3, [])
    assert len(service.requests) == requests
    assert says in outcome.problem


def test_an_answer_that_ends_within_an_emoji_is_one(serve):
    """JavaScript cuts text between the two halves of a pair."""
    service = serve(lambda _: (200, b'{"choices": [{"message": {"content": "red \\ud83d"}}]}', {}))
    outcome, answers = put(service, rows=1)
    assert (outcome.errors, [one.text for one in answers]) == (0, ["red \ud83d"])


def ended(finish, content):
    return 200, {"choices": [{"message": {"content": content}, "finish_reason": finish}]}, {}


def filtered(content):
    return ended("content_filter", content)


def said(message, **body):
    return 200, {"choices": [{"message": message}], **body}, {}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, b"\n<!DOCTYPE html><title>Sign in</title>", {}), "it is a web page. url has to be that of an API"),
        ((200, b'data: {"choices": [{"delta": {"content": "r"}}]}\n\ndata: [DONE]\n', {}), "it is a stream"),
        ((200, b"", {}), "it is empty"),
        ((200, b"red", {}), "it is not JSON"),
        ((200, b"[" * 100_000, {}), "it is not JSON"),
        ((200, b"[1]", {}), "it is not an object"),
        ((200, {"error": {"message": SECRET}}, {}), "it is an error, in spite of HTTP 200"),
        ((200, {"error": SECRET, "choices": None}, {}), "it is an error, in spite of HTTP 200"),
        (said({"content": None, "refusal": SECRET}), "the model refuses it"),
        (said({"content": None, "tool_calls": [{}]}), "the model calls a tool"),
        (said({"content": "", "refusal": SECRET}), "the model refuses it"),
        (said({"content": "", "tool_calls": [{}]}), "the model calls a tool"),
        (said({"content": None, "function_call": {"name": SECRET}}), "the model calls a tool"),
        (filtered(""), "its content filter kept the answer back"),
        (filtered(None), "its content filter kept the answer back"),
        (filtered("It is a re"), "its content filter kept the answer back, or the rest of it"),
        (ended("tool_calls", SECRET), "an answer is missing: the model calls a tool"),
        (ended("function_call", None), "an answer is missing: the model calls a tool"),
        (ended("error", SECRET), "it broke an answer off with an error, in spite of HTTP 200"),
        ((204, b"", {}), "it is empty"),
        ((202, {"id": SECRET}, {}), "an answer has no choices[0].message.content"),
        ((200, gzip.compress(json.dumps(good()[1]).encode())[:60], {"Content-Encoding": "gzip"}), "it is not JSON"),
        ((200, b"red", {"Content-Encoding": "gzip"}), "cannot be unpacked as its Content-Encoding says"),
        ((200, b"red", {"Content-Encoding": "br"}), "packed in a way that was not asked for"),
        ((200, gzip.compress(gzip.compress(b"")), {"Content-Encoding": "gzip, gzip"}), "packed in a way that was not"),
        (bad(402), "HTTP 402: the account of its key has no credit left"),
        ((429, {"error": {"code": "insufficient_quota", "message": SECRET}}, {}), "has no credit left"),
        ((200, {"output_text": SECRET}, {}), "an answer has no choices[0].message.content"),
        (bad(301, Location="https://elsewhere.example.com/"), "HTTP 301: it sends elsewhere; name that address as url"),
        (bad(405), "HTTP 405: its url, which often ends with /v1, does not serve chat completions"),
        (bad(404), "there is no such path or model; look at its url, which often ends with /v1, and at model"),
        (bad(403), "it does not accept the key; look at its apiKeySecretRef"),
        (bad(413), "HTTP 413: a question is too long for it"),
    ],
)
def test_an_odd_answer_is_told_with_what_it_is_and_what_to_look_at(serve, answer, why):
    outcome, answers = put(serve(lambda _: answer), rows=1)
    assert answers == []
    assert why in outcome.problem
    assert len(outcome.problem) < 250, "status has room for 300"


GOOD = [
    (201, good()[1], {}),
    (200, gzip.compress(json.dumps(good()[1]).encode()), {"Content-Encoding": "gzip"}),
    (200, zlib.compress(json.dumps(good()[1]).encode()), {"Content-Encoding": "deflate"}),
    (200, good()[1], {"Content-Type": "text/html"}),
    (200, good()[1] | {"model": "another", "object": None, "choices": 2 * good()[1]["choices"]}, {}),
    (200, {"choices": [{"message": {"content": "red", "tool_calls": None}, "logprobs": None}]}, {}),
    ended("stop", "red"),
    ended("eos", "red"),
    ended(None, "red"),
    ended({"reason": "stop"}, "red"),
    ended("length", "red"),
]


@pytest.mark.parametrize("answer", GOOD)
def test_an_answer_is_one_whatever_is_odd_around_it(serve, answer):
    outcome, answers = put(serve(lambda _: answer), rows=1)
    assert ([one.text for one in answers], outcome.problem) == (["red"], None)


def test_a_small_body_that_unpacks_to_a_thousand_times_as_much_takes_no_memory(serve):
    packing = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join(packing.compress(bytes(1 << 24)) for _ in range(16)) + packing.flush()  # 256 MiB in 256 KiB
    service = serve(lambda _: (200, bomb, {"Content-Encoding": "gzip"}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome, answers = put(service, rows=1)
    assert (answers, outcome.problem) == ([], "1 row was not answered: an answer is longer than 1 MiB")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@pytest.mark.parametrize("tokens", [-5, True, 5.0, "5", None])
def test_an_empty_answer_is_one_and_tokens_that_nobody_can_count_are_not_known(serve, tokens):
    message = {"content": "", "refusal": None, "tool_calls": []}
    _, answers = put(serve(lambda _: said(message, usage={"prompt_tokens": tokens})), rows=1)
    assert [(one.text, one.prompt_tokens) for one in answers] == [("", None)]


def test_an_answer_in_parts_is_their_text(serve):
    parts = [
        {"type": "thinking", "thinking": "…"},
        {"type": "text", "text": "re"},
        {"type": "output_text", "text": "d"},
    ]
    _, answers = put(serve(lambda _: said({"content": parts}, usage={"prompt_tokens": True})), rows=1)
    assert [tuple(one) for one in answers] == [(0, "red", None)]


def test_what_was_said_before_the_limit_is_an_answer(serve):
    outcome, answers = put(serve(lambda _: thought(" \n")), rows=1)
    assert (outcome.errors, [answer.text for answer in answers]) == (0, [""])
    outcome, answers = put(serve(lambda _: thought("It is a re")), rows=1)
    assert (outcome.errors, [answer.text for answer in answers]) == (0, ["It is a re"])


def test_some_rows_without_an_answer_cost_only_themselves(serve):
    service = serve(lambda body: bad(422) if body["messages"][1]["content"].endswith("1") else good())
    outcome, answers = put(service)
    assert ([answer.row for answer in answers], outcome.errors) == ([0, 2], 1)


def test_a_service_that_fails_now_and_then_is_asked_to_the_end(serve):
    service = serve(lambda body: bad(422) if int(body["messages"][1]["content"].split()[-1]) % 2 else good())
    outcome, answers = put(service, rows=60, concurrency=1)
    assert (outcome.errors, len(answers)) == (30, 30)


def test_a_service_that_is_gone_is_not_asked_to_the_end(serve):
    service = serve(lambda _: bad(422))
    outcome, _ = put(service, rows=100)
    assert len(service.requests) == 20
    assert outcome.errors == 100


def test_no_answer_in_time_is_an_error(serve, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr("finetune_trainer.evaluation.endpoint.TRIES", 1)
    outcome, _ = put(serve(lambda _: (over.wait(30), good())[1]), rows=1, timeoutSeconds=1)
    over.set()
    assert outcome.problem == "1 row was not answered: no answer within 1 s"


def test_an_answer_that_never_ends_is_an_error(monkeypatch):
    monkeypatch.setattr("finetune_trainer.evaluation.endpoint.TRIES", 1)
    over = threading.Event()

    class Drips(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            while not over.wait(0.05):
                self.wfile.write(b" ")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Drips)
    server.handle_error = lambda *_: over.set()  # its client has gone
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    endpoint = Endpoint.model_validate({"name": "rag", "url": url, "model": "m", "timeoutSeconds": 1})
    outcome = ask(endpoint, None, [(0, (Turn("user", "x"),))], max_tokens=1, on_answer=pytest.fail)
    assert outcome.problem == "1 row was not answered: no answer within 1 s"
    assert over.wait(10)
    server.shutdown()
    server.server_close()


def test_nobody_listening_is_an_error():
    endpoint = Endpoint(name="rag", url="http://127.0.0.1:1/v1", model="m")
    outcome = ask(endpoint, None, [(0, (Turn("user", "x"),))], max_tokens=1, on_answer=pytest.fail, pause=0.001)
    assert outcome.problem == "1 row was not answered: it cannot be reached (nothing listens at its address)"


def test_a_connection_that_is_broken_off_is_told_in_words(serve, monkeypatch):
    monkeypatch.setattr("finetune_trainer.evaluation.endpoint.TRIES", 1)
    outcome, _ = put(serve(lambda _: (200, b"half", {"Content-Length": "9"})), rows=1)
    told = "it cannot be reached (it broke the connection off, or speaks no HTTP)"
    assert outcome.problem == f"1 row was not answered: {told}"


def test_no_more_requests_at_once_than_the_job_allows(serve):
    def slowly(_):
        time.sleep(0.02)
        return good()

    service = serve(slowly)
    outcome, answers = put(service, rows=20, concurrency=3)
    assert (outcome.errors, len(answers)) == (0, 20)
    assert service.most == 3


def test_a_model_that_takes_neither_max_tokens_nor_temperature_is_asked_its_way(serve):
    def answer(body):
        if "max_tokens" in body:
            return 400, {"error": {"message": "Unsupported parameter: 'max_tokens'"}}, {}
        return good()

    service = serve(answer)
    outcome, answers = put(service, rows=4, concurrency=2)
    assert (outcome.errors, len(answers)) == (0, 4)
    assert service.requests[-1][2]["max_completion_tokens"] == 9
    assert len(service.requests) <= 6


def test_of_what_a_model_does_not_take_only_that_is_left_out(serve):
    def answer(body):
        mind = [name for name in ("max_tokens", "temperature") if name in body]
        return (422, {"detail": f"extra: {mind[0]}"}, {}) if mind[:1] == ["max_tokens"] else good()

    service = serve(answer)
    outcome, answers = put(service, rows=3)
    assert (outcome.errors, len(answers), len(service.requests)) == (0, 3, 4)
    assert service.requests[-1][2] | {"messages": 0} == {
        "model": "m", "messages": 0, "max_completion_tokens": 9, "temperature": 0,
    }  # fmt: skip


def test_one_question_that_is_too_long_changes_nothing_for_the_others(serve):
    """Else they would be answered at a temperature of the service's own, by chance."""
    words = "'max_tokens' is too large: 9. This model's maximum context length is 8 tokens. What is the temperature?"

    def answer(body):
        return (400, {"error": {"message": words}}, {}) if body["messages"][1]["content"].endswith(" 1") else good()

    service = serve(answer)
    outcome, answers = put(service, rows=4)
    assert [one.row for one in answers] == [0, 2, 3]
    told = "HTTP 400: a question is too long for it, with the room for an answer (evaluation.maxNewTokens)"
    assert outcome.problem == f"1 row was not answered: {told}"
    limits = [(body.get("max_tokens"), body.get("temperature")) for _, _, body in service.requests]
    assert [limits[0], *limits[-2:]] == [(9, 0)] * 3


def test_a_question_that_leaves_no_room_for_a_long_answer_is_asked_for_a_short_one(serve):
    def answer(body):
        full = body["messages"][0]["content"] == "1" and body["max_tokens"] > LITTLE_ROOM
        return (400, {"error": {"message": "max_tokens is too large: 4096"}}, {}) if full else good()

    service, answers = serve(answer), []
    asked = [(row, (Turn("user", str(row)),)) for row in range(3)]
    outcome = ask(service.endpoint(), None, asked, max_tokens=4096, on_answer=answers.append)
    assert (outcome.errors, len(answers)) == (0, 3)
    assert [body["max_tokens"] for _, _, body in service.requests] == [4096, 4096, LITTLE_ROOM, 4096]


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}])
def test_a_service_that_answers_a_few_at_a_time_answers_all_in_the_end(serve, headers):
    """What it puts off counts as no try as long as others are answered: it is there, and only busy."""
    turns = iter(range(1, 1000))
    service = serve(lambda _: bad(429, **headers) if next(turns) % (TRIES + 1) else good())
    outcome, answers = put(service, rows=4, concurrency=2)
    assert (outcome.errors, len(answers)) == (0, 4)


def test_a_service_that_is_busy_for_ever_is_given_up(serve):
    outcome, answers = put(serve(lambda _: bad(429)), rows=1, timeoutSeconds=1)
    assert (outcome.problem, answers) == ("1 row was not answered: HTTP 429", [])


def test_while_a_service_wants_a_pause_it_is_asked_nothing_whatever_the_row(serve):
    began, arrived = [], []

    def answer(_):
        arrived.append(time.monotonic())
        if not began:
            began.append(arrived[-1])
            return bad(429, **{"Retry-After": "2"})
        return good()

    service = serve(answer)
    outcome, answers = put(service, rows=8, concurrency=2)
    assert (len(answers), outcome.errors) == (8, 0)
    early = [at - began[0] for at in arrived if 1.0 < at - began[0] < 2.0]
    assert early == [], "another row's question is one too"
    assert max(arrived) - began[0] >= 2.0


def test_a_service_that_wants_a_day_is_not_waited_for_and_not_asked_before(serve):
    service = serve(lambda _: bad(503, **{"Retry-After": "86400"}))
    outcome, answers = put(service, rows=5)
    assert (answers, outcome.errors, len(service.requests)) == ([], 5, 1)
    told = "HTTP 503: it asks for a pause of 86400 s, and at most 300 s are waited"
    assert outcome.problems == {told: 1}


PAUSES = {
    "seconds": ({"retry-after": "120"}, 120.0),
    "a date": (
        {"retry-after": "Sat, 21 Nov 2026 12:01:30 GMT", "date": "Sat, 21 Nov 2026 12:00:00 GMT"},
        90.0,
    ),
    "a date that is over": (
        {"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT", "date": "Sat, 21 Nov 2026 12:00:00 GMT"},
        0.0,
    ),
    "a date without one to hold it against": ({"retry-after": "Sat, 21 Nov 2026 12:01:30 GMT"}, None),
    "a part of a second": ({"retry-after": " 0.5"}, 0.5),
    "milliseconds": ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
    "milliseconds that are none": ({"retry-after-ms": "x", "retry-after": "2"}, 2.0),
    "no end": ({"retry-after": "inf"}, None),
    "less than nothing": ({"retry-after": "-1"}, None),
    "words": ({"retry-after": "soon"}, None),
    "none": ({}, None),
}


@pytest.mark.parametrize("name", PAUSES)
def test_a_pause_is_a_number_or_a_date(name):
    headers, seconds = PAUSES[name]
    assert asked_pause(headers) == seconds


def test_sigterm_ends_the_asking_at_once(serve):
    over = threading.Event()

    def answer(body):
        if body["messages"][1]["content"].endswith("2"):
            os.kill(os.getpid(), signal.SIGTERM)
            over.wait(30)
        return good()

    service = serve(answer)
    started = time.monotonic()
    with Interruption().install(), pytest.raises(Interrupted):
        put(service, rows=50, concurrency=2)
    over.set()
    assert time.monotonic() - started < 10
    assert len(service.requests) < 50
