"""The cluster with the operator, once for all end-to-end tests; a namespace for each test that requests one.

It ends with the last test of this folder, not with the worker: an idle cluster takes processor time and memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import quickstart
from tests.assets.tiny_model import make_tiny_model
from tests.cluster import Cluster, images
from tests.cluster.cluster import DEFAULT_NAME
from tests.e2e.site import Site
from tests.simulators import certificates

REPOSITORY = Path(__file__).parents[2]
FOLDER = "tests/e2e/"
CHART = REPOSITORY / "helm" / "finetune-operator"
NAMESPACE = "finetune-system"
CA_FOLDER = "/etc/provider-ca"
BEFORE_THE_DEMO = {"test_cloud_lives", "test_failover"}
"""They need the operator's first pods, and kill them: the demo must not miss a phase meanwhile."""
DEMO_ROWS = ("train=160", "validation=16", "test=40")


@dataclass(frozen=True)
class Demo:
    """The demo's process, and the file with its output."""

    process: subprocess.Popen[bytes]
    said: Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need the cluster."""
    for item in items:
        if item.nodeid.startswith(FOLDER):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def built() -> images.BuiltImages:
    """The project's images as built for users."""
    return images.build_images()


@pytest.fixture(scope="package")
def cluster(built: images.BuiltImages) -> Iterator[Cluster]:
    """The throw-away cluster, or another one by E2E_CLUSTER; one that was already up stays up."""
    found = Cluster(os.environ.get("E2E_CLUSTER", DEFAULT_NAME))
    was_up = found.is_up()
    found.up()
    found.load_image(built.operator, built.check)
    yield found
    if not was_up:
        found.down()


@pytest.fixture(scope="package")
def provider_tls(cluster: Cluster) -> certificates.Tls:
    """Certificates of providers with TLS; fixed while the cluster is up, as the operator reads the CA at start."""
    return certificates.kept(cluster.folder / "provider-tls", (cluster.addresses.host,))


@pytest.fixture(scope="package")
def operator(cluster: Cluster, built: images.BuiltImages, provider_tls: certificates.Tls) -> Cluster:
    """The cluster with the operator installed by its chart: two replicas, one of which leads.

    It trusts the CA of simulated providers, and polls them often, as tests wait for them.
    """
    metadata = {"name": "provider-ca", "namespace": NAMESPACE}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
         "data": {"ca.crt": provider_tls.authority.read_text()}},
    )  # fmt: skip
    values = {
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": f"{CA_FOLDER}/ca.crt"}],
        "extraVolumes": [{"name": "provider-ca", "configMap": {"name": "provider-ca"}}],
        "extraVolumeMounts": [{"name": "provider-ca", "mountPath": CA_FOLDER, "readOnly": True}],
        "settings": {"providerPollSeconds": 1},
        "replicas": 2,
    }
    cluster.helm(
        "upgrade", "--install", "finetune-operator", str(CHART), "--namespace", NAMESPACE,
        *quickstart.image_values(built.operator),
        *(argument for name, value in values.items() for argument in ("--set-json", f"{name}={json.dumps(value)}")),
        "--wait", "--timeout", "300s",
    )  # fmt: skip
    return cluster


@pytest.fixture(scope="package")
def demo(operator: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`make demo` on the cluster of these tests, with fewer rows than for users."""
    command = [sys.executable, "-m", "demo", "--name", operator.name, "--rows", *DEMO_ROWS]
    said = tmp_path_factory.mktemp("demo") / "said"
    with said.open("w") as output, subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output) as process:
        yield Demo(process, said)
        process.terminate()  # does nothing if it has ended


@pytest.fixture(scope="module", autouse=True)
def demo_beside_other_tests(request: pytest.FixtureRequest) -> None:
    """Start the demo long before its own tests, so that it trains while other tests wait for pods."""
    if request.path.stem not in BEFORE_THE_DEMO and any(
        "demo" in getattr(item, "fixturenames", ()) for item in request.session.items
    ):
        request.getfixturevalue("demo")


@pytest.fixture(scope="package")
def volumes(cluster: Cluster) -> Path:
    """A folder that nodes see under the same path, unlike the system's temporary folder; removed with the cluster."""
    return cluster.folder / "test-volumes"


@pytest.fixture(scope="package")
def model_cache(volumes: Path) -> Path:
    """A model cache with a tiny random Llama."""
    cache = volumes / "model-cache"
    for path in make_tiny_model(cache).iterdir():
        path.chmod(0o644)  # written by root here, read by another user in the pods
    return cache


@pytest.fixture(scope="package")
def connections(operator: Cluster, built: images.BuiltImages) -> None:
    """Air-gapped connections: a working one, one with a short deadline, a disabled one, one for other models."""
    operator.load_image(built.trainer)
    settings = {
        "trainerImage": built.trainer,
        "checkImage": built.check,
        "airGapped": True,
        "modelCache": {"volume": {"persistentVolumeClaim": {"claimName": "model-cache"}}},
        "artifacts": {"uri": "pvc://models"},
        "podTemplate": {"resources": {"requests": {"cpu": "100m", "memory": "300Mi"}}},
    }
    selector = {"matchLabels": {"finetune": "yes"}}
    variants = {
        "tiny": {"huggingFace": settings},
        "hasty": {"huggingFace": {**settings, "maxRetries": 1}},
        "switched-off": {"huggingFace": settings, "fineTuning": {"enabled": False}},
        "picky": {"huggingFace": settings, "fineTuning": {"allowedModels": ["meta-llama/*"]}},
    }
    operator.apply(
        *(
            {
                "apiVersion": "finetune.dev/v1alpha1",
                "kind": "LLMConnection",
                "metadata": {"name": name},
                "spec": {"namespaceSelector": selector, **spec},
            }
            for name, spec in variants.items()
        )
    )


@pytest.fixture(scope="module")
def make_site(
    operator: Cluster,
    connections: None,  # noqa: ARG001 - jobs name them
    model_cache: Path,
    volumes: Path,
) -> Iterator[Callable[..., Site]]:
    """Creates namespaces that are deleted after the module's last test."""
    made: list[Site] = []

    def make(name: str, labels: dict[str, str] | None = None) -> Site:
        site = Site(operator, name, volumes / name, model_cache)
        site.make(labels)
        site.write_rows("train.jsonl", 24)
        site.write_rows("validation.jsonl", 8, start=1000)
        site.write_rows("test.jsonl", 4, start=2000)
        made.append(site)
        return site

    yield make
    for site in made:
        site.remove()


@pytest.fixture(scope="module")
def site(make_site: Callable[..., Site], request: pytest.FixtureRequest) -> Site:
    """One namespace for a module."""
    return make_site(re.sub("[^a-z0-9]+", "-", request.module.__name__.rpartition(".")[2].removeprefix("test_")))
