"""The operator is killed at every fault point, and everything ends as if it had not been."""

import ast
import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.runtime import kube as kube_module
from finetune_operator.runtime.kube import Kube, Resource
from finetune_operator.runtime.settings import Settings
from tests.chaos.conftest import fault_of
from tests.chaos.lives import LIVES
from tests.chaos.operators import ROOT
from tests.chaos.picture import difference
from tests.chaos.points import FAULTS, POINTS
from tests.chaos.site import make_connection
from tests.chaos.walk import Fault, Told, walk
from tests.cluster.cluster import Cluster

AT_ONCE = 12
"""Walks beside each other: most of their time they wait for Kubernetes' own controllers."""

Walks = dict[Fault | str, Told]


@pytest.fixture(scope="module")
def walks(cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Walks:
    """Every walk that the selected tests ask for, and each life once undisturbed."""
    asked = [fault for item in request.session.items if (fault := fault_of(item))]
    return asyncio.run(_walk_all(cluster, [*LIVES, *asked], tmp_path_factory.mktemp("walks")))


async def _walk_all(cluster: Cluster, wanted: list[Fault | str], folder: Path) -> Walks:
    numbers = itertools.count()
    places = asyncio.Semaphore(AT_ONCE)

    async def one(kube: Kube, what: Fault | str) -> Told:
        life, fault = (what.life, what) if isinstance(what, Fault) else (what, None)
        async with places:
            own = folder / f"{life.replace('_', '-')}-{next(numbers)}"
            own.mkdir()
            return await walk(kube, cluster.kubeconfig, own, life, fault)

    async with Kube.connect(Settings(kubeconfig=cluster.kubeconfig)) as kube:
        await make_connection(kube)
        # Connections belong to no namespace: another operator would write the status as well.
        alone = [what for what in wanted if "is_connected" in str(what)]
        told = {what: await one(kube, what) for what in alone}
        others = [what for what in wanted if what not in told]
        return told | dict(zip(others, await asyncio.gather(*(one(kube, what) for what in others)), strict=True))


@pytest.mark.parametrize("life", LIVES)
def test_a_life_that_nobody_disturbs_comes_to_every_fault_point(walks: Walks, life: str) -> None:
    told = walks[life]
    assert not told.error
    assert set(POINTS[life]) <= set(told.points)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_killed_operator_changes_nothing_of_the_end(walks: Walks, fault: Fault) -> None:
    told = walks[fault]
    assert not told.error
    assert told.killed, f"the walk never came to {fault.point}: {told.points}"
    assert not difference(walks[fault.life].picture, told.picture)
    doubled = {name: times for name, times in told.created.items() if times > 1 and not name.startswith("events/")}
    assert not doubled, "made again after it was gone"


def test_undisturbed_lives_make_every_kind_of_write_that_the_code_has(walks: Walks) -> None:
    made = {" ".join(point.split()[:2]) for life in LIVES for point in walks[life].points}
    assert made == set(writes_in_the_code())


def test_the_fault_points_are_the_writes_that_the_code_makes() -> None:
    named = {" ".join(point.split()[:2]) for points in POINTS.values() for point in points}
    assert named == set(writes_in_the_code())


PORT = {
    "create": "create",
    "apply": "apply",
    "patch_status": "patch_status",
    "merge_patch": "patch",
    "delete": "delete",
}
"""Methods of Kube that change something, and the verb that they send."""

WRAPPERS = {"write_status": "patch_status", "_ensure": "apply"}
"""Methods of ours that hand a resource on to one of them."""


def writes_in_the_code() -> Iterator[str]:
    """Verb and resource of every call of the port in the operator's code."""
    for path in sorted((ROOT / "operator/finetune_operator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                verb = (PORT if _is_port(node.func.value) else WRAPPERS).get(node.func.attr)
                resource = getattr(kube_module, getattr(node.args[0], "id", ""), None)
                if verb and isinstance(resource, Resource):
                    yield f"{verb} {resource.plural}"


def _is_port(value: ast.expr) -> bool:
    return ast.unparse(value).rpartition(".")[2].lstrip("_") in {"kube", "guarded"}
