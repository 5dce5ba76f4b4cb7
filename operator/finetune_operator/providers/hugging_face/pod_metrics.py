"""The time of a serving pod's last request, from its /metrics: this project's server or vLLM.

The pods are scraped by IP address, as Prometheus does, so no API permission is needed.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from finetune_api.manifest import wants_deletion
from finetune_api.names import SERVER_CONTAINER
from finetune_operator.decide.deployment.idle import PodUse
from finetune_operator.desired.serving import PORT
from finetune_operator.runtime.http_date import http_date
from finetune_operator.runtime.server_clock import TOLERANCE

SECONDS = 5.0
MOST_BYTES = 4 * 1024 * 1024

_LAST, _RUNNING, _WAITING = (
    f"finetune_server_{name}" for name in ("last_request_timestamp_seconds", "running", "queue_length")
)
_VLLM_RUNNING, _VLLM_WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_VLLM_COUNTS = ("vllm:request_success_total", "vllm:prompt_tokens_total")
"""The second also counts requests whose client disconnected, which the first does not in every release."""


class Unread(Exception):
    """A server's metrics could not be read; the message says why."""


class PodMetrics:
    """Scrapes serving pods.

    Args:
        clock: now, with a time zone; returned times follow this clock.
        port: that they serve on.
    """

    def __init__(self, clock: Callable[[], datetime], port: int = PORT) -> None:
        self._clock = clock
        self._port = port

    async def read(self, pod: Mapping[str, Any]) -> PodUse:
        """The use of one pod.

        Raises:
            Unread: its metrics cannot be read.
        """
        name, address = pod["metadata"]["name"], pod.get("status", {}).get("podIP")
        started = running_since(pod)
        if not address or started is None:
            raise Unread(f"pod {name} has no address yet")
        url = URL.build(scheme="http", host=address, port=self._port, path="/metrics")
        try:
            text, date = await _fetch(url)
            return use_of(text, started, ahead=_ahead(date, self._clock()))
        except (aiohttp.ClientError, TimeoutError) as error:
            why = f"/metrics of pod {name} cannot be read from the operator's pod ({type(error).__name__})"
            raise Unread(why) from None
        except (ValueError, OverflowError):
            raise Unread(f"/metrics of pod {name} tells nothing of its requests") from None


def _ahead(date: str | None, now: datetime) -> timedelta:
    """How far the clock of a pod's node is ahead, by the answer's Date; 0 within the tolerance."""
    found = (http_date(date) or now) - now
    return found if abs(found) > TOLERANCE else timedelta()


async def _fetch(url: URL) -> tuple[str, str | None]:
    """The metrics, and the answer's Date."""
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as response:
        response.raise_for_status()
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MOST_BYTES:
                raise ValueError("no metrics are as long as this")
        return body.decode(errors="replace"), response.headers.get("Date")


def use_of(text: str, started: datetime, ahead: timedelta = timedelta()) -> PodUse:
    """Parse metrics in Prometheus' text format. Pure.

    Args:
        text: the metrics.
        started: when the server started, by its node's clock.
        ahead: how far that clock is ahead of ours.

    Raises:
        ValueError: the metrics are of neither server.
    """
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    started -= ahead
    if _LAST in totals:
        last = datetime.fromtimestamp(totals[_LAST], UTC) - ahead if totals[_LAST] else None
        busy = totals.get(_RUNNING, 0) + totals.get(_WAITING, 0) > 0
        return PodUse(started, last=last, busy=busy)
    if _VLLM_RUNNING in totals:
        busy = totals[_VLLM_RUNNING] + totals.get(_VLLM_WAITING, 0) > 0
        return PodUse(started, counted=int(sum(totals.get(name, 0) for name in _VLLM_COUNTS)), busy=busy)
    raise ValueError("no such metrics")


def is_answering(pod: Mapping[str, Any]) -> bool:
    """Whether requests may reach the pod."""
    containers = pod.get("status", {}).get("containerStatuses") or ()
    ready = any(one.get("name") == SERVER_CONTAINER and one.get("ready") for one in containers)
    return ready and not wants_deletion(pod)


def running_since(pod: Mapping[str, Any]) -> datetime | None:
    """When its server last started; a restarted server has lost its earlier counts."""
    for container in pod.get("status", {}).get("containerStatuses") or ():
        running = (container.get("state") or {}).get("running")
        if container.get("name") == SERVER_CONTAINER and running and running.get("startedAt"):
            return datetime.fromisoformat(running["startedAt"])
    return None
