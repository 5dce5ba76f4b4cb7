"""What the whole run leaves behind, once everything else of this folder has happened: rights, secrets, data."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.e2e.site import DATA_CANARY, SECRET_CANARY
from tests.e2e.written import written
from tests.lives.clouds import CANARIES

OPERATOR = "system:serviceaccount:finetune-system:finetune-operator"
ROLES = ("clusterrole/finetune-operator-cluster", "clusterrole/finetune-operator-namespaced",
         "-n", "finetune-system", "role/finetune-operator-own")  # fmt: skip

Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""

OWN = ("finetunejobs", "finetunedmodels", "modeldeployments")
UNSEEN: dict[Right, str] = {
    **{("finetune.dev", f"{kind}/finalizers", "update"): "looked up at admission, never asked for" for kind in OWN},
    **{("finetune.dev", kind, "get"): "where the watch is behind" for kind in (*OWN, "llmconnections")},
    ("", "namespaces", "get"): "where the watch is behind",
    ("", "services", "get"): "where the watch is behind",
    ("apps", "deployments", "get"): "where the watch is behind",
    ("jobset.x-k8s.io", "jobsets", "get"): "while JobSet has made no Job yet",
    ("jobset.x-k8s.io", "jobsets", "delete"): "of suspended jobs: tests/chaos has one on several nodes",
    ("", "pods/log", "get"): "of trainers that die without a word: tests/chaos has one",
    ("", "secrets", "patch"): "of certificates that are broken or end: tests/chaos has one",
    ("events.k8s.io", "events", "list"): "where a Job's pods cannot be made: tests/unit has a quota",
    **{
        ("policy", "poddisruptionbudgets", verb): "of servers with several replicas: tests/chaos has one"
        for verb in ("get", "create", "patch")
    },
    ("batch", "jobs", "get"): "where a Job of this name is refused as one that is there",
}
"""Rights that the API server's log cannot show, or that a run does not use each time: why, and what uses them."""


@pytest.fixture(scope="module", autouse=True)
def everything_ran(request: pytest.FixtureRequest) -> None:
    """One file alone says nothing about rights that another one uses."""
    collected = {item.path.name for item in request.session.items if item.path.parent == Path(__file__).parent}
    missing = {path.name for path in Path(__file__).parent.glob("test_*.py")} - collected
    if missing:
        pytest.skip(f"looks back on the whole of tests/e2e; this run leaves out {', '.join(sorted(missing))}")


def granted(cluster: Cluster) -> set[Right]:
    roles = cluster.get(*ROLES)["items"]
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


def used(cluster: Cluster) -> Iterator[Right]:
    """Rights behind the operator's requests; an apply that made its object needed `create` besides."""
    for entry in cluster.audit.requests(OPERATOR):
        if "objectRef" not in entry:
            continue  # the API's own discovery, which everybody may read
        target = entry["objectRef"]
        resource = target["resource"] + (f"/{target['subresource']}" if "subresource" in target else "")
        yield target.get("apiGroup", ""), resource, entry["verb"]
        if entry["verb"] == "patch" and entry.get("responseStatus", {}).get("code") == 201:
            yield target.get("apiGroup", ""), resource, "create"


def test_the_api_server_refused_the_operator_nothing(operator: Cluster) -> None:
    entries = list(operator.audit.requests(OPERATOR))
    refused = [entry for entry in entries if entry.get("responseStatus", {}).get("code") in {401, 403}]
    # Of a namespace that its owners delete it may hear later than the API server; that is no matter of rights.
    refused = [entry for entry in refused if "is being terminated" not in entry["responseStatus"].get("message", "")]
    assert len(entries) > 1000
    assert [(entry["verb"], entry["requestURI"]) for entry in refused] == []


def test_every_right_of_the_operator_was_used(operator: Cluster) -> None:
    given = granted(operator)
    assert sorted(given - set(used(operator)) - UNSEEN.keys()) == []


def test_no_pod_of_a_team_asked_the_api_server_for_anything(operator: Cluster) -> None:
    entries = operator.audit.requests("system:serviceaccount:")
    assert {entry["user"]["username"] for entry in entries} == {OPERATOR}


@pytest.mark.parametrize("canary", [SECRET_CANARY, DATA_CANARY, *CANARIES])
def test_neither_a_secret_nor_a_row_of_data_got_out(operator: Cluster, canary: str) -> None:
    found: list[tuple[str, Any]] = [(place, text[:400]) for place, text in written(operator) if canary in text]
    assert found == []
