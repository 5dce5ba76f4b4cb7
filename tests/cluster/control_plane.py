"""etcd, API server, controller manager, scheduler and DNS: processes of the host on the cluster's own addresses.

They are independent of nodes. Comments explain flags that differ from a production cluster.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import credentials, processes
from tests.cluster.audit import AuditLog
from tests.cluster.credentials import Credentials
from tests.cluster.network import Addresses
from tests.cluster.paths import cache_root

NOBODY = 65532
"""The user of the controller manager: it creates the volumes' folders, which must belong to the pods' user."""


@dataclass(frozen=True)
class ControlPlane:
    """What is needed to start each process of one cluster's control plane."""

    folder: Path
    programs: Path
    addresses: Addresses
    keys: Credentials
    nodes: list[str]
    more_flags: Mapping[str, Sequence[str]]
    """Process name → flags added after our own, so that they override these."""

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.addresses.host}:6443"

    def log(self, role: str) -> Path:
        """The log of one process."""
        return self.folder / "logs" / f"{role}.log"

    def start_api(self) -> None:
        """Start etcd and the API server, write the kubeconfig files, and return when the server is ready."""
        self.start_etcd()
        pid = self._start("kube-apiserver", self._apiserver_flags())
        log = self.log("kube-apiserver")
        processes.wait_until(self.keys.ca.exists, "API server's certificate", timeout=60, pid=pid, log=log)
        credentials.write_kubeconfigs(self.keys, self.server, self.folder.name)
        processes.wait_until(self.answers, "API server", timeout=120, pid=pid, log=log)

    def start_etcd(self) -> None:
        """Start etcd with its existing data."""
        self._start("etcd", self._etcd_flags())

    def start_apiserver(self) -> None:
        """Restart the API server and return when it is ready; certificate and kubeconfig files are unchanged."""
        pid = self._start("kube-apiserver", self._apiserver_flags())
        processes.wait_until(self.answers, "API server", timeout=120, pid=pid, log=self.log("kube-apiserver"))

    def answers(self) -> bool:
        """Whether the API server reports that it is ready."""
        return answers(f"{self.server}/readyz", self.keys.ca)

    def start_controllers(self) -> None:
        """Start the controller manager in a mount namespace where /tmp is the cluster's own folder.

        Its built-in host-path provisioner creates volumes only below /tmp. It runs as the pods' user, so that they can
        write to the folders; two capabilities let it read its own files and delete what other users wrote. A cache that
        is itself below /tmp is mounted back: it contains the programs and keys.
        """
        volumes, cache = self.folder / "volumes", cache_root()
        volumes.mkdir(exist_ok=True)
        view = f"exec 9<'{cache}'; mount --bind '{volumes}' /tmp"
        if cache.is_relative_to("/tmp"):
            view += f"; mkdir -p '{cache}'; mount --no-canonicalize --bind /proc/self/fd/9 '{cache}'"
        privileges = "+dac_override,+fowner"
        before = [
            "unshare", "--mount", "sh", "-ec", f"{view}; exec 9<&-; exec \"$@\"", "sh",
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
            f"--inh-caps={privileges}", f"--ambient-caps={privileges}",
        ]  # fmt: skip
        self._start("kube-controller-manager", self._controller_flags(), before)

    def start_scheduler(self) -> None:
        """Start the scheduler."""
        self._start("kube-scheduler", self._scheduler_flags())

    def start_dns(self) -> None:
        """Start CoreDNS on the host's cluster address; the Service `kube-dns` points there."""
        corefile = self.folder / "Corefile"
        corefile.write_text(COREFILE.format(host=self.addresses.host, kubeconfig=self.keys.kubeconfig("coredns")))
        self._start("dns", ["-conf", str(corefile)])

    def wait_ready(self) -> None:
        """Return when controller manager, scheduler and DNS answer."""
        checks: dict[str, Callable[[], bool]] = {
            "kube-controller-manager": lambda: answers(f"https://{self.addresses.loopback}:10257/healthz"),
            "kube-scheduler": lambda: answers(f"https://{self.addresses.loopback}:10259/readyz"),
            "dns": lambda: answers(f"http://{self.addresses.host}:8181/ready"),
        }
        started = {role: pid for pid, role in processes.running(str(self.folder)).items()}
        for role, check in checks.items():
            if role in started:
                processes.wait_until(check, role, timeout=60, pid=started[role], log=self.log(role))

    def _start(self, role: str, flags: list[str], before: list[str] | None = None) -> int:
        command: list[str | Path] = [*(before or []), self.programs / role, *flags, *self.more_flags.get(role, ())]
        return processes.start(str(self.folder), role, command, self.log(role))

    def _etcd_flags(self) -> list[str]:
        url, peer = f"http://{self.addresses.loopback}:2379", f"http://{self.addresses.loopback}:2380"
        return [
            "--name=default", f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=warn",
            f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        ]  # fmt: skip

    def _apiserver_flags(self) -> list[str]:
        return [
            f"--etcd-servers=http://{self.addresses.loopback}:2379",
            f"--bind-address={self.addresses.host}", f"--advertise-address={self.addresses.host}", "--secure-port=6443",
            f"--cert-dir={self.keys.certificates}",
            f"--token-auth-file={self.keys.token_file}",
            f"--service-account-key-file={self.keys.service_account_key}",
            f"--service-account-signing-key-file={self.keys.service_account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={self.addresses.services}",
            "--kubelet-preferred-address-types=InternalIP",  # node names are in no DNS
            "--allow-privileged",
            # Five minutes on a lost node are right in production and too long for a test that loses one on purpose.
            "--default-not-ready-toleration-seconds=15", "--default-unreachable-toleration-seconds=15",
            "--profiling=false",
            *AuditLog(self.folder).flags(),
        ]  # fmt: skip

    def _controller_flags(self) -> list[str]:
        return [
            *self._client_flags("kube-controller-manager"),
            "--use-service-account-credentials", f"--root-ca-file={self.keys.ca}",
            f"--service-account-private-key-file={self.keys.service_account_key}",
            "--leader-elect=false", "--enable-hostpath-provisioner",
            "--node-monitor-grace-period=15s",  # as above: a lost node must be noticed within a test
            # A claim that is created before its volume is known often waits 15 s for the next sync of all claims.
            "--pvclaimbinder-sync-period=1s",
            # Tests that create many jobs at once would be slowed by the default limit of 20 requests per second.
            "--kube-api-qps=200", "--kube-api-burst=400",
        ]  # fmt: skip

    def _scheduler_flags(self) -> list[str]:
        return [*self._client_flags("kube-scheduler"), "--leader-elect=false"]

    def _client_flags(self, role: str) -> list[str]:
        kubeconfig = self.keys.kubeconfig(role)
        return [
            f"--kubeconfig={kubeconfig}", f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={self.addresses.loopback}", f"--cert-dir={self.folder}/{role}",
        ]  # fmt: skip


COREFILE = """\
cluster.local:53 in-addr.arpa:53 {{
    bind {host}
    errors
    health {host}:8080
    ready {host}:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa
    }}
    cache 5
}}
# There is nothing outside: say so at once, where forwarding would end in a time-out.
.:53 {{
    bind {host}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def answers(url: str, ca: Path | None = None) -> bool:
    """Whether a URL answers 200; without `ca` the certificate is not verified (health on loopback)."""
    if ca is None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cafile=str(ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
