"""A simulator per test, and the check that it sent nothing that its provider's SDK does not know."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.simulators.aws.moto import moto
from tests.simulators.aws.sdk import aws
from tests.simulators.server import serve
from tests.simulators.simulator import Simulator

STANDING = ExitStack()
"""Servers that live as long as the process."""


@cache
def _store() -> str:
    """One S3 for all modules: the fixture exists once per importing module, and each would start a server."""
    return STANDING.enter_context(moto())


@pytest.fixture(scope="session")
def s3_endpoint() -> str:
    """Moto's S3."""
    return _store()


@pytest.fixture
def empty_bucket(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """Of this test alone."""
    name: str = request.node.name.partition("[")[0].replace("_", "-")[:60].strip("-")
    aws("s3", s3_endpoint).create_bucket(Bucket=name)
    return name


@pytest.fixture
def start() -> Iterator[Callable[[Simulator], str]]:
    """Starts simulators, gives their addresses, and ends them."""
    with ExitStack() as stack:
        started: list[Simulator] = []

        def run(simulator: Simulator) -> str:
            started.append(simulator)
            return stack.enter_context(serve(simulator))

        yield run
        assert [defect for simulator in started for defect in simulator.defects] == []
