"""The HTTP routes: OpenAI's /v1, /health and /metrics, and optionally those of SageMaker.

They check requests, ask the engine and format its answers. The app starts at once and answers 503 until there is a
model.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from finetune_trainer.data.tokenizer.chat_template import TemplateRefusedError
from finetune_trainer.serving import api_errors
from finetune_trainer.serving.answers import DONE, AnswerShape, Usage, event, model_card
from finetune_trainer.serving.api_errors import ApiError
from finetune_trainer.serving.api_key import KeyFile
from finetune_trainer.serving.asks import Ask, QueueFullError
from finetune_trainer.serving.metrics import CountRequests, ServerMetrics
from finetune_trainer.serving.relay import Relay
from finetune_trainer.serving.requests import ChatBody, CompletionBody, has_prompt, parse
from finetune_trainer.serving.served import Served

_BODY_LIMIT = 8 << 20
_CLIENT_LEFT = 499  # never received; appears in the metrics
_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # so that proxies do not buffer
_PLAIN = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class ModelHolder:
    """Holds the model once it is loaded; until then `problem` says why there is none."""

    served: Served | None = None
    problem: str = "it is being loaded"

    def require(self) -> Served:
        """The model.

        Raises:
            ApiError: 503, it is not loaded yet or has broken.
        """
        if self.served is None:
            raise api_errors.not_ready(self.problem)
        if self.served.engine.is_broken:
            raise api_errors.not_ready("it failed several times in a row")
        return self.served


def build_app(holder: ModelHolder, key: KeyFile | None = None, *, sagemaker: bool = False) -> FastAPI:
    """The application. With `key`, the /v1 routes require it; `sagemaker` adds /ping and /invocations."""
    title = "finetune-trainer serve"
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    metrics = ServerMetrics(
        waiting=lambda: holder.served.engine.waiting if holder.served else 0,
        running=lambda: holder.served.engine.running if holder.served else 0,
    )
    app.add_middleware(CountRequests, metrics=metrics)
    app.add_middleware(_NormalisedPaths)
    routes = _Routes(holder, key, metrics)
    for path, route in (
        ("/health", routes.health),
        ("/metrics", routes.metrics),
        ("/v1/models", routes.models),
        ("/v1/models/{name:path}", routes.model),
    ):
        app.api_route(path, methods=["GET", "HEAD"])(route)
    app.post("/v1/chat/completions")(routes.chat)
    app.post("/v1/completions")(routes.completions)
    if sagemaker:
        app.get("/ping")(routes.health)
        app.post("/invocations")(routes.invocations)
    app.add_exception_handler(ApiError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(ClientDisconnect, _client_left)
    app.add_exception_handler(Exception, _internal_error)
    return app


class _NormalisedPaths:
    """ASGI middleware that ignores double and trailing slashes in paths, common in concatenated URLs.

    FastAPI would redirect, which curl does not follow, and other clients follow without the body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request."""
        if scope["type"] == "http":
            scope = {**scope, "path": "/" + "/".join(filter(None, scope["path"].split("/")))}
        await self._app(scope, receive, send)


class _Routes:
    """One method per route."""

    def __init__(self, holder: ModelHolder, key: KeyFile | None, metrics: ServerMetrics) -> None:
        self._holder = holder
        self._key = key
        self._metrics = metrics

    async def health(self) -> JSONResponse:
        """200 once the model has answered and while it works; otherwise 503 with the state."""
        try:
            served = self._holder.require()
        except ApiError as error:
            return JSONResponse({"status": "unavailable", "reason": error.message}, 503)
        return JSONResponse({"status": "ok", "model": served.name})

    async def metrics(self) -> Response:
        """The metrics in Prometheus' text format."""
        return Response(self._metrics.render(), media_type=_PLAIN)

    async def models(self, request: Request) -> JSONResponse:
        """The one model that is served."""
        self._check_key(request)
        return JSONResponse({"object": "list", "data": [model_card(self._holder.require())]})

    async def model(self, request: Request, name: str) -> JSONResponse:
        """One model by name."""
        self._check_key(request)
        served = self._holder.require()
        if name != served.name:
            raise api_errors.wrong_model(name, served.name)
        return JSONResponse(model_card(served))

    async def chat(self, request: Request) -> Response:
        """/v1/chat/completions."""
        served = self._admit(request)
        return await self._chat(request, served, await _read(request))

    async def _chat(self, request: Request, served: Served, raw: bytes) -> Response:
        body = parse(ChatBody, raw)
        _check_name(body.model, served)
        try:
            prompt = await run_in_threadpool(served.prompts.chat, [message.turn for message in body.messages])
        except TemplateRefusedError as error:
            message = f"The model's chat template refuses these messages: {error}"
            raise api_errors.bad_request(message, "messages") from None
        return await self._answer(request, served, body, [prompt])

    async def completions(self, request: Request) -> Response:
        """/v1/completions."""
        served = self._admit(request)
        return await self._complete(request, served, await _read(request))

    async def invocations(self, request: Request) -> Response:
        """SageMaker's only route: a body with a prompt is a completion, any other a chat completion."""
        served = self._admit(request)
        raw = await _read(request)
        return await (self._complete if has_prompt(raw) else self._chat)(request, served, raw)

    async def _complete(self, request: Request, served: Served, raw: bytes) -> Response:
        body = parse(CompletionBody, raw)
        _check_name(body.model, served)
        prompts = [await run_in_threadpool(_tokens, served, prompt) for prompt in body.prompts]
        return await self._answer(request, served, body, prompts)

    async def _answer(
        self, request: Request, served: Served, body: ChatBody | CompletionBody, prompts: list[tuple[int, ...]]
    ) -> Response:
        in_chat = isinstance(body, ChatBody)
        sampling = body.sampling(served.sampling, served.vocabulary)
        asks = [
            Ask(
                prompt,
                _room_for_answer(served, prompt, body),
                sampling=sampling.of_turn(turn),
                stops=body.stops,
                likeliest=body.likeliest,
                continues_prompt=not in_chat and not served.encoder_decoder,
                opening=served.prompts.opening if in_chat else (),
            )
            for prompt in prompts
            for turn in range(body.n or 1)
        ]
        relay = Relay(asks)
        token_text = None if body.likeliest is None else served.prompts.token_text
        shape = AnswerShape("chat" if in_chat else "completion", served.name, token_text)
        usage = Usage(prompt=sum(len(prompt) for prompt in prompts))
        self._submit(served, relay, usage)
        if body.stream:
            return _Stream(self._chunks(relay, shape, usage, with_usage=body.wants_usage), relay)
        return await self._whole(request, relay, shape, usage)

    def _submit(self, served: Served, relay: Relay, usage: Usage) -> None:
        try:
            served.engine.submit(relay.asks)
        except QueueFullError as error:
            raise api_errors.queue_full(error.waiting) from None
        self._metrics.last_request.set_to_current_time()
        self._metrics.prompt_tokens.inc(usage.prompt)

    async def _whole(self, request: Request, relay: Relay, shape: AnswerShape, usage: Usage) -> Response:
        answering = asyncio.create_task(relay.answers())
        leaving = asyncio.create_task(_disconnect(request))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return Response(status_code=_CLIENT_LEFT)
            answers = answering.result()
        finally:
            relay.cancel()
            leaving.cancel()
            answering.cancel()
            self._count(relay)
        usage.completion = sum(relay.tokens)
        return JSONResponse(shape.whole(answers, usage))

    async def _chunks(
        self, relay: Relay, shape: AnswerShape, usage: Usage, *, with_usage: bool
    ) -> AsyncIterator[bytes]:
        try:
            for index in range(len(relay.asks)):
                if opening := shape.first_chunk(index):
                    yield event(opening)
            async for index, piece in relay.pieces():
                if piece.text or piece.likelihoods:
                    yield event(shape.chunk(index, piece))
                if piece.finish:
                    yield event(shape.last_chunk(index, piece.finish))
            usage.completion = sum(relay.tokens)
            if with_usage:
                yield event(shape.usage_chunk(usage))
            yield DONE
        except ApiError as error:  # the status was already sent; clients expect an error event
            yield event(error.body)
        finally:
            self._count(relay)

    def _count(self, relay: Relay) -> None:
        self._metrics.completion_tokens.inc(sum(relay.tokens))
        if relay.first_token_seconds is not None:
            self._metrics.first_token_seconds.observe(relay.first_token_seconds)

    def _admit(self, request: Request) -> Served:
        self._check_key(request)
        return self._holder.require()

    def _check_key(self, request: Request) -> None:
        if self._key is not None and not self._key.accepts(request.headers.get("authorization")):
            raise api_errors.wrong_key()


class _Stream(StreamingResponse):
    """Server-sent events. Cancels its generations however the response ends."""

    def __init__(self, chunks: AsyncIterator[bytes], relay: Relay) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers=_STREAM_HEADERS)
        self._relay = relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._relay.cancel()


async def _read(request: Request) -> bytes:
    if (how := request.headers.get("content-encoding", "identity")).lower() != "identity":
        raise api_errors.encoded(how)
    if int(request.headers.get("content-length", 0)) > _BODY_LIMIT:  # always a number: the HTTP server rejects others
        raise api_errors.body_too_large(_BODY_LIMIT)
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > _BODY_LIMIT:
            raise api_errors.body_too_large(_BODY_LIMIT)
    return bytes(raw)


async def _disconnect(request: Request) -> None:
    """Return when the client disconnects. The body has been read, so no other message can arrive."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _check_name(asked: str, served: Served) -> None:
    if asked != served.name:
        raise api_errors.wrong_model(asked, served.name)


def _tokens(served: Served, prompt: str | list[int]) -> tuple[int, ...]:
    tokens = served.prompts.text(prompt) if isinstance(prompt, str) else tuple(prompt)
    if not tokens:
        raise api_errors.bad_request("The prompt is empty, and this model has no token to begin with.", "prompt")
    if max(tokens) >= served.vocabulary:
        raise api_errors.bad_request(f"The model's tokens have ids below {served.vocabulary}.", "prompt")
    return tokens


def _room_for_answer(served: Served, prompt: tuple[int, ...], body: ChatBody | CompletionBody) -> int:
    """Token limit of the answer: the requested one, but at most what the context leaves.

    An encoder-decoder's prompt takes no room from its answer.
    """
    left = served.context - len(prompt)
    if served.encoder_decoder and left >= 0:
        left = served.context
    if left < 1:
        param = "messages" if isinstance(body, ChatBody) else "prompt"
        raise api_errors.prompt_too_long(len(prompt), served.context, param, apart=served.encoder_decoder)
    return min(left, body.token_limit or left)


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for it
    return JSONResponse(error.body, error.status, error.headers)


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    if error.status_code == 404:
        return await _refuse(request, api_errors.no_such_route(request.url.path))
    if error.status_code == 405:
        return await _refuse(request, api_errors.wrong_method(request.method, request.url.path, error.headers))
    return await _refuse(request, ApiError(error.status_code, f"{request.method}: {error.detail}"))


async def _client_left(_: Request, __: Exception) -> Response:
    """The client disconnected during its request."""
    return Response(status_code=_CLIENT_LEFT)


async def _internal_error(request: Request, _: Exception) -> JSONResponse:
    """An unexpected error; uvicorn logs the traceback."""
    return await _refuse(request, api_errors.bug())
