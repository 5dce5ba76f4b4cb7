"""Jobs that somebody has made elsewhere, in states that nobody knows, or that wait for somebody: said, and followed."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.simulators.conftest import s3_endpoint, start
from tests.simulators.http import Reply
from tests.unit.finetune_operator.reconcilers.at_providers import At, at
from tests.unit.finetune_operator.reconcilers.at_providers import at_work as cluster
from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster, go_on
from tests.unit.finetune_operator.reconcilers.test_adopted_ends import ADOPTED, adopt

__all__ = ["at", "cluster", "s3_endpoint", "start"]

FIELDS = frozenset({"status", "TrainingJobStatus"})


class Says:
    """A provider that has one word for the state of all jobs."""

    def __init__(self, word: str) -> None:
        self.word: str | None = word

    async def __call__(self, operation: str, carry_out: Callable[[], Reply]) -> Reply:
        """See simulators.http.Meddle."""
        reply = carry_out()
        if self.word is None or "job" not in operation.casefold() or reply.status != 200:
            return reply
        assert isinstance(reply.body, bytes)
        return Reply(reply.status, orjson.dumps(self._changed(orjson.loads(reply.body))), reply.headers)

    def _changed(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._changed(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {key: self.word if key in FIELDS else self._changed(inner) for key, inner in value.items()}


WORDS = {"paused": "paused", "Quantum": "'Quantum'", "x" * 300: f"{'x' * 64}'", "\x1b[31mred": "red'", "": ""}


@pytest.mark.alike
@pytest.mark.parametrize("word", WORDS)
async def test_they_are_followed_under_the_providers_own_word_and_to_their_end(
    at: At, cluster: CloudCluster, word: str
) -> None:
    cluster.provider.meddle = says = Says(word)
    await adopt(at, cluster)
    await go_on(cluster, 180)
    phase, said = cluster.status(ADOPTED)["phase"], cluster.condition("Reconciling", ADOPTED)["message"]
    assert phase in {"Queued", "Running"}
    assert WORDS[word].casefold() in said.casefold(), said
    assert "\x1b" not in said
    says.word = None
    await go_on(cluster, 14400, step=1800)
    assert (cluster.status(ADOPTED)["phase"], cluster.provider.count(at.create)) == ("Succeeded", 1)
