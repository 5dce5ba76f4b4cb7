"""Token buckets: how often something may happen. Pure arithmetic over a clock; waits for nothing itself."""

from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.uptime import Clock


class TokenBucket:
    """At most `burst` at once, and `rate` per second in the long run.

    Args:
        rate: tokens that come back per second.
        burst: tokens that a full bucket holds.
    """

    __slots__ = ("_at", "_burst", "_clock", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, clock: Clock) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a token bucket needs a rate above 0 and a burst of at least 1")
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> float:
        """Takes a token if there is one. Returns 0.0, or the seconds until there will be one."""
        self._refill()
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate

    def reserve(self) -> float:
        """Takes a token in any case, on credit if there is none. Returns the seconds to wait before using it."""
        self._refill()
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def is_full(self) -> bool:
        """Whether it is in the same state as a new one."""
        self._refill()
        return self._tokens >= self._burst

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now


class TokenBuckets:
    """A bucket for each name. A full one is dropped, as it equals a new one.

    Args:
        rate: as for a TokenBucket, like the next two.
        burst: tokens.
        names: the maximum number of buckets.
    """

    def __init__(self, rate: float, burst: float, clock: Clock, names: int) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: LRUCache[TokenBucket] = LRUCache(names, TokenBucket.is_full)

    def take(self, name: str) -> float:
        """Takes one of this name's tokens if there is one. Returns 0.0, or the seconds until there will be one."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets.put(name, TokenBucket(self._rate, self._burst, self._clock))
        return bucket.take()
