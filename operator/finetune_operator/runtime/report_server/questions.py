"""Accepts questions of pods to models at providers outside of the cluster, and answers them.

    POST /v1/answers/…/chat/completions, bearer token ─▶ leader? ─▶ size? ─▶ token review ─▶ body ─▶ Question
                                                          503        413        401         408/413   400
                                          ─▶ authorise ─▶ accept(asker, question)
                                                403        200, 402, 404, 409, 422, 429, 503

Questions and answers are not stored, logged, or quoted in errors. `accept` decides what happens to them.
"""

from typing import Protocol

from aiohttp import web
from pydantic import ValidationError

from finetune_api.asking import CHAT_REQUEST_MAX_BYTES, COMPLETIONS, ChatReply, ChatRequest, RequestingAttempt
from finetune_api.names import ANSWERS_PATH
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.report_server.bodies import check_head, read_body
from finetune_operator.runtime.report_server.refusals import Refusal
from finetune_operator.runtime.report_server.route import Handler, Identify, require_allowed

ROUTE = f"{ANSWERS_PATH}/{{namespace}}/{{name}}/{{uid}}/{{attempt}}/{COMPLETIONS}"


class Answering(Protocol):
    """Authorises and answers questions."""

    def authorise(self, identity: TokenIdentity, asker: RequestingAttempt) -> str | None:
        """The reason to refuse any question of this identity, or None."""

    async def accept(self, asker: RequestingAttempt, question: ChatRequest) -> ChatReply:
        """The answer. Raises Refusal."""


def handler(identify: Identify, answering: Answering) -> Handler:
    """A handler for one question, which is authorised before it is read; raises Refusal."""

    async def take(request: web.Request) -> web.Response:
        check_head(request, CHAT_REQUEST_MAX_BYTES, "question")
        identity = await identify(request)
        asker = _asker(request)
        require_allowed(answering.authorise(identity, asker), identity, "question")
        question = _question(await read_body(request, CHAT_REQUEST_MAX_BYTES, "question"))
        reply = await answering.accept(asker, question)
        return web.json_response(reply.as_completion())

    return take


def _asker(request: web.Request) -> RequestingAttempt:
    try:
        return RequestingAttempt.model_validate(dict(request.match_info))
    except ValidationError as error:
        raise _unreadable(error) from None


def _question(body: bytes) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _unreadable(error) from None


def _unreadable(error: ValidationError) -> Refusal:
    """Names the invalid fields; quotes neither their values nor field names that the sender made up."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    known = [str(p["loc"][0]) for p in problems if p["loc"] and p["type"] != "extra_forbidden"]
    named = ", ".join(sorted(set(known))) or "the body"
    return Refusal(400, f"this is not a question that is passed on: {named} does not fit", close=True)
