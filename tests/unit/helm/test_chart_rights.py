"""The operator's rights are the API calls that its code makes: not one less, and not one more."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.manifest import Manifest
from finetune_operator.reconcilers.watched.observed import WATCHED
from finetune_operator.runtime import kube
from finetune_operator.runtime.kube import OWN_KINDS, Resource
from tests.unit.helm.charts import ROOT, of_kind, only, render

pytestmark = pytest.mark.cluster

Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""

VERBS = {
    "get": ("get",),
    "list": ("list",),
    "pages": ("list",),
    "create": ("create",),
    "create_once": ("create", "get"),
    "apply": ("create", "patch"),
    "merge_patch": ("patch",),
    "delete": ("delete",),
    "add_finalizer": ("patch",),
    "remove_finalizer": ("patch",),
}
"""Verbs of RBAC behind the methods of the API port, and of the context that names no resource itself."""


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call of a method of the API port, with the method's name."""
    for path in sorted((ROOT / "operator/finetune_operator").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in VERBS:
                owner = ast.unparse(node.func.value)
                if owner.rpartition(".")[2] in {"kube", "_kube", "_guarded", "_context"}:
                    yield path, node, node.func.attr


def named_by_calls() -> set[Right]:
    """What calls that name their resource need."""
    found: set[Right] = set()
    for _, node, method in calls():
        resource = getattr(kube, ast.unparse(node.args[0]), None)
        if isinstance(resource, Resource):
            found |= rights(resource, *VERBS[method])
    return found


def rights(resource: Resource, *verbs: str, subresource: str = "") -> set[Right]:
    return {(resource.group, resource.plural + subresource, verb) for verb in verbs}


def of_generic_code() -> set[Right]:
    """What code needs that works for several resources."""
    found: set[Right] = set()
    for resource in WATCHED:
        found |= rights(resource, "list", "watch")  # handlers: kopf watches, the resync lists
    for resource in OWN_KINDS:
        found |= rights(resource, "get")  # reconcilers: Context.read
        found |= rights(resource, "patch", subresource="/status")  # reconcilers: Context.write_status
        if resource.namespaced:
            found |= rights(resource, "update", subresource="/finalizers")  # owner references that block deletion
    found |= rights(kube.NAMESPACES, "get")  # reconcilers: Context.refresh
    for resource in (kube.DEPLOYMENTS, kube.SERVICES, kube.DISRUPTION_BUDGETS, kube.MODEL_DEPLOYMENTS):
        found |= rights(resource, "get", *VERBS["apply"], *VERBS["merge_patch"])  # reconcilers: Children.ensure
    found |= rights(kube.PODS, "get", subresource="/log")  # Kube.pod_log_tail
    return found | rights(kube.TOKEN_REVIEWS, "create")  # Kube.review_token


def granted(roles: list[Manifest]) -> set[Right]:
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operator_has_the_rights_that_its_code_uses_and_no_others() -> None:
    manifests = render({}, "finetune-operator")
    operators = [
        role
        for role in of_kind(manifests, "ClusterRole")
        if role["metadata"]["name"].endswith(("-cluster", "-namespaced"))
    ]
    given = granted([*operators, only(manifests, "Role")])
    used = named_by_calls() | of_generic_code()
    assert sorted(given - used) == [], "granted and not used"
    assert sorted(used - given) == [], "used and not granted"


def test_the_code_is_read_right() -> None:
    """A test that finds no calls would find no missing rights either."""
    assert {("batch", "jobs", "delete"), ("coordination.k8s.io", "leases", "patch"), ("", "secrets", "get")} <= (
        named_by_calls()
    )


def test_calls_for_resources_in_variables_are_those_that_are_listed_here() -> None:
    """A new generic call needs a row in `of_generic_code`."""
    generic = {
        (str(path.relative_to(ROOT / "operator/finetune_operator")), method)
        for path, node, method in calls()
        if not isinstance(getattr(kube, ast.unparse(node.args[0]), None), Resource)
    }
    assert generic == {
        ("handlers/observer.py", "pages"),
        ("reconcilers/children.py", "apply"),
        ("reconcilers/children.py", "get"),
        ("reconcilers/children.py", "merge_patch"),
        ("reconcilers/context.py", "get"),
        ("reconcilers/context.py", "merge_patch"),
    }
