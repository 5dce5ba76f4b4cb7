"""Failed requests to stores are retried without pauses."""

import asyncio

import pytest

from finetune_trainer.storage import patience


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """No pauses between tries."""
    monkeypatch.setattr(patience.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(asyncio, "sleep", _no_sleep)


async def _no_sleep(_seconds):
    await _yield(0)


_yield = asyncio.sleep
