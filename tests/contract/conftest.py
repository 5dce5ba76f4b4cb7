"""The real API server with our CRDs, for tests of what it accepts, refuses and shows."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import config
from kubernetes.client import ApiException, CustomObjectsApi

from finetune_api.base import ApiModel
from finetune_api.crds import KINDS
from finetune_api.manifest import Manifest
from finetune_api.names import GROUP, VERSION
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.contract import statuses
from tests.contract.manifests import DEPLOYMENT, JOB, LOCAL, MODEL

ROOT = Path(__file__).parents[2]
PLURALS = {name: kind.plural for kind in KINDS for name in (kind.kind, kind.kind.lower(), kind.short)}


class Server:
    """The tests' actions on the API server, with kubectl as users do."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._objects = CustomObjectsApi(config.new_client_from_config(str(cluster.kubeconfig)))
        self._plurals: dict[str, dict[str, str]] = {}

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(*arguments, stdin=stdin)

    def accept(self, manifest: Manifest) -> Manifest:
        """The object as the server would store it, with defaults; nothing is stored.

        The request is that of `kubectl create --dry-run=server`, without a process per row of a table.

        Raises:
            ApiException: the server refuses it.
        """
        version, namespace = manifest["apiVersion"], manifest["metadata"].get("namespace")
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        within = f"{root}/namespaces/{namespace}" if namespace else root
        api = self._objects.api_client
        request = api.param_serialize(
            "POST",
            f"{within}/{self._plural(root, manifest['kind'])}",
            query_params=[("dryRun", "All"), ("fieldValidation", "Strict")],
            header_params={"Content-Type": "application/json", "Accept": "application/json"},
            body=manifest,
            auth_settings=["BearerToken"],
        )
        answer = api.call_api(*request)
        answer.read()
        stored: Manifest = api.response_deserialize(answer, {"2XX": "object"}).data
        return stored

    def _plural(self, root: str, kind: str) -> str:
        """The plural of a kind: known for ours, read from the server for others."""
        if kind not in PLURALS and root not in self._plurals:
            listed = (self.cluster.read(root) or {})["resources"]
            self._plurals[root] = {one["kind"]: one["name"] for one in listed if "/" not in one["name"]}
        return PLURALS.get(kind) or self._plurals[root][kind]

    def put_whole(self, manifest: Manifest) -> Manifest:
        """Store an object and its status, as the operator does, return it as read back, and delete it."""
        place = {"group": GROUP, "version": VERSION, "plural": PLURALS[manifest["kind"]]}
        name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace")
        scope, where = ("namespaced", {"namespace": namespace}) if namespace else ("cluster", {})
        call = {verb: getattr(self._objects, f"{verb}_{scope}_custom_object") for verb in ("create", "get", "delete")}
        patch_status = getattr(self._objects, f"patch_{scope}_custom_object_status")
        call["create"](**place, **where, body=manifest, field_validation="Strict")
        try:
            body = {"status": manifest["status"]}
            patch_status(**place, **where, name=name, body=body, field_validation="Strict")
            found: Manifest = call["get"](**place, **where, name=name)
            return found
        finally:
            call["delete"](**place, **where, name=name)

    def refusal(self, manifest: Manifest) -> str:
        """The server's error for a manifest that it must refuse."""
        with pytest.raises(ApiException) as error:
            self.accept(manifest)
        return str(json.loads(error.value.body)["message"])

    def store(self, manifest: Manifest) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def get(self, *arguments: str) -> Manifest:
        return self.cluster.get(*arguments)

    def patch(
        self, kind: str, name: str, change: Manifest, *, status: bool = False, namespace: str = "default", **more: str
    ) -> None:
        """Merge a change into an object of ours, by its short name, as `kubectl patch` does, without its process.

        Raises:
            ClusterError: the server refuses it, with its message.
        """
        namespaced = kind != "llmc"
        where = {"namespace": namespace} if namespaced else {}
        verb = f"patch_{'namespaced' if namespaced else 'cluster'}_custom_object{'_status' if status else ''}"
        place = {"group": GROUP, "version": VERSION, "plural": PLURALS[kind]}
        try:
            getattr(self._objects, verb)(**place, **where, name=name, body=change, field_validation="Strict", **more)
        except ApiException as error:
            raise ClusterError(json.loads(error.body)["message"]) from error


@pytest.fixture(scope="package")
def bare_server() -> Iterator[Server]:
    """An API server for this test run, without our CRDs."""
    with Cluster(f"contract-{os.getpid()}", nodes=0, controllers=False) as cluster:
        yield Server(cluster)


@pytest.fixture(scope="package")
def server(bare_server: Server) -> Server:
    """The API server with the CRDs of crds/."""
    bare_server.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    bare_server.cluster.wait_for_definitions()
    return bare_server


REPORTED: tuple[tuple[str, Manifest, ApiModel], ...] = (
    ("llmc", LOCAL, statuses.CONNECTION),
    ("ftj", JOB, statuses.JOB),
    ("ftm", MODEL, statuses.MODEL),
    ("md", DEPLOYMENT, statuses.DEPLOYMENT),
)


@pytest.fixture(scope="module")
def reported(server: Server) -> Iterator[Server]:
    """One object of each kind with every status field set, by the status subresource as the operator does it."""
    for kind, manifest, status in REPORTED:
        server.store(manifest)
        server.patch(kind, manifest["metadata"]["name"], {"status": status.wire()}, status=True)
    yield server
    for kind, manifest, _ in REPORTED:  # other modules check whether objects with these names would be accepted
        server.kubectl("delete", kind, manifest["metadata"]["name"])
