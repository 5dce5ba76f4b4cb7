"""A small HTTP server with planned answers, in the Kubernetes API's format."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.settings import Settings


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Api:
    """Gives the planned answers in order; the last one is repeated."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    _answers: list[Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=list)

    def answer(
        self, body: Any = None, status: int = 200, headers: dict[str, str] | None = None, times: int = 1
    ) -> "Api":
        async def plain(_: web.Request) -> web.Response:
            data = body if isinstance(body, bytes) else orjson.dumps(body)
            return web.Response(body=data, status=status, headers=headers, content_type="application/json")

        self._answers += [plain] * times
        return self

    def refuse(self, status: int, reason: str, message: str = "", headers: dict[str, str] | None = None,
               details: dict[str, Any] | None = None, times: int = 1) -> "Api":  # fmt: skip
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message,
                "code": status, "details": details or {}}  # fmt: skip
        return self.answer(body, status, headers, times)

    def hang(self) -> "Api":
        async def silence(_: web.Request) -> web.Response:
            await asyncio.Event().wait()
            raise AssertionError

        self._answers.append(silence)
        return self

    def hang_up(self) -> "Api":
        async def cut(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        self._answers.append(cut)
        return self

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.read()
        body = orjson.loads(text) if text else None
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return await answer(request)


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{url}"}}}}]
users: [{{name: test, user: {{tokenFile: "{token}"}}}}]
"""


@asynccontextmanager
async def serve(folder, token: str = "first", **settings: Any) -> AsyncIterator[tuple[Api, Kube]]:
    """The server and a Kube that talks to it, with a token file in `folder`."""
    api = Api()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    (folder / "token").write_text(token)
    (folder / "kubeconfig").write_text(KUBECONFIG.format(url=api.url, token=folder / "token"))
    try:
        async with Kube.connect(Settings(kubeconfig=folder / "kubeconfig", **settings)) as kube:
            yield api, kube
    finally:
        await runner.cleanup()
