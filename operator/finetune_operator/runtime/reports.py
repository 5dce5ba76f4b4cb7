"""The HTTPS server that training pods report to: who they are, how often, how much, in which shape.

    POST /v1/reports, bearer token ─▶ leader? ─▶ size? ─▶ token review ─▶ rate ─▶ body ─▶ Report ─▶ authorise ─▶ accept
                                       503        413        401          429    408/413   400       403        202

What a pod may report on is `authorise`'s matter, what becomes of a report is `accept`'s. Bodies and tokens are never
logged, nor sent back: an answer names the field that is wrong, not what stood in it.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from pydantic import ValidationError

from finetune_api.names import REPORT_MAX_BYTES, REPORT_PATH, TOKEN_AUDIENCE, UPLOAD_PATH
from finetune_api.trainer import Report, read_report
from finetune_operator.runtime import metrics
from finetune_operator.runtime.answers import ANSWERS_ROUTE, Answering, AnswerRoute
from finetune_operator.runtime.bodies import check_head, read_body
from finetune_operator.runtime.errors import KubeError, LeadershipLost
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.limits import TokenBucket
from finetune_operator.runtime.listener import Listener
from finetune_operator.runtime.refusals import Refusal, settled
from finetune_operator.runtime.settings import Settings
from finetune_operator.runtime.tokens import Recent, TokenReviewer, TooManyUnknownTokens
from finetune_operator.runtime.uploads import AcceptUpload, Authorise, UploadRoute

Review = Callable[[str, str], Awaitable[TokenIdentity | None]]
Accept = Callable[[Report], Awaitable[None] | None]

_PODS_REMEMBERED = 16384
_PROBLEMS_NAMED = 10

logger = logging.getLogger(__name__)


class ReportServer:
    """Takes reports over HTTPS.

    Args:
        settings: port, rates, limits.
        tls: the serving certificate; reloading it in place is enough.
        review: Kube.review_token.
        authorise: the reason to refuse this report from this identity, or None; plain or async.
        accept: what is done with a report; plain or async.
        is_leader: reports are taken by the leader alone, as it alone writes.
        upload: what is done with a file for a provider; None where there are none.
        answering: who may ask models at providers, and what is answered; None where there are none.
    """

    def __init__(
        self,
        settings: Settings,
        tls: ssl.SSLContext,
        *,
        review: Review,
        authorise: Authorise,
        accept: Accept,
        is_leader: Callable[[], bool],
        upload: AcceptUpload | None = None,
        answering: Answering | None = None,
    ) -> None:
        clock = asyncio.get_running_loop().time
        self._settings = settings
        self._clock = clock
        self._reviewer = TokenReviewer(review, TOKEN_AUDIENCE, clock)
        self._authorise = authorise
        self._accept = accept
        self._is_leader = is_leader
        self._buckets: Recent[TokenBucket] = Recent(_PODS_REMEMBERED, TokenBucket.is_full)
        self._in_work = 0
        app = web.Application()
        app.router.add_post(REPORT_PATH, self._answer)
        if upload is not None:
            uploads = UploadRoute(
                identify=self._identify,
                authorise=authorise,
                accept=upload,
                is_leader=is_leader,
                at_once=settings.upload_concurrency,
            )
            app.router.add_put(UPLOAD_PATH, uploads.answer)
        if answering is not None:
            answers = AnswerRoute(
                identify=self._identify,
                answering=answering,
                is_leader=is_leader,
                at_once=settings.answer_concurrency,
            )
            app.router.add_post(ANSWERS_ROUTE, answers.answer)
        self._listener = Listener(
            app, settings.report_bind, settings.report_port, tls=tls, max_connections=settings.report_connections
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    async def start(self) -> None:
        """Listens. Raises OSError where the port cannot be had."""
        await self._listener.start()

    async def stop(self) -> None:
        """Stops listening; running requests end."""
        await self._listener.stop()

    async def _answer(self, request: web.Request) -> web.Response:
        started = self._clock()
        status = 500  # what aiohttp answers, and logs, when something unforeseen is raised here
        try:
            response = await self._response(request)
            status = response.status
            return response
        finally:
            metrics.REPORTS.labels(str(status)).inc()
            metrics.REPORT_SECONDS.observe(self._clock() - started)

    async def _response(self, request: web.Request) -> web.Response:
        try:
            await self._handle(request)
        except Refusal as refused:
            return refused.response()
        except (KubeError, LeadershipLost) as error:
            logger.warning("a report could not be taken: %r", error)
            return Refusal(503, "the report cannot be taken now", retry_after=5).response()
        return web.Response(status=202)

    async def _handle(self, request: web.Request) -> None:
        if not self._is_leader():
            raise Refusal(503, "this replica does not lead", retry_after=2, close=True)
        if self._in_work >= self._settings.report_concurrency:
            raise Refusal(503, "too many reports at once", retry_after=1, close=True)
        self._in_work += 1
        try:
            check_head(request, REPORT_MAX_BYTES, "report")
            identity = await self._identify(request)
            self._throttle(identity)
            report = _parse(await read_body(request, REPORT_MAX_BYTES, "report"))
            reason = await settled(self._authorise(identity, report))
            if reason is not None:
                logger.warning("report of pod %s/%s refused: %s", identity.namespace, identity.pod_name, reason)
                raise Refusal(403, reason)
            await settled(self._accept(report))
        finally:
            self._in_work -= 1

    async def _identify(self, request: web.Request) -> TokenIdentity:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(401, "a bearer token is needed", close=True)
        try:
            identity = await self._reviewer.identify(token.strip(), request.remote or "")
        except TooManyUnknownTokens as error:
            raise Refusal(429, str(error), retry_after=error.retry_after, close=True) from None
        if identity is None:
            raise Refusal(401, f"the token is not valid now for audience {TOKEN_AUDIENCE}", close=True)
        return identity

    def _throttle(self, identity: TokenIdentity) -> None:
        pod = identity.pod_uid or identity.username
        bucket = self._buckets.get(pod)
        if bucket is None:
            bucket = TokenBucket(self._settings.report_rate, self._settings.report_burst, self._clock)
            self._buckets.put(pod, bucket)
        wait = bucket.take()
        if wait > 0:
            raise Refusal(429, "too many reports from this pod", retry_after=wait)


def _parse(body: bytes) -> Report:
    try:
        return read_report(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        named = [f"{'.'.join(str(place) for place in p['loc']) or 'body'}: {p['msg']}" for p in problems]
        raise Refusal(400, "; ".join(named[:_PROBLEMS_NAMED])) from None
    except ValueError as error:
        raise Refusal(400, str(error)) from None
