"""The backup guide's commands on a real API server: objects come back with their statuses and with other UIDs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.contract.conftest import ROOT, Server

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
