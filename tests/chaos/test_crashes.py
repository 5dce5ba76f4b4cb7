"""The operator is killed at every fault point, and everything ends as if it had not been."""

import ast
from collections.abc import Iterable, Iterator

import pytest

from finetune_operator.runtime import kube as kube_module
from finetune_operator.runtime.kube import Resource
from tests.chaos import cloud_points
from tests.chaos.conftest import Outcome
from tests.chaos.lives import LIVES
from tests.chaos.operator_code import TREES
from tests.chaos.picture import assert_same
from tests.chaos.points import FAULTS, POINTS, QUICK
from tests.chaos.stage import Play, Plays, Stage
from tests.chaos.walk import Fault, Told, walk

slow = pytest.mark.slow


def walks(life: str, fault: Fault | None = None) -> Play:
    async def play(stage: Stage) -> Told:
        return await walk(stage, life, fault)

    return play


PLAYS = Plays(
    beside={life: walks(life) for life in LIVES} | {fault: walks(fault.life, fault) for fault in FAULTS},
    always=tuple(LIVES),
)


@pytest.mark.parametrize("life", LIVES)
def test_a_life_that_nobody_disturbs_comes_to_every_fault_point(outcome: Outcome, life: str) -> None:
    assert set(POINTS[life]) <= set(outcome(life).points)


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=str(fault), marks=() if fault in QUICK else slow) for fault in FAULTS]
)
def test_a_killed_operator_changes_nothing_of_the_end(outcome: Outcome, fault: Fault) -> None:
    told = outcome(fault)
    assert told.killed, f"the walk never came to {fault.point}: {told.points}"
    assert_same(outcome(fault.life).picture, told.picture)
    assert not told.made_again


def test_undisturbed_lives_make_every_kind_of_write_that_the_code_has(outcome: Outcome) -> None:
    made = writes(point for life in LIVES for point in outcome(life).points)
    assert made | FOR_PROVIDERS == set(writes_in_the_code())


def test_the_fault_points_are_the_writes_that_the_code_makes() -> None:
    named = writes(point for points in POINTS.values() for point in points)
    assert named | FOR_PROVIDERS == set(writes_in_the_code())


def writes(points: Iterable[str]) -> set[str]:
    """Verb and resource of those that are writes of the API server's objects."""
    return {" ".join(point.split()[:2]) for point in points if " " in point}


FOR_PROVIDERS = writes(point for points in cloud_points.POINTS.values() for point in points)
"""Finalizers, and the deletion of what they hold: lives at providers come to them."""

PORT = {
    "create": "create",
    "create_once": "create",
    "apply": "apply",
    "patch_status": "patch_status",
    "merge_patch": "patch",
    "delete": "delete",
}
"""Methods of Kube that change something, and the verb that they send."""

WRAPPERS = {"write_status": "patch_status", "ensure": "apply", "add_finalizer": "patch", "remove_finalizer": "patch"}
"""Methods of ours that hand a resource on to one of them."""


def writes_in_the_code() -> Iterator[str]:
    """Verb and resource of every call of the port in the operator's code."""
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                verb = (PORT if _is_port(node.func.value) else WRAPPERS).get(node.func.attr)
                resource = getattr(kube_module, getattr(node.args[0], "id", ""), None)
                if verb and isinstance(resource, Resource):
                    yield f"{verb} {resource.plural}"


def _is_port(value: ast.expr) -> bool:
    return ast.unparse(value).rpartition(".")[2].lstrip("_") in {"kube", "guarded"}
