"""Questions of pods: who may ask, what is passed on, and what is said where it is not."""

import logging
from contextlib import asynccontextmanager
from typing import Any

import pytest

from finetune_api.asking import CHAT_REQUEST_MAX_BYTES, ChatReply
from finetune_api.names import ANSWERS_PATH
from finetune_operator.runtime.errors import Transient
from finetune_operator.runtime.report_server.refusals import Refusal
from tests.unit.finetune_operator.runtime.report_server import server, token

TEXT = "the row's own text"
QUESTION = {"model": "tuned", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 8, "temperature": 0}
PLACE = f"{ANSWERS_PATH}/team/job/u1/2"


class Answering:
    """Answers what it is told to."""

    def __init__(self):
        self.asked = []
        self.reason = None
        self.fault = None

    def authorise(self, identity, asker):
        return self.reason or (None if identity.namespace == asker.namespace else "not this pod's job")

    async def accept(self, asker, question):
        if self.fault:
            raise self.fault
        self.asked.append((asker, question))
        return ChatReply(text="positive", prompt_tokens=5, completion_tokens=1)


@asynccontextmanager
async def answering(**settings):
    answers = Answering()
    async with server(answering=answers, **settings) as world:
        world.url = world.url.rpartition("/v1/")[0] + f"{PLACE}/chat/completions"
        yield world, answers


async def test_an_answer_has_the_shape_of_openai():
    async with answering() as (world, answers):
        status, _, text = await world.send(QUESTION)
    assert (status, answers.asked[0][0].attempt, answers.asked[0][1].messages[0].content) == (200, 2, TEXT)
    assert '"content": "positive"' in text
    assert '"prompt_tokens": 5' in text


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no token": ({"headers": {"Authorization": ""}}, 401, "a bearer token is needed"),
    "a token of nobody": ({"bearer": token("other")}, 401, "not valid now"),
    "another field, which would be billed": ({"body": QUESTION | {"n": 9}}, 400, "the body does not fit"),
    "another model": ({"body": QUESTION | {"model": "gpt-9"}}, 400, "model does not fit"),
    "creativity": ({"body": QUESTION | {"temperature": 1}}, 400, "temperature does not fit"),
    "no JSON": ({"body": b"{" + TEXT.encode()}, 400, "the body does not fit"),
    "too long": ({"body": b" " * (CHAT_REQUEST_MAX_BYTES + 1)}, 413, "at most"),
    "compressed": ({"headers": {"Content-Encoding": "gzip"}}, 415, "uncompressed"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_not_passed_on(name, caplog):
    sent, status, sentence = REFUSED[name]
    caplog.set_level(logging.DEBUG)
    async with answering() as (world, answers):
        found, _, text = await world.send(**({"body": QUESTION} | sent))
    assert (found, answers.asked) == (status, [])
    assert sentence in text
    assert TEXT not in text + caplog.text


async def test_refusals_say_when_to_come_back():
    async with answering() as (world, answers):
        answers.fault = Refusal(503, "RateLimited: patience", retry_after=7)
        status, headers, text = await world.send(QUESTION)
        assert (status, headers["Retry-After"], text) == (503, "7", '{"error": "RateLimited: patience"}')
        answers.fault = Transient(503, "ServiceUnavailable", "down")
        assert (await world.send(QUESTION))[0] == 503
        answers.reason = "the token's pod measures no model"
        assert (await world.send(QUESTION))[0] == 403
        world.leads = False
        assert (await world.send(QUESTION))[0] == 503


async def test_only_so_many_are_on_their_way():
    async with answering(answer_concurrency=1) as (world, answers):

        async def again(*_):
            answers.accept = Answering().accept
            assert (await world.send(QUESTION))[0] == 503
            return ChatReply(text="positive")

        answers.accept = again
        assert (await world.send(QUESTION))[0] == 200
