"""A simulator per test, and the check that it never sent what its provider's SDK does not know."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.simulators.aws.moto import moto
from tests.simulators.aws.sdk import aws
from tests.simulators.server import serve
from tests.simulators.simulator import Simulator


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Moto's S3."""
    with moto() as url:
        yield url


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
