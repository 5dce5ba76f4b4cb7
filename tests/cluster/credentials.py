"""Credentials for the API server: one token per component, a key for service accounts, and kubeconfig files.

Every component has the user name and groups of a real cluster, so that Kubernetes' own RBAC and node authorizer apply.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import shell

ADMIN = "admin"


@dataclass(frozen=True)
class Credentials:
    """The files in one folder that hold a cluster's secrets."""

    folder: Path

    @property
    def token_file(self) -> Path:
        """The API server's token file: token, user, uid, groups."""
        return self.folder / "tokens.csv"

    @property
    def service_account_key(self) -> Path:
        """The private key that signs service-account tokens."""
        return self.folder / "service-account.key"

    @property
    def certificates(self) -> Path:
        """Where the API server writes its own certificate."""
        return self.folder / "apiserver"

    @property
    def ca(self) -> Path:
        """The CA that clients trust: the API server's self-signed certificate."""
        return self.certificates / "apiserver.crt"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of one component."""
        return self.folder / f"{user}.kubeconfig"


def create(folder: Path, nodes: list[str]) -> Credentials:
    """Write tokens and the service-account key into `folder`, readable only by their owner."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = Credentials(folder)
    lines = [f'{secrets.token_hex(24)},{user},{user},"{",".join(groups)}"' for user, groups in _users(nodes).items()]
    made.token_file.write_text("\n".join(lines) + "\n")
    shell.run("openssl", "genrsa", "-out", made.service_account_key, "2048")
    return made


def write_kubeconfigs(credentials: Credentials, server: str, cluster: str) -> None:
    """Write a kubeconfig for each user of the token file; the API server's certificate must exist."""
    for line in credentials.token_file.read_text().splitlines():
        token, user = line.split(",")[:2]
        path = credentials.kubeconfig(user.rsplit(":", 1)[-1])
        path.touch(mode=0o600)
        path.write_text(json.dumps(_kubeconfig(credentials.ca.read_text(), server, cluster, user, token), indent=1))


def _users(nodes: list[str]) -> dict[str, list[str]]:
    return {
        ADMIN: ["system:masters"],
        "system:kube-controller-manager": [],
        "system:kube-scheduler": [],
        "system:kube-proxy": [],
        "system:coredns": [],
        **{f"system:node:{node}": ["system:nodes"] for node in nodes},
    }


def _kubeconfig(ca: str, server: str, cluster: str, user: str, token: str) -> dict[str, object]:
    """A kubeconfig is YAML, and JSON is YAML: no library needed."""
    import base64

    authority = base64.b64encode(ca.encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }
