"""One node: containerd, kubelet and kube-proxy in their own namespaces, which end with their first process.

The first process holds a network, mount, PID, UTS and IPC namespace. All changes of a node to the machine — mounts, pod
interfaces, iptables rules, shims, containers — are inside and vanish with it, however it ends. /var/lib, /var/log, /run
and /tmp inside are the node's own; its image store is kept between runs.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cgroups, network, processes, registry, shell, sysctls
from tests.cluster.credentials import Credentials
from tests.cluster.errors import ClusterError
from tests.cluster.network import Addresses
from tests.cluster.pause_image import PAUSE_IMAGE, pause_archive

NAMESPACES = "namespaces"
"""The role of the process that holds a node's namespaces."""
IMAGE_HOST = "registry.test"
"""The registry's name in image references; every node resolves it to its cluster's own registry."""
REGISTRY_PORT = 5000
PROGRAMS_INSIDE = "/var/lib/programs"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


@dataclass(frozen=True)
class Node:
    """Node `number` (1, 2, …) of one cluster."""

    cluster_folder: Path
    programs: Path
    addresses: Addresses
    keys: Credentials
    number: int
    image_store: Path

    @property
    def name(self) -> str:
        """The Node object's name."""
        return f"{self.cluster_folder.name}-{self.number}"

    @property
    def folder(self) -> Path:
        """The node's own files."""
        return self.cluster_folder / f"node-{self.number}"

    @property
    def owner(self) -> str:
        """The mark of the node's processes; their roles end in the node's number."""
        return str(self.cluster_folder)

    @property
    def cgroup(self) -> str:
        """The control group of its pods."""
        return f"{cgroup_of(self.cluster_folder)}/{self.number}"

    def log(self, role: str) -> Path:
        """The log of one of its processes."""
        return self.cluster_folder / "logs" / f"{self._role(role)}.log"

    def start_runtime(self) -> None:
        """Create the namespaces and start containerd in them; needs no API server."""
        self._write_configuration()
        cgroups.create(self.cgroup)
        self._make_namespaces()
        network.connect_node(self.addresses, self.number, self.first_process())
        pid = self._start("containerd", ["containerd", "--config", "/var/lib/node/containerd.toml"])
        socket = Path(f"/proc/{self.first_process()}/root{CONTAINERD_SOCKET}")
        processes.wait_until(socket.exists, "containerd", timeout=60, pid=pid, log=self.log("containerd"))
        # The socket is there before the interface that the kubelet uses: a full store takes its time to be read.
        processes.wait_until(self._runtime_answers, "containerd", timeout=120, pid=pid, log=self.log("containerd"))
        self.runtime("forget-pods")
        self._drop_images_without_registry()
        self._ensure_pause_image()

    def start_agents(self) -> None:
        """Start the kubelet and, once it has registered the node, kube-proxy, which needs the node's address."""
        sysctls.note()
        shutil.copy(self.keys.kubeconfig(self.name), self.folder / "var-lib" / "node" / "kubelet.kubeconfig")
        shutil.copy(self.keys.kubeconfig("kube-proxy"), self.folder / "var-lib" / "node" / "kube-proxy.kubeconfig")
        pid = self._start("kubelet", [f"{PROGRAMS_INSIDE}/kubelet", *self._kubelet_flags()])
        processes.wait_until(self._registered, f"node {self.name}", timeout=120, pid=pid, log=self.log("kubelet"))
        self._start("kube-proxy", [f"{PROGRAMS_INSIDE}/kube-proxy", "--config=/var/lib/node/kube-proxy.yaml"])

    def first_process(self) -> int:
        """The process that holds the namespaces.

        Raises:
            ClusterError: the node does not run.
        """
        for pid, role in processes.running(self.owner).items():
            if role == self._role(NAMESPACES) and (child := processes.child_of(pid)) is not None:
                return child
        raise ClusterError(f"node {self.name} does not run; its logs are in {self.cluster_folder / 'logs'}")

    def inside(self, *command: str | Path, stdin: str | None = None) -> str:
        """Run a command in the node's namespaces and return its output."""
        return shell.run(*self._enter(), *command, stdin=stdin)

    def runtime(self, command: str, *names: str) -> str:
        """Call containerd through CRI: pull, images, remove, forget-pods."""
        return self.inside(f"{PROGRAMS_INSIDE}/cri", CONTAINERD_SOCKET, command, *names)

    def _ensure_pause_image(self) -> None:
        """Also push it to the registry: under disk pressure the kubelet deletes all images, and every pod needs it."""
        repository, _, tag = PAUSE_IMAGE.removeprefix(f"{IMAGE_HOST}/").rpartition(":")
        if PAUSE_IMAGE in self.runtime("images").split() and registry.has(repository, tag):
            return
        archive = pause_archive(self.programs / "pause", self.folder / "var-lib" / "node" / "pause.tar")
        images = ("ctr", "--namespace", "k8s.io", "images")
        self.inside(*images, "import", f"/var/lib/node/{archive.name}")
        there = f"{self.addresses.host}:{REGISTRY_PORT}/{repository}:{tag}"
        self.inside(*images, "push", "--plain-http", there, PAUSE_IMAGE)

    def _runtime_answers(self) -> bool:
        try:
            self.runtime("images")
        except ClusterError:
            return False
        return True

    def _drop_images_without_registry(self) -> None:
        """Remove images that the builds have pruned, as the store is kept, and each trainer image takes gigabytes."""
        for image in self.runtime("images").split():
            repository, _, tag = image.removeprefix(f"{IMAGE_HOST}/").rpartition(":")
            if image.startswith(IMAGE_HOST) and image != PAUSE_IMAGE and not registry.has(repository, tag):
                self.runtime("remove", image)

    def kill(self) -> None:
        """Kill everything that runs on the node, like a power failure; the Node object stays."""
        mine = {pid: role for pid, role in processes.running(self.owner).items() if role.endswith(f"-{self.number}")}
        kill_nodes(mine)

    def remove(self) -> None:
        """Remove what is left after `kill`: control groups and files (the image store stays)."""
        cgroups.remove(self.cgroup)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, role: str, command: list[str | Path]) -> int:
        return processes.start(self.owner, self._role(role), [*self._enter(), *command], self.log(role))

    def _role(self, program: str) -> str:
        return f"{program}-{self.number}"

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.first_process()), "--mount", "--net", "--pid", "--uts", "--ipc", "--"]

    def _make_namespaces(self) -> None:
        command = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        pid = processes.start(
            self.owner, self._role(NAMESPACES), [*command, self.programs / "pause"], self.log(NAMESPACES)
        )
        what = f"namespaces of {self.name}"
        processes.wait_until(lambda: _is_ready(pid), what, timeout=20, pid=pid, log=self.log(NAMESPACES))
        self.inside("sh", "-ec", MOUNTS.format(
            node=self.folder, store=self.image_store, volumes=self.cluster_folder / "volumes",
            programs=self.programs, name=self.name,
        ))  # fmt: skip

    def _write_configuration(self) -> None:
        own = self.folder / "var-lib" / "node"
        for path in (own / "registries" / IMAGE_HOST, own / "cni", self.image_store):
            path.mkdir(parents=True, exist_ok=True)
        for name in ("containerd", "kubelet", "log", "programs", "volumes"):
            (self.folder / "var-lib" / name).mkdir(exist_ok=True)
        (self.cluster_folder / "volumes").mkdir(exist_ok=True)
        registry = f"http://{self.addresses.host}:{REGISTRY_PORT}"
        (own / "registries" / IMAGE_HOST / "hosts.toml").write_text(HOSTS_TOML.format(registry=registry))
        (own / "containerd.toml").write_text(CONTAINERD_TOML.format(pause=PAUSE_IMAGE, socket=CONTAINERD_SOCKET))
        (own / "cni" / "10-pods.conflist").write_text(json.dumps(self._cni()))
        (own / "kubelet.yaml").write_text(json.dumps(self._kubelet_configuration()))
        (own / "kube-proxy.yaml").write_text(json.dumps(self._proxy_configuration()))
        (own / "resolv.conf").write_text(f"nameserver {self.addresses.dns}\n")

    def _registered(self) -> bool:
        kubectl = self.programs / "kubectl"
        return shell.succeeds(kubectl, f"--kubeconfig={self.keys.kubeconfig('admin')}", "get", "node", self.name)

    def _cni(self) -> dict[str, object]:
        """A veth pair per pod: all traffic is routed, so Services work without bridge netfilter in the kernel."""
        ranges = [[{"subnet": self.addresses.node_pods(self.number)}]]
        ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"}
        return {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {"type": "ptp", "ipMasq": False, "ipam": ipam},
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def _kubelet_flags(self) -> list[str]:
        return [
            "--config=/var/lib/node/kubelet.yaml", "--kubeconfig=/var/lib/node/kubelet.kubeconfig",
            f"--hostname-override={self.name}", f"--node-ip={self.addresses.node(self.number)}",
        ]  # fmt: skip

    def _kubelet_configuration(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # Only the host and this cluster's own pods reach the port, and the cluster is temporary.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "clusterDNS": [self.addresses.dns],
            "clusterDomain": "cluster.local",
            "resolvConf": "/var/lib/node/resolv.conf",
            # The images are not in any public registry: one that the kubelet deletes would have to be built again.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "nodeStatusUpdateFrequency": "4s",
            "nodeLeaseDurationSeconds": 12,
            "serializeImagePulls": False,
        }

    def _proxy_configuration(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": "/var/lib/node/kube-proxy.kubeconfig"},
            "hostnameOverride": self.name,
            "mode": "iptables",
            "clusterCIDR": self.addresses.pods,
            "iptables": {"minSyncPeriod": "0s"},
            # These settings are machine-wide and cannot be changed from inside a network namespace.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }


def cgroup_of(cluster_folder: Path) -> str:
    """The control group above those of a cluster's nodes."""
    return f"finetune-{cluster_folder.name}"


def kill_nodes(running: dict[int, str]) -> None:
    """Kill marked processes, namespace holders first: the kernel then kills every shim and container inside."""
    holders = [
        child
        for pid, role in running.items()
        if role.startswith(f"{NAMESPACES}-") and (child := processes.child_of(pid))
    ]
    processes.kill([*holders, *running])


def _is_ready(unshare: int) -> bool:
    """Whether the first process runs `pause`; before that, `unshare` is still creating the namespaces."""
    child = processes.child_of(unshare)
    return child is not None and Path(f"/proc/{child}/comm").read_text().strip() == "pause"


# Every source is first bound below the node's folder, since that folder may be under a path that a later line covers.
MOUNTS = """\
mount -t proc proc /proc
hostname '{name}'
mount --bind '{store}' '{node}/var-lib/containerd'
mount --bind '{volumes}' '{node}/var-lib/volumes'
mount --bind '{programs}' '{node}/var-lib/programs'
mount --rbind '{node}/var-lib' /var/lib
mount --bind /var/lib/log /var/log
mount --bind /var/lib/volumes /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount --make-rshared /
sysctl -q -w net.ipv4.ip_forward=1
"""

HOSTS_TOML = """\
server = "{registry}"
[host."{registry}"]
  capabilities = ["pull", "resolve"]
"""

CONTAINERD_TOML = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    # The registry keeps the layers; a second copy of six gigabytes is not needed.
    discard_unpacked_layers = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/var/lib/node/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/var/lib/node/registries"
"""
