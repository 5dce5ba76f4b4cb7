"""Passes pieces from the engine's thread to the event loop of the request that waits for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial

from finetune_trainer.serving.api_errors import generation_failed
from finetune_trainer.serving.asks import Ask, Piece, joined


class Relay:
    """Receives the generations of one request. Create it on the event loop."""

    def __init__(self, asks: Sequence[Ask]) -> None:
        self._loop = asyncio.get_running_loop()
        self._received: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._started = time.perf_counter()
        self.first_token_seconds: float | None = None
        """Time to the first piece; None before it."""
        self.tokens = [0] * len(asks)
        """Tokens generated so far, by generation."""
        self.asks = [replace(ask, tell=partial(self._send, index)) for index, ask in enumerate(asks)]

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces as they arrive, with the index of their generation, until all generations have ended.

        Raises:
            ApiError: 500, the model failed.
        """
        left = len(self.asks)
        while left:
            index, piece = await self._received.get()
            if self.first_token_seconds is None:
                self.first_token_seconds = time.perf_counter() - self._started
            if piece.failed:
                raise generation_failed()
            self.tokens[index] = piece.tokens
            left -= piece.is_last
            yield index, piece

    async def answers(self) -> list[Piece]:
        """The complete answers, one piece each.

        Raises:
            ApiError: 500, the model failed.
        """
        whole: list[list[Piece]] = [[] for _ in self.asks]
        async for index, piece in self.pieces():
            whole[index].append(piece)
        return [joined(pieces) for pieces in whole]

    def cancel(self) -> None:
        """Cancel unfinished generations, since nobody waits for them."""
        for ask in self.asks:
            ask.cancelled = True

    def _send(self, index: int, piece: Piece) -> None:
        self._loop.call_soon_threadsafe(self._received.put_nowait, (index, piece))
