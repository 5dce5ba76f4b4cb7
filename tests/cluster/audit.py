"""The API server's audit log: requests and writes of service accounts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {
            "level": "Metadata",  # their bodies are secrets
            "userGroups": ["system:serviceaccounts"],
            "resources": [
                {"group": "", "resources": ["secrets", "serviceaccounts/token"]},
                {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
            ],
        },
        {"level": "Request", "userGroups": ["system:serviceaccounts"], "verbs": ["create", "update", "patch"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}
"""Excludes Kubernetes' own controllers, nodes and the tests themselves, so that the log has only tested clients."""


class AuditLog:
    """The log of one cluster."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "logs" / "audit.log"
        self._policy = folder / "audit-policy.json"

    def flags(self) -> list[str]:
        """Flags of the API server that writes it; its policy is a file by then."""
        self._policy.write_text(json.dumps(POLICY))
        return [f"--audit-policy-file={self._policy}", f"--audit-log-path={self.path}"]

    def requests(self, user: str) -> Iterator[dict[str, Any]]:
        """Requests of users whose names begin with `user`, as audit.k8s.io/v1 Events."""
        with self.path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    return  # this line is still being written
                entry: dict[str, Any] = json.loads(line)
                if entry["user"]["username"].startswith(user):
                    yield entry
