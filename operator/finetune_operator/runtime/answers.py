"""Questions that pods have for models at providers outside of the cluster: taken in, passed on, answered.

    POST /v1/answers/…/chat/completions, bearer token ─▶ leader? ─▶ size? ─▶ token review ─▶ body ─▶ Question
                                                          503        413        401         408/413   400
                                          ─▶ authorise ─▶ accept(asker, question)
                                                403        200, 402, 404, 409, 422, 429, 503

Nothing of a question or an answer is kept, logged, or in what is said about it. What becomes of one is `accept`'s
matter.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web
from pydantic import ValidationError

from finetune_api.asking import COMPLETIONS, QUESTION_MAX_BYTES, Asker, Question, Reply
from finetune_api.names import ANSWERS_PATH
from finetune_api.reasons import Reason
from finetune_operator.runtime import metrics
from finetune_operator.runtime.bodies import check_head, read_body
from finetune_operator.runtime.errors import KubeError, LeadershipLost
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.refusals import Refusal

ANSWERS_ROUTE = f"{ANSWERS_PATH}/{{namespace}}/{{name}}/{{uid}}/{{attempt}}/{COMPLETIONS}"

logger = logging.getLogger(__name__)


class Answering(Protocol):
    """Who may ask, and what is answered."""

    def authorise(self, identity: TokenIdentity, asker: Asker) -> str | None:
        """The reason to refuse any question of this identity, or None."""
        ...

    async def accept(self, asker: Asker, question: Question) -> Reply:
        """The answer. Raises Refusal."""
        ...


class AnswerRoute:
    """Answers questions.

    Args:
        identify: who sends a request; raises Refusal.
        answering: who may ask, and what is answered.
        is_leader: questions are taken by the leader alone, as it alone asks providers.
        at_once: questions at once.
    """

    def __init__(
        self,
        *,
        identify: Callable[[web.Request], Awaitable[TokenIdentity]],
        answering: Answering,
        is_leader: Callable[[], bool],
        at_once: int,
    ) -> None:
        self._identify = identify
        self._answering = answering
        self._is_leader = is_leader
        self._free = at_once

    async def answer(self, request: web.Request) -> web.Response:
        """One question."""
        status = 500
        try:
            response = await self._response(request)
            status = response.status
            return response
        finally:
            metrics.QUESTIONS.labels(str(status)).inc()

    async def _response(self, request: web.Request) -> web.Response:
        try:
            reply = await self._handle(request)
        except Refusal as refusal:
            return refusal.response()
        except (KubeError, LeadershipLost) as error:
            logger.warning("a question could not be taken: %r", error)
            return Refusal(503, "the question cannot be taken now", retry_after=5).response()
        return web.json_response(reply.as_completion())

    async def _handle(self, request: web.Request) -> Reply:
        if not self._is_leader():
            raise Refusal(503, "this replica does not lead", retry_after=2, close=True)
        if self._free < 1:
            raise Refusal(503, f"{Reason.RATE_LIMITED}: too many questions at once", retry_after=1, close=True)
        self._free -= 1
        try:
            check_head(request, QUESTION_MAX_BYTES, "question")
            identity = await self._identify(request)
            asker = _asker(request)
            reason = self._answering.authorise(identity, asker)
            if reason is not None:
                logger.warning("question of pod %s/%s refused: %s", identity.namespace, identity.pod_name, reason)
                raise Refusal(403, reason, close=True)
            question = _question(await read_body(request, QUESTION_MAX_BYTES, "question"))
            return await self._answering.accept(asker, question)
        finally:
            self._free += 1


def _asker(request: web.Request) -> Asker:
    try:
        return Asker.model_validate(dict(request.match_info))
    except ValidationError as error:
        raise _unreadable(error) from None


def _question(body: bytes) -> Question:
    try:
        return Question.model_validate_json(body)
    except ValidationError as error:
        raise _unreadable(error) from None


def _unreadable(error: ValidationError) -> Refusal:
    """The fields that are wrong; never what stood in them, nor names that the sender has made up."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    known = [str(p["loc"][0]) for p in problems if p["loc"] and p["type"] != "extra_forbidden"]
    named = ", ".join(sorted(set(known))) or "the body"
    return Refusal(400, f"this is no question that is passed on: {named} does not fit", close=True)
