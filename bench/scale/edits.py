"""One edit among N finished jobs: from the PATCH until the client's watch shows that the operator has processed it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from bench.scale.load import Api

SECONDS = 30.0


async def play(kubeconfig: Path, path: str, names: list[str]) -> list[float]:
    """Edit these jobs one after another; returns the seconds until the status reflects each edit.

    Raises:
        TimeoutError: the status did not change in time.
    """
    async with Api.connect(kubeconfig) as api:
        seen = _Seen()
        watching = asyncio.create_task(seen.watch(api, path))
        try:
            # The watch starts with all existing objects: an edit before that would wait for the client, not for us.
            async with asyncio.timeout(10 * SECONDS):
                await seen.until(lambda: names[-1] in seen.observed and len(seen.observed) >= len(names))
            return [await _edit(api, seen, path, name) for name in names]
        finally:
            watching.cancel()


class _Seen:
    """The observed generation in each object's status."""

    def __init__(self) -> None:
        self.observed: dict[str, int] = {}
        self._news = asyncio.Condition()

    async def watch(self, api: Api, path: str) -> None:
        async for _, obj in api.watch(path):
            async with self._news:
                self.observed[obj["metadata"]["name"]] = (obj.get("status") or {}).get("observedGeneration", 0)
                self._news.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(holds)


async def _edit(api: Api, seen: _Seen, path: str, name: str) -> float:
    began = time.monotonic()
    edited = await api.merge(f"{path}/{name}", {"spec": {"ttlSecondsAfterFinished": 86_400 + int(began)}})
    generation = edited["metadata"]["generation"]
    async with asyncio.timeout(SECONDS):
        await seen.until(lambda: seen.observed.get(name, 0) >= generation)
    return time.monotonic() - began
