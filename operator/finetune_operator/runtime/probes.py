"""Plain HTTP for the kubelet and Prometheus: /healthz, /readyz, /metrics. Callers decide what is healthy."""

import logging
from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from finetune_operator.runtime.listener import Listener
from finetune_operator.runtime.metrics import REGISTRY

Check = Callable[[], str | None]

logger = logging.getLogger(__name__)


class ProbeServer(Listener):
    """Answers probes from named checks; a check returns what is wrong, or None.

    Args:
        host: address to listen on; "" for all.
        port: 0 picks a free one.
        live: if one fails the pod is restarted: only for what a restart can fix.
        ready: if one fails the pod is removed from its Services.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        live: Mapping[str, Check],
        ready: Mapping[str, Check],
    ) -> None:
        self._live = live
        self._ready = ready
        self._failing: set[str] = set()
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        super().__init__(app, host, port, max_connections=64, idle_seconds=90.0)

    async def _healthz(self, _: web.Request) -> web.Response:
        return self._verdict("live", self._live)

    async def _readyz(self, _: web.Request) -> web.Response:
        return self._verdict("ready", self._ready)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    def _verdict(self, probe: str, checks: Mapping[str, Check]) -> web.Response:
        """200 with `ok` for each check, or 503 with what is wrong; a change is logged once."""
        results = {name: _run(check) for name, check in checks.items()}
        for name, wrong in results.items():
            topic = f"{probe}/{name}"
            if wrong is not None and topic not in self._failing:
                self._failing.add(topic)
                logger.warning("not %s: %s: %s", probe, name, wrong)
            elif wrong is None and topic in self._failing:
                self._failing.remove(topic)
                logger.info("%s again: %s", probe, name)
        healthy = all(wrong is None for wrong in results.values())
        return web.json_response(
            {name: wrong or "ok" for name, wrong in results.items()}, status=200 if healthy else 503
        )


def _run(check: Check) -> str | None:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a check that breaks is a check that fails
        return f"the check itself failed: {error!r}"
