"""The HTTPS server that training pods report to: checks identity, rate, size and format.

    POST /v1/reports, bearer token ─▶ leader? ─▶ size? ─▶ token review ─▶ rate ─▶ body ─▶ Report ─▶ authorise ─▶ accept
                                       503        413        401          429    408/413   400     403/410      202

410 is for a pod that has outlived its attempt: it need not keep its node only to report its end. `authorise` decides
what a pod may report on, `accept` what happens to a report. Bodies and tokens are never logged or sent back: an error
names the invalid field, not its value.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from aiohttp import hdrs, web
from pydantic import ValidationError

from finetune_api.names import REPORT_MAX_BYTES, REPORT_PATH, TOKEN_AUDIENCE, UPLOAD_PATH
from finetune_api.trainer import Report, read_report
from finetune_operator.runtime import metrics
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.listener import Listener
from finetune_operator.runtime.report_server import questions, uploads
from finetune_operator.runtime.report_server.bodies import check_head, read_body
from finetune_operator.runtime.report_server.questions import Answering
from finetune_operator.runtime.report_server.refusals import Refusal, invalid_fields
from finetune_operator.runtime.report_server.route import Authorise, Route, require_allowed
from finetune_operator.runtime.report_server.tokens import TokenReviewer, TooManyUnknownTokens
from finetune_operator.runtime.report_server.uploads import AcceptUpload
from finetune_operator.runtime.settings import Settings
from finetune_operator.runtime.token_bucket import TokenBuckets

Review = Callable[[str, str], Awaitable[TokenIdentity | None]]
Accept = Callable[[Report], None]

_PODS_REMEMBERED = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHandlers:
    """The handlers of what pods send.

    Args:
        authorise: the reason to refuse what this identity sends, or None.
        accept: handles a report.
        upload: handles a file for a provider; None if there are no providers.
        answering: authorises and answers questions to models at providers; None if there are no providers.
    """

    authorise: Authorise
    accept: Accept
    upload: AcceptUpload | None = None
    answering: Answering | None = None


class ReportServer(Listener):
    """Accepts reports over HTTPS.

    Args:
        settings: port, rates, limits.
        tls: the serving certificate; it may be reloaded in place.
        takers: handlers of what is sent.
        review: Kube.review_token.
        is_leader: only the leader accepts reports, as only it writes.
    """

    def __init__(
        self,
        settings: Settings,
        tls: ssl.SSLContext,
        handlers: RequestHandlers,
        *,
        review: Review,
        is_leader: Callable[[], bool],
    ) -> None:
        clock = asyncio.get_running_loop().time
        self._reviewer = TokenReviewer(review, TOKEN_AUDIENCE, clock)
        self._handlers = handlers
        self._pods = TokenBuckets(settings.report_rate, settings.report_burst, clock, _PODS_REMEMBERED)
        app = self._routes(settings, partial(Route, is_leader=is_leader))
        limit = settings.report_connections
        super().__init__(app, settings.report_bind, settings.report_port, tls=tls, max_connections=limit)

    def _routes(self, settings: Settings, route: Callable[..., Route]) -> web.Application:
        app, handlers = web.Application(), self._handlers
        reports = route("report", self._take, at_once=settings.report_concurrency, pause=1, answers=metrics.REPORTS)
        app.router.add_post(REPORT_PATH, reports.answer)
        if handlers.upload is not None:
            take = uploads.handler(self._identify, handlers.authorise, handlers.upload)
            files = route("upload", take, at_once=settings.upload_concurrency, pause=2, answers=metrics.UPLOADS)
            app.router.add_put(UPLOAD_PATH, files.answer)
        if handlers.answering is not None:
            take = questions.handler(self._identify, handlers.answering)
            asked = route("question", take, at_once=settings.answer_concurrency, pause=1, answers=metrics.QUESTIONS)
            app.router.add_post(questions.ROUTE, asked.answer)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        """Handle one report. Raises Refusal."""
        with metrics.REPORT_SECONDS.time():
            check_head(request, REPORT_MAX_BYTES, "report")
            identity = await self._identify(request)
            self._throttle(identity)
            report = _parse(await read_body(request, REPORT_MAX_BYTES, "report"))
            require_allowed(self._handlers.authorise(identity, report), identity, "report", outlived=410)
            self._handlers.accept(report)
        return web.Response(status=202)

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
        wait = self._pods.take(identity.pod_uid or identity.username)
        if wait > 0:
            raise Refusal(429, "too many reports from this pod", retry_after=wait)


def _parse(body: bytes) -> Report:
    try:
        return read_report(body)
    except ValidationError as error:
        raise Refusal(400, invalid_fields(error)) from None
    except ValueError as error:
        raise Refusal(400, str(error)) from None
