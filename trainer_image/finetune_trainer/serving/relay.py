"""Brings the engine's pieces, told on its thread, to the event loop of the request that waits for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from finetune_trainer.serving.api_errors import generation_failed
from finetune_trainer.serving.asks import Ask, FinishReason, Piece, Sampling


class Relay:
    """The generations of one request: one per prompt, in the order of the prompts. Made on the event loop."""

    def __init__(
        self,
        prompts: Sequence[tuple[int, ...]],
        max_tokens: Sequence[int],
        *,
        sampling: Sampling,
        stops: tuple[str, ...],
        continues_prompt: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._started = time.perf_counter()
        self.first_token_seconds: float | None = None
        """How long the first piece took; None before it."""
        self.tokens = [0] * len(prompts)
        """Tokens generated so far, by prompt."""
        self.asks = [
            Ask(
                prompt,
                limit,
                tell=lambda piece, index=index: self._tell(index, piece),  # type: ignore[misc] # mypy and default arguments
                sampling=sampling,
                stops=stops,
                continues_prompt=continues_prompt,
            )
            for index, (prompt, limit) in enumerate(zip(prompts, max_tokens, strict=True))
        ]

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces as they come, with the index of their prompt, until all generations have ended.

        Raises:
            ApiError: 500, the model failed.
        """
        left = len(self.asks)
        while left:
            index, piece = await self._heard.get()
            if self.first_token_seconds is None:
                self.first_token_seconds = time.perf_counter() - self._started
            if piece.failed:
                raise generation_failed()
            self.tokens[index] = piece.tokens
            left -= piece.is_last
            yield index, piece

    async def texts(self) -> list[tuple[str, FinishReason]]:
        """The whole answers.

        Raises:
            ApiError: 500, the model failed.
        """
        parts: list[list[str]] = [[] for _ in self.asks]
        finish: list[FinishReason] = ["stop"] * len(self.asks)
        async for index, piece in self.pieces():
            parts[index].append(piece.text)
            finish[index] = piece.finish or finish[index]
        return [("".join(some), reason) for some, reason in zip(parts, finish, strict=True)]

    def cancel(self) -> None:
        """Nobody waits any more: end what has not ended."""
        for ask in self.asks:
            ask.cancelled = True

    def _tell(self, index: int, piece: Piece) -> None:
        self._loop.call_soon_threadsafe(self._heard.put_nowait, (index, piece))
