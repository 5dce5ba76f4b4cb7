"""A provider whose lists and reads sometimes miss objects, as with eventual consistency."""

from collections import Counter
from collections.abc import Callable

import orjson

from tests.simulators.http import ApiError, Reply
from tests.simulators.simulator import Simulator

FIGURES = "metrics.list"
"""A list only by name: it aggregates requests, and so has no objects that a replica could lack."""


class Flapping:
    """Sits between a provider and its clients: every so many calls a list is empty, or a read misses."""

    def __init__(self, simulator: Simulator, every: int, first: int, *, reads: bool) -> None:
        self.simulator, self.every, self.first, self.reads = simulator, every, first, reads
        self.calls = Counter[str]()
        self.made: set[str] = set()
        """Names of all deployments so far."""

    async def __call__(self, operation: str, carry_out: Callable[[], Reply]) -> Reply:
        """See simulators.http.Meddle."""
        return self.changed(operation, carry_out())

    def changed(self, operation: str, reply: Reply) -> Reply:
        """The reply, or its replacement."""
        word = operation.rpartition(".")[2]
        self.made |= set(standing(self.simulator))
        lists = is_list(operation)
        read = self.reads and (word.startswith(("Get", "Describe")) or word in {"get", "retrieve"})
        if reply.status != 200 or not (lists or read) or operation == FIGURES:
            return reply
        self.calls[operation] += 1
        if (self.calls[operation] + self.first) % self.every:
            return reply
        if read:
            return self.simulator.error(_missing(operation), operation)
        return without_rows(reply)


class Late:
    """A provider whose lists of deployments are empty before a certain time."""

    def __init__(self, simulator: Simulator, until: float) -> None:
        self.simulator, self.until = simulator, until

    async def __call__(self, operation: str, carry_out: Callable[[], Reply]) -> Reply:
        """See simulators.http.Meddle."""
        reply = carry_out()
        serves = any(word in operation for word in ("eployments", "Throughputs", "Endpoints"))
        hides = is_list(operation) and serves and self.simulator.clock.now < self.until
        return without_rows(reply) if hides and reply.status == 200 else reply


def is_list(operation: str) -> bool:
    """Whether an operation lists things."""
    word = operation.rpartition(".")[2]
    return word.startswith("List") or word == "list"


def without_rows(reply: Reply) -> Reply:
    """An empty list."""
    assert isinstance(reply.body, bytes)
    body = orjson.loads(reply.body)
    return Reply.json({key: [] if isinstance(value, list) else value for key, value in body.items()})


def _missing(operation: str) -> ApiError:
    """Each provider's own error for a missing object; SageMaker has no code for it."""
    if operation.startswith("Describe"):
        return ApiError(400, "ValidationException", "Could not find what was asked for.")
    code = "ResourceNotFoundException" if operation.startswith("Get") else "ResourceNotFound"
    return ApiError(404, code, "What was asked for was not found.")


def standing(provider: Simulator) -> list[str]:
    """A provider's deployments."""
    return [one.name for one in provider.left() if one.kind in {"deployment", "throughput", "endpoint"}]
