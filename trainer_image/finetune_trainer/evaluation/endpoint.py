"""Asks any service with OpenAI's chat completions: several questions at a time, with a timeout and retries.

Responses are interpreted in `response.py`.
"""

import asyncio
import contextlib
import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from finetune_api.evaluation import Service
from finetune_api.reasons import Reason
from finetune_api.words import counted
from finetune_trainer.data import Turn
from finetune_trainer.evaluation.kept import Answer
from finetune_trainer.evaluation.response import AgainError, FailedError, answer_in, other_limits, require_ok
from finetune_trainer.storage.store_errors import why_unreachable

TRIES = 4
PAUSE_SECONDS = 1.0
"""Pause before the second try; it doubles after each."""

_LONGEST_PAUSE = 30.0
"""Limit between two tries, or two polls of the operator, which asks nobody during a provider's pause."""

LONGEST_ASKED_PAUSE = 300.0
"""Longest pause that a service may request, in seconds; one that requests more is given up, as if it were down."""

_LONGEST_RESPONSE = 1 << 20
_GIVE_UP_AFTER = 20
"""Consecutive rows without an answer after which the service counts as down, and the rest is skipped."""

_PACKED = {"Accept-Encoding": "gzip"}
"""Accepted compression: decompressed here, since a few KiB may expand to gigabytes."""


@dataclass(frozen=True)
class Way:
    """How to reach a service, and how to interpret its errors."""

    headers: Callable[[], dict[str, str]] = dict
    """Headers of a request; called for each one, since keys may be renewed."""
    trust: ssl.SSLContext | bool = True
    require_ok: Callable[[httpx.Response, bytes], None] = require_ok
    """Raises FailedError or AgainError if the response is not an answer."""
    patience_seconds: float | None = None
    """How long to retry one question, after which the service counts as down. None: TRIES times for each question."""


@dataclass
class Outcome:
    """Errors of an evaluation."""

    errors: int = 0
    """Questions without an answer, including skipped ones."""
    problems: dict[str, int] = field(default_factory=dict)
    """Causes, with their counts."""
    reason: Reason | None = None
    """Why it was given up, if the service said so."""

    @property
    def problem(self) -> str | None:
        """The most frequent cause, as a sentence."""
        return self.summary("row")

    def summary(self, noun: str) -> str | None:
        """The same with the noun for what was asked: a judge is asked twice per row."""
        if not self.errors:
            return None
        why = max(self.problems, key=lambda cause: self.problems[cause], default="it was not asked")
        return f"{counted(self.errors, noun)} {'was' if self.errors == 1 else 'were'} not answered: {why}"


def ask(
    endpoint: Service,
    key: str | None,
    asked: Sequence[tuple[int, tuple[Turn, ...]]],
    *,
    max_tokens: int,
    on_answer: Callable[[Answer], None],
    pause: float = PAUSE_SECONDS,
    way: Way | None = None,
) -> Outcome:
    """Ask every (row, conversation); `on_answer` gets each answer as it arrives, in any order, on one other thread.

    Errors of the service end up in the outcome: a missing baseline must not cost a tuned model. The caller's thread
    only waits, so that an exception raised by a signal handler propagates at once; inside asyncio it might be lost.
    """
    key = key and key.strip()  # a key from a file often ends with a line break
    way = way or Way(headers=lambda: _bearer(key))
    asking = _Asking(endpoint, way, max_tokens, on_answer, pause)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="endpoint") as thread:
        try:
            return thread.submit(asyncio.run, asking.all(asked)).result()
        except BaseException:
            asking.stop()
            raise


def _bearer(key: str | None) -> dict[str, str]:
    """The header with the key, if there is one.

    Raises:
        FailedError: the key is invalid in a header; the HTTP client's own error says neither which key nor why.
    """
    if key and not (key.isascii() and key.isprintable()):
        raise FailedError(
            "its key has line breaks or letters beyond ASCII: write it again into its Secret", for_good=True
        )
    return {"Authorization": f"Bearer {key}"} if key else {}


class _Asking:
    def __init__(
        self, endpoint: Service, way: Way, max_tokens: int, on_answer: Callable[[Answer], None], pause: float
    ) -> None:
        self._endpoint = endpoint
        self._way = way
        self._max_tokens = max_tokens
        self._limits: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0}
        self._on_answer = on_answer
        self._pause = pause
        self._outcome = Outcome()
        self._answered_at = time.monotonic()
        """Time of the last answer, or of the start."""
        self._failed_in_a_row = 0
        self._not_before = 0.0
        """End of a pause that the service requested for all questions."""
        self._over = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None] | None = None

    def stop(self) -> None:
        """Called from another thread: stop asking, without waiting for running requests."""
        self._over = True
        if self._running is not None and self._running[1] is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                self._running[0].call_soon_threadsafe(self._running[1].cancel)

    async def all(self, asked: Sequence[tuple[int, tuple[Turn, ...]]]) -> Outcome:
        self._running = asyncio.get_running_loop(), asyncio.current_task()
        waiting = iter(asked)
        async with httpx.AsyncClient(timeout=self._endpoint.timeout_seconds, verify=self._way.trust) as client:
            # No TaskGroup: it would wrap exceptions of on_answer.
            await asyncio.gather(*(self._work(client, waiting) for _ in range(self._endpoint.concurrency)))
        self._outcome.errors += sum(1 for _ in waiting)
        return self._outcome

    async def _work(self, client: httpx.AsyncClient, waiting: Iterator[tuple[int, tuple[Turn, ...]]]) -> None:
        for row, turns in waiting:
            if self._over:
                self._outcome.errors += 1
                return
            try:
                answer = await self._one(client, row, turns)
            except FailedError as error:
                self._failed(error)
            else:
                self._failed_in_a_row = 0
                self._answered_at = time.monotonic()
                self._on_answer(answer)

    def _failed(self, error: FailedError) -> None:
        self._failed_in_a_row += 1
        self._outcome.reason = self._outcome.reason or error.reason
        self._over = self._over or error.for_good or self._failed_in_a_row >= _GIVE_UP_AFTER
        self._outcome.errors += 1
        why = str(error)
        self._outcome.problems[why] = self._outcome.problems.get(why, 0) + 1

    async def _one(self, client: httpx.AsyncClient, row: int, turns: tuple[Turn, ...]) -> Answer:
        began, tries, put_off = time.monotonic(), 0, 0
        while True:
            await self._wait_for_pause()
            try:
                return await self._request(client, row, turns)
            except AgainError as error:
                tries += 1
                put_off += error.busy and self._may_be_answering()
                wait = error.seconds if error.seconds is not None else self._pause * 2.0 ** min(tries - 1, 10)
                self._note_pause(error)
                if self._over or self._has_tried_enough(tries - put_off, began):
                    for_good = self._way.patience_seconds is not None
                    raise FailedError(str(error), for_good=for_good, reason=error.reason) from None
            await asyncio.sleep(min(wait, _LONGEST_PAUSE))

    def _note_pause(self, error: AgainError) -> None:
        """Apply a service's requested pause to all questions. The operator enforces its provider's pause itself.

        Raises:
            FailedError: the pause is too long.
        """
        if error.seconds is None or self._way.patience_seconds is not None:
            return
        if error.seconds > LONGEST_ASKED_PAUSE:
            why = (
                f"{error}: it asks for a pause of {error.seconds:g} s, and at most {LONGEST_ASKED_PAUSE:g} s are waited"
            )
            raise FailedError(why, for_good=True) from None
        self._not_before = max(self._not_before, time.monotonic() + error.seconds)

    async def _wait_for_pause(self) -> None:
        while (left := self._not_before - time.monotonic()) > 0:  # noqa: ASYNC110 - another row may lengthen the pause
            await asyncio.sleep(left)

    def _may_be_answering(self) -> bool:
        """Whether it may be busy answering another row: if so, an answer arrives within the timeout."""
        return time.monotonic() - self._answered_at < self._endpoint.timeout_seconds

    def _has_tried_enough(self, tries: int, began: float) -> bool:
        patience = self._way.patience_seconds
        return tries >= TRIES if patience is None else time.monotonic() - began >= patience

    async def _request(self, client: httpx.AsyncClient, row: int, turns: tuple[Turn, ...]) -> Answer:
        limits: dict[str, Any] | None = self._limits
        while limits is not None:
            used = limits
            response, content = await self._sent(client, turns, used)
            limits = other_limits(used, response.status_code, content)
        self._way.require_ok(response, content)
        if self._max_tokens in used.values():  # otherwise only this question was too long
            self._limits = used
        return answer_in(row, content)

    async def _sent(
        self, client: httpx.AsyncClient, turns: tuple[Turn, ...], limits: Mapping[str, Any]
    ) -> tuple[httpx.Response, bytes]:
        body = {
            "model": self._endpoint.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            **limits,
        }
        url = self._endpoint.url.rstrip("/") + "/chat/completions"
        asking = client.stream("POST", url, json=body, headers=_PACKED | self._way.headers())
        try:
            # httpx's timeout applies to each read, and an answer may arrive byte by byte.
            async with asyncio.timeout(self._endpoint.timeout_seconds), asking as response:
                return response, await _content(response)
        except (httpx.TimeoutException, TimeoutError):
            raise AgainError(f"no answer within {self._endpoint.timeout_seconds} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AgainError(f"it cannot be reached ({why_unreachable(error)})") from None
        except UnicodeEncodeError:
            raise FailedError("a question is not valid Unicode text") from None


async def _content(response: httpx.Response) -> bytes:
    """The body, decompressed up to the limit."""
    packed, content = response.headers.get("Content-Encoding", "identity").strip().lower(), b""
    if packed not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise FailedError("an answer is packed in a way that was not asked for (Content-Encoding)")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed not in ("", "identity") else None
    async for part in response.aiter_raw():
        try:
            content += unpacking.decompress(part, _LONGEST_RESPONSE + 1 - len(content)) if unpacking else part
        except zlib.error:
            raise FailedError("an answer cannot be unpacked as its Content-Encoding says") from None
        if len(content) > _LONGEST_RESPONSE:
            raise FailedError("an answer is longer than 1 MiB")
    return content
