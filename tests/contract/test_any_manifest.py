"""Whatever is applied is refused with the field's path, or comes to a condition; nothing of it breaks the operator."""

import itertools
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from kubernetes import config
from kubernetes.client import ApiException, CustomObjectsApi

from finetune_api.manifest import Manifest
from finetune_api.names import GROUP, VERSION
from tests.chaos import operators
from tests.cluster.ports import free_port
from tests.cluster.processes import wait_until
from tests.contract.any_manifest import manifests
from tests.contract.conftest import PLURALS, Server
from tests.contract.manifests import LOCAL, changed

pytestmark = pytest.mark.cluster

NAMESPACE = "anything"
FIELD = re.compile(r"\b(spec|metadata)\b[.\[:\"]|unknown field \"(spec|metadata)|<nil>: Invalid value")
RECONCILES = re.compile(r'^finetune_reconciles_total\{kind="\w+",outcome="(\w+)"\} (\S+)', re.MULTILINE)
SECONDS = 20.0
WATCHED_SECONDS = 3.0


@dataclass
class Operator:
    """The operator's process, seen through its metrics."""

    address: str
    log: Path

    def reconciles(self) -> dict[str, float]:
        """How many reconciles ended how."""
        with urllib.request.urlopen(self.address, timeout=30) as answer:
            found = RECONCILES.findall(answer.read().decode())
        totals: dict[str, float] = {}
        for outcome, number in found:
            totals[outcome] = totals.get(outcome, 0) + float(number)
        return totals

    def answers(self) -> bool:
        try:
            return bool(self.reconciles())
        except OSError:
            return False


@pytest.fixture(scope="module")
def operator(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    server.store({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    server.store(LOCAL)
    port = free_port()
    log = tmp_path_factory.mktemp("operator") / "log"
    chosen = operators.environment(NAMESPACE, server.cluster.kubeconfig, probe_port=port)
    process = operators.fork(chosen, log)
    running = Operator(f"http://127.0.0.1:{port}/metrics", log)
    try:
        wait_until(running.answers, f"the first reconcile (log: {log})", timeout=120)
        yield running
    finally:
        process.send(signal.SIGKILL)
        server.kubectl("delete", "llmconnection", "local")  # the server is other tests' too, which would delete all,
        Store(server).empty()  # one by one


class Store:
    """What is applied for real, and what becomes of it."""

    def __init__(self, server: Server) -> None:
        self._objects = CustomObjectsApi(config.new_client_from_config(str(server.cluster.kubeconfig)))
        self._numbers = itertools.count()
        self.kept = 0

    def place(self, manifest: Manifest) -> dict[str, str]:
        place = {"group": GROUP, "version": VERSION, "plural": PLURALS[manifest["kind"]]}
        return place | ({"namespace": NAMESPACE} if manifest["kind"] != "LLMConnection" else {})

    def apply(self, manifest: Manifest) -> Manifest | ApiException:
        """The object as it is stored, or the refusal."""
        place = self.place(manifest)
        make = "create_namespaced_custom_object" if "namespace" in place else "create_cluster_custom_object"
        try:
            made: Manifest = getattr(self._objects, make)(**place, body=manifest, field_validation="Strict")
        except ApiException as refusal:
            return refusal
        return made

    def status(self, made: Manifest) -> Manifest:
        place, name = self.place(made), made["metadata"]["name"]
        look = "get_namespaced_custom_object" if "namespace" in place else "get_cluster_custom_object"
        status: Manifest = getattr(self._objects, look)(**place, name=name).get("status", {})
        return status

    def delete(self, made: Manifest) -> None:
        place, name = self.place(made), made["metadata"]["name"]
        remove = "delete_namespaced_custom_object" if "namespace" in place else "delete_cluster_custom_object"
        getattr(self._objects, remove)(**place, name=name)

    def empty(self) -> None:
        """Delete whatever is in the namespace; no operator is there any more who would let go of what is held."""
        for kind in ("ftj", "ftm", "md"):
            there = {"group": GROUP, "version": VERSION, "namespace": NAMESPACE, "plural": PLURALS[kind]}
            self._objects.delete_collection_namespaced_custom_object(**there)
            for held in self._objects.list_namespaced_custom_object(**there)["items"]:
                free = {"metadata": {"finalizers": None}}
                self._objects.patch_namespaced_custom_object(**there, name=held["metadata"]["name"], body=free)

    def named(self, manifest: Manifest) -> tuple[Manifest, bool]:
        """A manifest of the namespace; one without an odd name gets its own, and stays when it is taken."""
        if manifest["kind"] != "LLMConnection":
            manifest = changed(manifest, "metadata.namespace", NAMESPACE)
        if manifest["metadata"]["name"] in {"local", "sentiment", "sentiment-1"}:
            return changed(manifest, "metadata.name", f"n{next(self._numbers)}"), manifest["kind"] != "LLMConnection"
        return manifest, False


@pytest.fixture(scope="module")
def store(server: Server) -> Store:
    return Store(server)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(manifests())
def test_a_manifest_is_refused_with_its_field_or_comes_to_a_condition(
    operator: Operator, store: Store, manifest: Manifest
) -> None:
    manifest, stays = store.named(manifest)
    made = store.apply(manifest)
    if isinstance(made, ApiException):
        assert made.status in {400, 422}, made.body
        assert FIELD.search(made.body), made.body
        return
    try:
        wait_until(lambda: _told(store.status(made), made), f"a condition of {manifest}", timeout=SECONDS)
    finally:
        if not stays:
            store.delete(made)
    store.kept += stays
    assert not {"error", "timeout"} & set(operator.reconciles()), f"{manifest}; {operator.log}"


def _told(status: Manifest, made: Manifest) -> bool:
    known = {condition["type"] for condition in status.get("conditions") or ()}
    return status.get("observedGeneration") == made["metadata"]["generation"] and {"Ready", "Stalled"} <= known


def test_none_of_them_is_looked_at_over_and_over(operator: Operator, store: Store) -> None:
    assert store.kept > 20, "the test before has left nothing to look at"
    before = sum(operator.reconciles().values())
    time.sleep(WATCHED_SECONDS)  # nothing to wait for: it is looked whether nothing happens
    assert sum(operator.reconciles().values()) - before < store.kept
