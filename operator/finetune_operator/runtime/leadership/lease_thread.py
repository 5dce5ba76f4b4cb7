"""Leadership on its own thread, with its own event loop and connection: slow work does not lose the Lease.

    reconcilers' loop ── is_held, assert_held ──▶ Leadership ◀── renews ── the thread's loop
                      ◀────────── acquired, lost ──────────

The rules are those of `lease`: the guard compares times, so a process that was frozen writes no more, on either thread,
whether or not this one has run again. The liveness probe detects a reconcilers' loop that is stuck.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any

from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.leadership.lease import Leadership
from finetune_operator.runtime.settings import Settings

END_SECONDS = 10.0


class LeaseThread:
    """A Leadership that can be used from another event loop than its own."""

    def __init__(self, leadership: Leadership, loop: asyncio.AbstractEventLoop) -> None:
        self._leadership = leadership
        self._loop = loop

    def is_held(self) -> bool:
        """Whether this replica leads now, as far as it knows without a request."""
        return self._leadership.is_held()

    def assert_held(self) -> None:
        """Does nothing while `is_held`.

        Raises:
            LeadershipLost: the Lease is not held, or was not renewed in time.
        """
        self._leadership.assert_held()

    async def acquire(self) -> None:
        """Waits until this replica leads, however long that takes."""
        await self._run_on_thread(self._leadership.acquire())

    async def lost(self) -> None:
        """Waits until leadership is gone: taken over, not renewed in time, or released."""
        await self._run_on_thread(self._leadership.lost())

    async def release(self) -> None:
        """Releases the Lease, so that other replicas need not wait for it to expire. Never raises."""
        await self._run_on_thread(self._leadership.release())

    def end(self, ended: asyncio.Event) -> None:
        """Lets the thread end."""
        with suppress(RuntimeError):  # it has already ended
            self._loop.call_soon_threadsafe(ended.set)

    async def _run_on_thread(self, what: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(what, self._loop))


@asynccontextmanager
async def lease_thread(settings: Settings, identity: str) -> AsyncIterator[LeaseThread]:
    """Starts the thread, which ends with the context.

    Args:
        settings: the Lease's name and times, and how to connect.
        identity: see `Leadership`.

    Raises:
        NoCluster: there are no credentials.
    """
    started: Future[tuple[LeaseThread, asyncio.Event]] = Future()

    async def live() -> None:
        async with Kube.connect(settings) as kube:
            ended = asyncio.Event()
            started.set_result((LeaseThread(_contender(settings, kube, identity), asyncio.get_running_loop()), ended))
            await ended.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run, name="lease", daemon=True)
    thread.start()
    leadership, ended = await asyncio.wrap_future(started)
    try:
        yield leadership
    finally:
        leadership.end(ended)
        await asyncio.to_thread(thread.join, END_SECONDS)


def _contender(settings: Settings, kube: Kube, identity: str) -> Leadership:
    return Leadership(kube, settings.namespace, settings.lease_name, identity, settings.lease_times)
