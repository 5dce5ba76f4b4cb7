"""The cluster that the demo plays on: a throw-away one that it starts, or the one of the current kubectl context.

Both give the same four things: kubectl, helm, images that their nodes can pull, and how a person reaches a Service.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from demo.console import Console, DemoError
from demo.kubectl import Kubectl
from tests.cluster import Cluster, ClusterError, binaries, images
from tests.cluster.cluster import unknown
from tests.cluster.errors import MachineError


@dataclass(frozen=True)
class Images:
    """References that the cluster's nodes can pull."""

    operator: str
    trainer: str


class Target(Protocol):
    """A cluster to play on."""

    @property
    def kubectl(self) -> Kubectl:
        """The cluster's kubectl."""

    def prepare(self, console: Console) -> Images:
        """Make cluster and images ready."""

    def helm(self, *arguments: str) -> None:
        """Run helm on the cluster."""

    def reach(self, namespace: str, service: str) -> str | None:
        """Base address by which this machine reaches a Service, or None where that takes `kubectl port-forward`."""

    def remove(self, console: Console) -> None:
        """Take away what `prepare` started."""


class ThrowAway:
    """A cluster of its own, with images from its own registry."""

    def __init__(self, name: str) -> None:
        """Nothing is started yet.

        Raises:
            DemoError: no cluster can be called so.
        """
        try:
            self._cluster = Cluster(name)
        except ClusterError as error:
            raise DemoError(str(error), "Choose another name: make demo NAME=mine.") from error

    @property
    def kubectl(self) -> Kubectl:
        """The cluster's own kubectl, as its administrator."""
        return Kubectl(str(self._cluster.programs / "kubectl"), self._cluster.kubeconfig)

    def prepare(self, console: Console) -> Images:
        """Start the cluster and build the images, side by side: neither needs the other until the first pod.

        Raises:
            DemoError: one of them failed.
        """
        with ThreadPoolExecutor(max_workers=2) as workers:
            built = workers.submit(_build)
            started = workers.submit(self._start)
            try:
                started.result()
                ready = built.result()
            except MachineError as error:
                step = (
                    "Or play on a cluster that you have: make demo CLUSTER=current REGISTRY=registry.example.com/team"
                )
                raise DemoError(str(error), step) from error
            except ClusterError as error:
                raise DemoError(str(error), "Run `make demo` again: it continues from what is cached.") from error
        console.step("the node gets the images")
        self._cluster.load_image(ready.operator, ready.trainer)
        return ready

    def helm(self, *arguments: str) -> None:
        """Run helm as the cluster's administrator.

        Raises:
            DemoError: it failed.
        """
        try:
            self._cluster.helm(*arguments)
        except ClusterError as error:
            raise DemoError(str(error)) from error

    def reach(self, namespace: str, service: str) -> str | None:
        """This machine has a route to the cluster's Services."""
        found = self.kubectl.get("service", service, "--namespace", namespace)
        return f"http://{found['spec']['clusterIP']}" if found else None

    def remove(self, console: Console) -> None:
        """End the cluster with everything in it."""
        if self._cluster.exists:
            console.step(f"ending the cluster {self._cluster.name}; images and downloads stay cached")
        else:
            console.step(unknown(self._cluster.name))
        self._cluster.down()

    def _start(self) -> None:
        """A cluster of this name that runs already is used as it is, whatever its number of nodes."""
        if not (self._cluster.is_up() and self._cluster.status()["mode"]["nodes"]):
            self._cluster.up()


_POINT_KUBECTL = (
    "Point kubectl at a cluster (kubectl config get-contexts), or leave CLUSTER=current out: `make demo` then starts a "
    "throw-away one."
)


class Current:
    """The cluster of the current kubectl context, with images from a registry that its nodes reach."""

    def __init__(self, *, registry: str, given: Mapping[str, str]) -> None:
        """Take what `make demo` was told about images; nothing is asked yet."""
        self._registry = registry.rstrip("/")
        self._given = given

    @property
    def kubectl(self) -> Kubectl:
        """The machine's own kubectl, or the one that the throw-away cluster has."""
        return Kubectl(_tool("kubectl"))

    def prepare(self, console: Console) -> Images:
        """Look whether the cluster answers and can hold the demo, then push the images that were not given.

        Raises:
            DemoError: no context, no default storage class, or no way to get images to it.
        """
        if not os.environ.get("KUBECONFIG") and not (Path.home() / ".kube" / "config").exists():
            raise DemoError(
                "kubectl has no cluster: there is no ~/.kube/config, and KUBECONFIG is not set",
                _POINT_KUBECTL,
            )
        try:
            context = self.kubectl.run("config", "current-context").strip()
            self.kubectl.run("version")
        except DemoError as error:
            raise DemoError(f"kubectl reaches no cluster: {error}", _POINT_KUBECTL) from error
        console.step(f"using the cluster of kubectl's current context: {context}")
        classes = self.kubectl.get("storageclass") or {"items": []}
        default = "storageclass.kubernetes.io/is-default-class"
        if not any((c["metadata"].get("annotations") or {}).get(default) == "true" for c in classes["items"]):
            raise DemoError(
                "the cluster has no default storage class, so the quickstart's volumes would never be bound",
                f"Annotate one: kubectl annotate storageclass NAME {default}=true",
            )
        return Images(operator=self._image("operator", console), trainer=self._image("trainer", console))

    def helm(self, *arguments: str) -> None:
        """Run helm on the current context.

        Raises:
            DemoError: it failed.
        """
        done = subprocess.run([_tool("helm"), *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoError(f"helm {arguments[0]}: {done.stderr.strip()}")

    def reach(self, namespace: str, service: str) -> str | None:
        """Whether this machine reaches Services of the cluster is not known."""
        del namespace, service
        return None

    def remove(self, console: Console) -> None:
        """Delete the quickstart and the operator; the definitions stay, as the chart's `crds.keep` says."""
        console.step("removing the quickstart, the connection and the operator; definitions and their objects stay")
        self.kubectl.run("delete", "namespace", "quickstart", "--ignore-not-found")
        self.kubectl.run("delete", "llmconnections.finetune.dev", "quickstart", "--ignore-not-found")
        self.helm("uninstall", "finetune-operator", "--namespace", "finetune-system", "--ignore-not-found", "--wait")

    def _image(self, name: str, console: Console) -> str:
        if self._given[name]:
            return self._given[name]
        if not self._registry:
            raise DemoError(
                f"the cluster needs the {name} image, and there is no registry to put it into",
                "Say where to push: make demo CLUSTER=current REGISTRY=registry.example.com/team. Or name images that "
                "the cluster can pull: make demo CLUSTER=current OPERATOR_IMAGE=… TRAINER_IMAGE=…",
            )
        try:
            console.step(f"pushing the {name} image to {self._registry}")
            return images.publish(name, self._registry)
        except ClusterError as error:
            raise DemoError(
                str(error),
                "Building needs root on Debian. Elsewhere: build and push the two Dockerfiles with the tool that you "
                "have, as docs/guides/install.md shows, and give OPERATOR_IMAGE=… TRAINER_IMAGE=…",
            ) from error


def _build() -> Images:
    return Images(**images.build_all(("operator", "trainer")))


def _tool(name: str) -> str:
    """The machine's own program, else the one built for the throw-away cluster."""
    path = f"{os.environ.get('PATH', '')}:/usr/local/bin"
    try:
        return shutil.which(name, path=path) or str(binaries.program(name))
    except ClusterError as error:
        raise DemoError(str(error), f"Install {name}, or run `make programs` as root.") from error
