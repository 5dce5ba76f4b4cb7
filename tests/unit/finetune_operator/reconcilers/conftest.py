"""Closes a test's clusters at its end, since clients of providers keep connections open."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.finetune_operator.reconcilers.cloud import CloudCluster


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    while CloudCluster.made:
        await CloudCluster.made.pop().aclose()
