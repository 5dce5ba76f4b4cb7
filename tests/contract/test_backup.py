"""The backup guide's commands on a real API server: objects come back with their statuses and with other UIDs."""

import json
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_api.catalogue import Catalogue
from finetune_api.manifest import Manifest
from finetune_api.model import FineTunedModelSpec
from finetune_operator.desired import model_deployment
from finetune_operator.reconcilers.children import Children
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.watched.observed import make_store
from finetune_operator.runtime.errors import Transient
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS, Kube
from finetune_operator.runtime.settings import Settings
from tests.cluster import binaries
from tests.contract.conftest import ROOT, Server
from tests.contract.manifests import MODEL, changed

pytestmark = pytest.mark.cluster

KINDS = ("llmc", "ftm", "md", "ftj")
KEPT = ("name", "namespace", "labels", "finalizers")


def blocks() -> list[str]:
    """The commands with kubectl and jq: back up, restore."""
    section = (ROOT / "docs/guides/backup.md").read_text().split("## With kubectl and jq")[1].split("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def run(commands: str, server: Server, folder: Path) -> None:
    programs = binaries.program("kubectl").parent
    path = {"PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": str(server.cluster.kubeconfig)}
    script = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(script, cwd=folder, env=os.environ | path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_guide_backs_up_comes_back_whole(reported: Server, tmp_path: Path) -> None:
    back_up, restore = blocks()
    owner = reported.get("ftm", "sentiment")["metadata"]
    reference = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTunedModel", "name": "sentiment"}
    held = {"finalizers": ["finetune.dev/provider"], "ownerReferences": [reference | {"uid": owner["uid"]}]}
    reported.patch("md", "sentiment", {"metadata": held})
    before = {kind: reported.get(kind, "--all-namespaces")["items"] for kind in KINDS}
    run(back_up, reported, tmp_path)
    reported.patch("md", "sentiment", {"metadata": {"finalizers": None}})
    for kind in KINDS:
        reported.kubectl("delete", kind, "--all", "--all-namespaces", "--timeout=60s")
    run(restore, reported, tmp_path)
    for kind in KINDS:
        for old, new in zip(before[kind], reported.get(kind, "--all-namespaces")["items"], strict=True):
            assert (new["spec"], new["status"]) == (old["spec"], old["status"])
            assert [new["metadata"].get(name) for name in KEPT] == [old["metadata"].get(name) for name in KEPT]
            assert new["metadata"]["uid"] != old["metadata"]["uid"]
            assert "ownerReferences" not in new["metadata"]
    reported.patch("md", "sentiment", {"metadata": {"finalizers": None}})


@pytest.mark.parametrize("way", ["restored by kubectl", "without managedFields"])
async def test_what_a_model_says_no_more_goes_from_its_deployment_whoever_has_written_that(
    server: Server, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Applying takes away only what is the operator's alone, and who restores an object has all of it."""
    server.kubectl("apply", "-f", "-", stdin=json.dumps(changed(MODEL, "metadata.name", "restored")))
    model = server.get("ftm", "restored")
    async with Kube.connect(Settings(kubeconfig=server.cluster.kubeconfig)) as kube:
        children = Children(_context(kube))
        await children.ensure(MODEL_DEPLOYMENTS, model, _deployment(model, idle={"afterSeconds": 7200}))
        made = server.get("md", "restored")
        assert made["spec"]["idle"]["afterSeconds"] == 7200
        if way == "restored by kubectl":
            server.kubectl("delete", "md", "restored")
            kept = {key: made["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
            server.kubectl("apply", "-f", "-", stdin=json.dumps({**made, "metadata": kept}))
        else:
            server.patch("md", "restored", {"metadata": {"managedFields": [{}]}})
        with monkeypatch.context() as ended:
            ended.setattr(kube, "apply", _nobody_answers)  # right after it was made its own
            with pytest.raises(Transient):
                await Children(_context(kube)).ensure(MODEL_DEPLOYMENTS, model, _deployment(model))
        await Children(_context(kube)).ensure(MODEL_DEPLOYMENTS, model, _deployment(model))
        assert "idle" not in server.get("md", "restored")["spec"]
    server.kubectl("delete", "ftm,md", "restored")


async def _nobody_answers(*_: Any) -> Any:
    raise Transient(0, "Unreachable", "")


def _context(kube: Kube) -> Context:
    async def announce(*_: Any) -> None: ...

    def nothing(*_: Any) -> None: ...

    return Context(kube, make_store(), announce, nothing, nothing, nothing, Catalogue, lambda: datetime.now(UTC))


def _deployment(model: Manifest, **template: Any) -> Manifest:
    spec = FineTunedModelSpec.model_validate({"deployment": {"template": template}})
    return model_deployment.build(model, spec)
