"""The image registry: one store in the cache, served to each cluster on its own address and to builds on loopback.

The processes share the store: layers are content-addressed, so only changed ones are transferred.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import binaries, processes, shell
from tests.cluster.paths import cache_dir, cache_root, lock
from tests.cluster.ports import answers

BUILD_ADDRESS = "127.223.0.1:5000"
"""An address that no cluster uses (see network.BLOCKS)."""

CONFIGURATION = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: '{store}'}}
  delete: {{enabled: true}}
http: {{addr: '{address}'}}
"""


def store() -> Path:
    """The folder of layers and tags."""
    return cache_dir("registry")


def start(owner: str, address: str, folder: Path) -> None:
    """Serve the store on `address` (host:port) as a process of `owner`, and return when it answers."""
    configuration, log = folder / "registry.yaml", folder / "logs" / "registry.log"
    configuration.write_text(CONFIGURATION.format(store=store(), address=address))
    pid = processes.start(owner, "registry", [binaries.program("registry"), "serve", configuration], log)
    processes.wait_until(
        lambda: answers(f"http://{address}/v2/"), f"registry on {address}", timeout=30, pid=pid, log=log
    )


@contextmanager
def served_for_build() -> Iterator[str]:
    """Serve the store on loopback while a build pushes; yields host:port.

    The address is always the same, as buildah uses it to remember which layers need not be compressed and sent again.
    """
    owner = str(cache_root() / "build-registry")
    with lock("build-registry"):
        try:
            processes.kill(list(processes.running(owner)))  # of a build that was killed
            start(owner, BUILD_ADDRESS, cache_dir("build-registry"))
            yield BUILD_ADDRESS
        finally:
            processes.kill(list(processes.running(owner)))


def has(repository: str, tag: str) -> bool:
    """Whether the store holds an image."""
    return (_tags(repository) / tag / "current" / "link").exists()


def tags(repository: str) -> dict[str, float]:
    """The tags of a repository with the time each was pushed (seconds since 1970), oldest first."""
    folder = _tags(repository)
    if not folder.exists():
        return {}
    return dict(sorted(((path.name, path.stat().st_mtime) for path in folder.iterdir()), key=lambda item: item[1]))


def remove(repository: str, tag: str) -> None:
    """Remove an image; `collect_garbage` deletes its layers."""
    shutil.rmtree(_tags(repository) / tag, ignore_errors=True)


def collect_garbage() -> None:
    """Delete untagged layers. Nothing must push meanwhile: the caller holds the builds' lock."""
    configuration = cache_dir("build-registry") / "registry.yaml"
    configuration.write_text(CONFIGURATION.format(store=store(), address="127.0.0.1:0"))
    program = binaries.program("registry")
    shell.run(program, "garbage-collect", "--delete-untagged", "--quiet", configuration)


def _tags(repository: str) -> Path:
    return store() / "docker/registry/v2/repositories" / repository / "_manifests/tags"
