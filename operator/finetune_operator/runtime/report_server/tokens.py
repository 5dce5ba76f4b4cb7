"""Authenticates senders of reports: bearer tokens are reviewed by the API server, with a short cache and a rate limit.

Tokens are stored only as hashes and never logged. This says who a token belongs to, not what its owner may do.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from finetune_operator.runtime import metrics
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.token_bucket import TokenBuckets
from finetune_operator.runtime.uptime import Clock

VALID_SECONDS = 60.0
INVALID_SECONDS = 10.0
REMEMBERED = 4096
UNKNOWN_PER_SECOND = 2.0  # tokens that are not in the cache, per address
UNKNOWN_AT_ONCE = 10.0
_MAX_LENGTH = 7 * 1024
_JWT = re.compile(r"[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}")


class TooManyUnknownTokens(Exception):
    """One address sends new tokens faster than the rate limit of reviews allows."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many unknown tokens")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class _Verdict:
    identity: TokenIdentity | None
    until: float


class TokenReviewer:
    """Finds the owners of tokens.

    Args:
        review: asks the API server, for example Kube.review_token.
        audience: the audience that tokens must have.
    """

    def __init__(
        self,
        review: Callable[[str, str], Awaitable[TokenIdentity | None]],
        audience: str,
        clock: Clock,
    ) -> None:
        self._review = review
        self._audience = audience
        self._clock = clock
        self._verdicts: LRUCache[_Verdict] = LRUCache(REMEMBERED, lambda verdict: verdict.until <= clock())
        self._addresses = TokenBuckets(UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE, clock, REMEMBERED)
        self._asking: dict[str, asyncio.Future[TokenIdentity | None]] = {}

    async def identify(self, token: str, address: str) -> TokenIdentity | None:
        """The owner of the token, or None if it is not valid for the audience.

        Raises:
            TooManyUnknownTokens: `address` has to wait.
            KubeError: the API server could not be asked.
        """
        if len(token) > _MAX_LENGTH or not _JWT.fullmatch(token):
            metrics.TOKEN_REVIEWS.labels("malformed").inc()
            return None
        digest = hashlib.sha256(token.encode()).hexdigest()
        known = self._verdicts.get(digest)
        if known is not None and self._clock() < known.until:
            metrics.TOKEN_REVIEWS.labels("cached").inc()
            return known.identity
        if digest not in self._asking:
            # A recently valid token is not limited: behind a proxy all pods may have one address.
            if known is None or known.identity is None:
                self._throttle(address)
            self._asking[digest] = asyncio.ensure_future(self._ask(token, digest))
        # Shielded: one client that disconnects must not cancel the review for the others.
        return await asyncio.shield(self._asking[digest])

    async def _ask(self, token: str, digest: str) -> TokenIdentity | None:
        try:
            identity = await self._review(token, self._audience)
        finally:
            del self._asking[digest]
        seconds = INVALID_SECONDS if identity is None else VALID_SECONDS
        self._verdicts.put(digest, _Verdict(identity, self._clock() + seconds))
        metrics.TOKEN_REVIEWS.labels("invalid" if identity is None else "valid").inc()
        return identity

    def _throttle(self, address: str) -> None:
        wait = self._addresses.take(address)
        if wait > 0:
            metrics.TOKEN_REVIEWS.labels("throttled").inc()
            raise TooManyUnknownTokens(wait)
