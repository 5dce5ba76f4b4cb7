"""An LRU cache: recently used values, up to a limit. Reads no clock."""

from collections import OrderedDict
from collections.abc import Callable, ItemsView
from typing import Generic, TypeVar

V = TypeVar("V")


class LRUCache(Generic[V]):
    """The most recently used values.

    Args:
        limit: the maximum number of values.
        is_spent: whether a value has expired; such values are dropped once they are the oldest.
    """

    def __init__(self, limit: int, is_spent: Callable[[V], bool] = lambda _: False) -> None:
        self._limit = limit
        self._is_spent = is_spent
        self._values: OrderedDict[str, V] = OrderedDict()

    def get(self, key: str) -> V | None:
        """The value; getting it counts as use."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: str, value: V) -> V:
        """Keeps the value; drops the least recently used ones if there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._limit or self._oldest_is_spent(but=key):
            self._values.popitem(last=False)
        return value

    def items(self) -> ItemsView[str, V]:
        """All of them, the oldest first."""
        return self._values.items()

    def drop(self, key: str) -> None:
        """Forgets the value, if there is one."""
        self._values.pop(key, None)

    def _oldest_is_spent(self, but: str) -> bool:
        oldest = next(iter(self._values))
        return oldest != but and self._is_spent(self._values[oldest])

    def __len__(self) -> int:
        return len(self._values)
