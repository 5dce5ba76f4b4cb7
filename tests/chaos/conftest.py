"""One control plane for all chaos: API server and controller manager, no scheduler and no nodes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.operators import ROOT
from tests.chaos.points import QUICK
from tests.chaos.walk import Fault
from tests.cluster.cluster import Cluster

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All tests of this folder need the control plane; the long walks are for those who ask for them."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
    if not config.getoption("every_fault"):
        long = [item for item in items if fault_of(item) and fault_of(item) not in QUICK]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def fault_of(item: pytest.Item) -> Fault | None:
    """The fault that a test walks into."""
    fault: Fault | None = item.callspec.params.get("fault") if hasattr(item, "callspec") else None
    return fault


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane on which Jobs make pods that nobody places: tests play the nodes."""
    with Cluster(f"chaos-{os.getpid()}", nodes=0) as made:
        made.kill("kube-scheduler", "dns")
        made.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        made.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield made
