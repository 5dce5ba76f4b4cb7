"""One control plane for all chaos tests: API server and controller manager, no scheduler and no nodes."""

import os
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest

from tests.chaos.operators import ROOT
from tests.chaos.stage import AT_ONCE, MANY_AT_ONCE, Outcomes, performed, selected
from tests.cluster import job_set
from tests.cluster.cluster import Cluster

FOLDER = "tests/chaos/"
Outcome = Callable[[Hashable], Any]
"""The result of a play of the test's module; raises its exception."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All tests of this folder need the control plane; slow ones run only if requested."""
    here = [item for item in items if item.nodeid.startswith(FOLDER)]
    for item in here:
        item.add_marker(pytest.mark.cluster)
    slow = {item for item in here if item.get_closest_marker("slow") and not config.getoption("every_fault")}
    config.hook.pytest_deselected(items=list(slow))
    items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """A control plane on which Jobs create pods that are never scheduled: tests act as nodes."""
    with Cluster(f"chaos-{os.getpid()}", nodes=0) as made:
        made.kill("kube-scheduler", "dns")
        made.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        made.wait_for_definitions()
        job_set.install(made)
        yield made


@pytest.fixture(scope="package")
def outcomes(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    """The results of all plays."""
    at_once = MANY_AT_ONCE if request.config.getoption("every_fault") else AT_ONCE
    with performed(cluster, selected(request.session.items), tmp_path_factory.mktemp("chaos"), at_once) as outcomes:
        yield outcomes


@pytest.fixture
def outcome(outcomes: Outcomes, request: pytest.FixtureRequest) -> Outcome:
    """Waits for a play of the test's own module, and returns its result."""
    return lambda key: outcomes[request.module.__name__, key].result()
