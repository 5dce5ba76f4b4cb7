"""What GitOps tools do to our objects again and again, on a real API server: no difference that does not end."""

import json
from typing import Any

import pytest

from finetune_api.manifest import Manifest
from finetune_api.names import FIELD_MANAGER, PROVIDER_FINALIZER
from tests.cluster.errors import ClusterError
from tests.contract import statuses
from tests.contract.conftest import Server
from tests.contract.manifests import DEPLOYMENT, JOB, LOCAL, MODEL, changed

pytestmark = pytest.mark.cluster

OBJECTS = {
    "llmc": (LOCAL, statuses.CONNECTION),
    "ftj": (JOB, statuses.JOB),
    "ftm": (MODEL, statuses.MODEL),
    "md": (DEPLOYMENT, statuses.DEPLOYMENT),
}
TOOL = ("--server-side", "--force-conflicts", "--field-manager=argocd-controller")


@pytest.fixture(params=OBJECTS)
def applied(request: pytest.FixtureRequest, server: Server) -> Any:
    """One object as a tool has applied it, and as the operator has gone on with it."""
    kind, (manifest, status) = request.param, OBJECTS[request.param]
    named = changed(manifest, "metadata.name", f"gitops-{kind}")
    name = named["metadata"]["name"]
    server.kubectl("apply", *TOOL, "-f", "-", stdin=json.dumps(named))
    server.patch(kind, name, {"status": status.wire()}, status=True, field_manager=FIELD_MANAGER)
    server.patch(kind, name, {"metadata": {"finalizers": [PROVIDER_FINALIZER]}}, field_manager=FIELD_MANAGER)
    yield kind, name, named
    server.patch(kind, name, {"metadata": {"finalizers": None}})
    server.kubectl("delete", kind, name)


Applied = tuple[str, str, Manifest]


@pytest.mark.parametrize("flags", [TOOL, ()], ids=["server-side with force", "client-side"])
def test_applying_it_again_changes_nothing_and_takes_nothing_from_the_operator(
    server: Server, applied: Applied, flags: tuple[str, ...]
) -> None:
    kind, name, manifest = applied
    if not flags:  # the first one writes its annotation
        server.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    before = server.get(kind, name)
    server.kubectl("diff", *flags, "-f", "-", stdin=json.dumps(manifest))
    server.kubectl("apply", *flags, "-f", "-", stdin=json.dumps(manifest))
    assert server.get(kind, name) == before
    assert before["metadata"]["finalizers"] == [PROVIDER_FINALIZER]
    assert before["status"]["conditions"]


def test_a_misspelt_field_is_refused_also_where_a_tool_asks_for_no_validation(server: Server) -> None:
    """Flux asks for none: the field would be dropped, and the job train with a default."""
    misspelt = changed(changed(JOB, "metadata.name", "misspelt"), "spec.hyperparameters", {"n_epochs": 10})
    with pytest.raises(ClusterError, match=r"spec\.hyperparameters\.n_epochs: field not declared in schema"):
        server.kubectl("apply", *TOOL, "--validate=false", "-f", "-", stdin=json.dumps(misspelt))


def test_replacing_it_leaves_its_status(server: Server, applied: Applied) -> None:
    kind, name, manifest = applied
    before = server.get(kind, name)
    server.kubectl("replace", "-f", "-", stdin=json.dumps(manifest | {"status": {}}))
    after = server.get(kind, name)
    assert (after["status"], after["metadata"]["generation"]) == (before["status"], before["metadata"]["generation"])
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
