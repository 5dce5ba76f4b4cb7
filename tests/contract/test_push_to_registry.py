"""A push to the registry that the field uses (CNCF's distribution): it takes what we send, and gives it back whole."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from finetune_api.push import Push
from finetune_trainer.output.pushes import push_all
from finetune_trainer.storage.durable import read_manifest, whole_folder
from tests.cluster import binaries, processes
from tests.cluster.ports import answers, free_port

pytestmark = pytest.mark.cluster

CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: '{store}'}}}}
http: {{addr: '{address}'}}
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    configuration, log = tmp_path / "registry.yaml", tmp_path / "registry.log"
    configuration.write_text(CONFIGURATION.format(store=tmp_path / "store", address=address))
    pid = processes.start(str(tmp_path), "registry", [binaries.program("registry"), "serve", configuration], log)
    processes.wait_until(
        lambda: answers(f"http://{address}/v2/"), f"registry on {address}", timeout=30, pid=pid, log=log
    )
    yield address
    processes.kill([pid])


def test_what_is_pushed_can_be_pulled_whole_and_a_second_push_changes_nothing(address: str, tmp_path: Path) -> None:
    about = {"baseModel": "tiny/llama", "method": "LoRA", "created": "2026-11-26T01:02:03+00:00"}
    with whole_folder(tmp_path / "model", **about, job={"namespace": "team-a", "name": "job-1"}) as folder:
        (folder / "adapter_model.safetensors").write_bytes(os.urandom(5 << 20))
        (folder / "report.html").write_text("rows of the test set")
    push = Push.model_validate({"oci": {"uri": f"oci://{address}/team/model:1", "plainHTTP": True}})
    (done,) = push_all(push, tmp_path / "model")
    assert (done.message, push_all(push, tmp_path / "model")) == (None, [done])
    repository = f"http://{address}/v2/team/model"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    found = httpx.get(f"{repository}/manifests/1", headers=accept)
    assert f"sha256:{hashlib.sha256(found.content).hexdigest()}" == done.revision
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for layer in found.json()["layers"]:
        name = layer["annotations"]["org.opencontainers.image.title"]
        (pulled / name).write_bytes(httpx.get(f"{repository}/blobs/{layer['digest']}").content)
    assert read_manifest(pulled)
    assert not (pulled / "report.html").exists()
