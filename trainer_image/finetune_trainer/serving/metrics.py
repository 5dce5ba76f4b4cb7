"""The metrics for Prometheus, and ASGI middleware that counts every request by route and status."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

disable_created_metrics()  # type: ignore[no-untyped-call] # one more series for each series, of no use

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics")


class ServerMetrics:
    """Counters of one server. `waiting` and `running` are called on each scrape."""

    def __init__(self, waiting: Callable[[], float], running: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        prefix = "finetune_server_"
        self.requests = Counter(
            f"{prefix}requests", "Requests answered.", ["route", "status"], registry=registry
        )  # Prometheus' client adds _total
        self.seconds = Histogram(
            f"{prefix}request_seconds", "From a request's start to the end of its answer.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.first_token_seconds = Histogram(
            f"{prefix}first_token_seconds", "From a request's start to the first text of its answer.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.prompt_tokens = Counter(f"{prefix}prompt_tokens", "Tokens of prompts.", registry=registry)
        self.completion_tokens = Counter(f"{prefix}completion_tokens", "Tokens generated.", registry=registry)
        self.last_request = Gauge(
            f"{prefix}last_request_timestamp_seconds",
            "Unix time of the last request that the model was given; 0: none yet.",
            registry=registry,
        )
        Gauge(f"{prefix}queue_length", "Generations that wait.", registry=registry).set_function(waiting)
        Gauge(f"{prefix}running", "Generations in the model's hands.", registry=registry).set_function(running)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class CountRequests:
    """ASGI middleware: counts each request once its response was sent or its client disconnected."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request and measure it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in _ROUTES else "other"
        status = "499"  # nginx' status for a client that disconnected

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, watch)
        except Exception:
            status = "500"
            raise
        finally:
            self._metrics.requests.labels(route, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
