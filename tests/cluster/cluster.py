"""One throw-away cluster: up, its use, and down.

`up` first removes what an interrupted run of the same name left, with the same code as `down`, so that an incomplete
`down` is noticed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.cluster import (
    binaries,
    cgroups,
    credentials,
    network,
    packages,
    processes,
    reading,
    registry,
    shell,
    sysctls,
)
from tests.cluster.audit import AuditLog
from tests.cluster.console import say
from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.manifests import initial_objects
from tests.cluster.network import Addresses
from tests.cluster.node import IMAGE_HOST, REGISTRY_PORT, Node, cgroup_of, kill_nodes
from tests.cluster.paths import cache_root, cluster_dir, lock

DEFAULT_NAME = "finetune"
RUN_VARIABLE = "CLUSTER_TESTS_RUN"
"""Names the test run that starts a cluster: scripts/tests.sh cleans up after its own run."""
NODE_ROLES = ("namespaces", "containerd", "kubelet", "kube-proxy")


@dataclass(frozen=True)
class Mode:
    """The requested mode of a cluster; one that runs in another mode is replaced."""

    nodes: int = 1
    """Nodes that run pods; 0: control plane only."""
    controllers: bool = True
    """Controller manager and scheduler. Without them Jobs create no pods and deleted namespaces stay."""


def known_names() -> list[str]:
    """Names of the clusters on this machine, running or with something left."""
    return sorted(path.parent.name for path in cluster_dir("*").parent.glob("*/state.json"))


def unknown(name: str) -> str:
    """The message that there is no cluster of this name, with the existing ones."""
    return f"there is no cluster {name}; on this machine: {', '.join(known_names()) or 'none'}"


class Cluster:
    """A cluster by name; several can run side by side. As a context manager: up, and down at the end.

    Args:
        name: lower-case letters, digits and dashes, at most 20.
        nodes: nodes that run pods, 0 for only a control plane (ready in seconds).
        controllers: whether controller manager and scheduler run; required if there are nodes.
        more_flags: additional flags of the control plane's processes, by name, for benchmarks.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        *,
        nodes: int = 1,
        controllers: bool = True,
        more_flags: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if not name.replace("-", "").isalnum() or name != name.lower() or len(name) > 20:
            raise ClusterError(f"cluster name {name!r}: use at most 20 lower-case letters, digits and dashes")
        self.name = name
        self.mode = Mode(nodes, controllers or nodes > 0)
        self.folder = cluster_dir(name)
        self._more_flags = more_flags or {}

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def exists(self) -> bool:
        """Whether a cluster of this name exists, running or not."""
        return self.folder.exists()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.folder / "kubeconfig"

    def kubeconfig_of(self, namespace: str, account: str, path: Path) -> Path:
        """Write the administrator's kubeconfig to `path` with the token of a service account instead."""
        config = json.loads(self.kubeconfig.read_text())
        for user in config["users"]:
            user["user"] = {"token": self.token(namespace, account)}
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def token(self, namespace: str, account: str) -> str:
        """A service account's token, valid for a day."""
        return self.kubectl("create", "token", account, "--namespace", namespace, "--duration=24h").strip()

    @property
    def audit(self) -> AuditLog:
        """Its audit log of service accounts' requests."""
        return AuditLog(self.folder)

    @property
    def registry(self) -> str:
        """The prefix of this project's image references."""
        return IMAGE_HOST

    @property
    def addresses(self) -> Addresses:
        """The cluster's addresses.

        Raises:
            ClusterError: the cluster is not up.
        """
        return Addresses(self._state()["block"], network.bridge_of(self.folder))

    @property
    def programs(self) -> Path:
        """The folder of kubectl and helm, as PATH takes it."""
        return binaries.build()

    def up(self) -> Self:
        """Start the cluster, unless it already runs in the same mode.

        Raises:
            ClusterError: something did not start; everything is taken down again, but the logs stay.
        """
        packages.need_root("a throw-away cluster")
        packages.ensure(packages.CONTROL_PLANE, packages.NODE if self.mode.nodes else {})
        programs = binaries.build()
        with lock(f"cluster-{self.name}"):
            if self.is_up() and self._state()["mode"] == asdict(self.mode):
                say(f"cluster {self.name} is up already")
                return self
            self._clear()
            try:
                self._start(programs)
            except BaseException:
                self._end_processes()
                raise
        say(f"cluster {self.name} is ready: export KUBECONFIG={self.kubeconfig}")
        return self

    def down(self) -> None:
        """Remove processes, interfaces, mounts, control groups and files; keep the image store."""
        with lock(f"cluster-{self.name}"):
            if self.folder.exists():
                say(f"removing cluster {self.name}")
            self._clear()

    def is_up(self) -> bool:
        """Whether every process of the cluster runs, in whatever mode it was started, and its API server is ready."""
        if not self._has_state() or not self._state().get("complete"):
            return False
        mode = Mode(**self._state()["mode"])
        wanted = {"etcd", "kube-apiserver"}
        wanted |= {"kube-controller-manager", "kube-scheduler", "dns"} if mode.controllers else set()
        wanted |= {f"{role}-{number + 1}" for role in NODE_ROLES for number in range(mode.nodes)}
        return wanted <= set(processes.running(str(self.folder)).values()) and self._control_plane(Path()).answers()

    def status(self) -> dict[str, Any]:
        """What runs: state, kubeconfig, and the processes by role."""
        found = processes.running(str(self.folder))
        return {
            "name": self.name,
            "up": self.is_up(),
            "mode": self._state()["mode"] if self._has_state() else None,
            "kubeconfig": str(self.kubeconfig),
            "logs": str(self.folder / "logs"),
            "processes": {role: pid for pid, role in sorted(found.items())},
        }

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return its stdout.

        Raises:
            ClusterError: it failed, with its stderr.
        """
        return shell.run(self.programs / "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments, stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects given as dictionaries."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json` as a dictionary."""
        answer: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return answer

    def read(self, path: str) -> dict[str, Any] | None:
        """The object at a path such as /api/v1/pods, or None; faster than `get`, for polling.

        Raises:
            ClusterError: it does not answer, or refuses.
        """
        return reading.read(self.kubeconfig, credentials.Credentials(self.folder / "keys").ca, path)

    def wait_for_definitions(self) -> None:
        """Wait until all CRDs are established.

        `kubectl wait` fails if one has no conditions yet, as is so for a moment after it was created.

        Raises:
            ClusterError: they are not within two minutes.
        """
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        processes.wait_until(lambda: are_established(self.read(path) or {}), "all definitions established", timeout=120)

    def helm(self, *arguments: str) -> str:
        """Run helm as the administrator and return its stdout; its own files stay in the cluster's folder.

        Raises:
            ClusterError: it failed, with its stderr.
        """
        return shell.run(self.programs / "helm", *arguments, env=self._helm_environment())

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start kubectl without waiting, for `logs -f`, `get -w` and `port-forward`; the caller ends it."""
        command = [str(self.programs / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.Popen(command, text=True, **options)

    def load_image(self, *images: str) -> None:
        """Pull images of the build registry onto every node, so that the first pod does not wait for gigabytes.

        Args:
            images: references as in a pod, `registry.test/NAME:TAG`.

        Raises:
            ClusterError: an image is not in the registry.
        """
        for node in self._nodes(self.programs):
            present = set(node.runtime("images").split())
            if missing := [image for image in images if image not in present]:
                say(f"pulling {', '.join(missing)} to {node.name}")
                node.runtime("pull", *missing)

    def node(self, number: int) -> Node:
        """Node 1, 2, …: `.kill()` pulls its plug."""
        return self._nodes(self.programs)[number - 1]

    def restart_node(self, number: int) -> None:
        """Bring a killed node back under its old name."""
        node = self.node(number)
        node.kill()
        node.remove()
        node.start_runtime()
        self._connect(self._nodes(self.programs))
        node.start_agents()

    def kill(self, *roles: str) -> None:
        """Kill processes of the control plane; `start_again` restarts etcd and API server."""
        found = processes.running(str(self.folder))
        processes.kill([pid for pid, role in found.items() if role in roles])

    def start_again(self, role: Literal["etcd", "kube-apiserver"]) -> None:
        """Restart a killed process with its data; the API server is ready on return."""
        control_plane = self._control_plane(self.programs)
        if role == "etcd":
            control_plane.start_etcd()
        else:
            control_plane.start_apiserver()

    def _start(self, programs: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        addresses = network.take_addresses(self.folder)
        state = {"block": addresses.block, "mode": asdict(self.mode), "complete": False}
        state["run"] = os.environ.get(RUN_VARIABLE)
        self._write_state(state)
        names = [node.name for node in self._nodes(programs)]
        credentials.create(self.folder / "keys", names)
        control_plane = self._control_plane(programs)
        say(f"starting etcd and API server at {control_plane.server}")
        control_plane.start_api()
        if self.mode.controllers:
            control_plane.start_controllers()
            control_plane.start_scheduler()
        shutil.copy(control_plane.keys.kubeconfig(credentials.ADMIN), self.kubeconfig)
        self.apply(*initial_objects(addresses)["items"])
        if self.mode.controllers:
            control_plane.start_dns()
        self._start_nodes(programs)
        if self.mode.controllers:
            control_plane.wait_ready()
            self._wait_for_default_account()
        self._write_state({**state, "complete": True})

    def _start_nodes(self, programs: Path) -> None:
        nodes = self._nodes(programs)
        if nodes:
            address = f"{self.addresses.host}:{REGISTRY_PORT}"
            registry.start(str(self.folder), address, self.folder)
        for node in nodes:
            say(f"starting node {node.name}")
            node.start_runtime()
        self._connect(nodes)
        for node in nodes:
            node.start_agents()
        for node in nodes:
            self.kubectl("wait", "--for=condition=Ready", f"node/{node.name}", "--timeout=120s")

    def _connect(self, nodes: Sequence[Node]) -> None:
        """Set every node's routes to the others' pods."""
        for node in nodes:
            for other in nodes:
                if other != node:
                    network.connect_pods(self.addresses, node.first_process(), other.number)

    def _wait_for_default_account(self) -> None:
        """Wait for the namespace's service account, without which pods are refused."""

        def made() -> bool:
            return shell.succeeds(
                self.programs / "kubectl", f"--kubeconfig={self.kubeconfig}", "get", "serviceaccount", "default"
            )

        processes.wait_until(made, "service account of namespace default", timeout=60)

    def _clear(self) -> None:
        """End and remove everything that carries this cluster's name."""
        self._end_processes()
        cgroups.remove(cgroup_of(self.folder))
        shutil.rmtree(self.folder, ignore_errors=True)
        kept = {"1"} if self.name == DEFAULT_NAME else set()
        for store in self._image_stores().glob("*"):
            if store.name not in kept:
                shutil.rmtree(store)
        if not kept:
            shutil.rmtree(self._image_stores(), ignore_errors=True)

    def _end_processes(self) -> None:
        """Kill processes and remove the network; files are kept for debugging."""
        kill_nodes(processes.running(str(self.folder)))
        network.release(self.folder)
        if not any(role.startswith("kubelet-") for role in processes.roles_of_all()):
            sysctls.restore()

    def _control_plane(self, programs: Path) -> ControlPlane:
        names = [node.name for node in self._nodes(programs)]
        keys = credentials.Credentials(self.folder / "keys")
        return ControlPlane(self.folder, programs, self.addresses, keys, names, self._more_flags)

    def _nodes(self, programs: Path) -> list[Node]:
        state = self._state()
        keys = credentials.Credentials(self.folder / "keys")
        return [
            Node(self.folder, programs, self.addresses, keys, number, self._image_stores() / str(number))
            for number in range(1, state["mode"]["nodes"] + 1)
        ]

    def _image_stores(self) -> Path:
        return cache_root() / "containerd" / self.name

    def _helm_environment(self) -> dict[str, str]:
        own = {f"HELM_{kind}_HOME": str(self.folder / "helm" / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        return {**os.environ, **own, "KUBECONFIG": str(self.kubeconfig)}

    def _state_file(self) -> Path:
        return self.folder / "state.json"

    def _has_state(self) -> bool:
        return self._state_file().exists()

    def _write_state(self, state: dict[str, Any]) -> None:
        unfinished = self._state_file().with_suffix(".unfinished")
        unfinished.write_text(json.dumps(state))
        unfinished.rename(self._state_file())

    def _state(self) -> dict[str, Any]:
        if not self._has_state():
            raise ClusterError(f"cluster {self.name} is not up: python -m tests.cluster up --name {self.name}")
        state: dict[str, Any] = json.loads(self._state_file().read_text())
        return state


def are_established(definitions: dict[str, Any]) -> bool:
    """Whether there are CRDs in a list, and all are served. Conditions are null before the first one is written."""
    found = [(item.get("status") or {}).get("conditions") or () for item in definitions.get("items", ())]
    served = [
        any((one["type"], one["status"]) == ("Established", "True") for one in conditions) for conditions in found
    ]
    return bool(served) and all(served)
