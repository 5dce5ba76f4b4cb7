"""A mutating webhook that injects containers into pods, served by the test itself."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_api.manifest import Manifest
from tests.cluster import Cluster
from tests.simulators import certificates

LABEL = "injected"
"""Label of namespaces whose pods get the containers."""


@contextmanager
def injecting(cluster: Cluster, name: str, *operations: Manifest) -> Iterator[None]:
    """Within the context, pods of namespaces labelled `injected: NAME` are changed by this JSON Patch."""
    tls = certificates.kept(cluster.folder / "injector-tls", (cluster.addresses.host,))
    patch = base64.b64encode(json.dumps(operations).encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            response = {"uid": asked["request"]["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
            body = json.dumps({"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": response}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer((cluster.addresses.host, 0), Handler) as server:
        server.socket = tls.context().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        authority = base64.b64encode(tls.authority.read_bytes()).decode()
        url = f"https://{cluster.addresses.host}:{server.server_port}"
        cluster.apply(_webhook(name, {"url": url, "caBundle": authority}))
        try:
            yield
        finally:
            cluster.kubectl("delete", "mutatingwebhookconfiguration", name)
            server.shutdown()
            thread.join()


def _webhook(name: str, client: Manifest) -> Manifest:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    webhook = {
        "name": f"{name}.injector.test",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "namespaceSelector": {"matchLabels": {LABEL: name}},
        "rules": [rule],
        "clientConfig": client,
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook],
    }


def container(name: str, image: str, code: str) -> Manifest:
    """A container that runs Python and satisfies the restricted Pod Security Standard."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {"name": name, "image": image, "command": ["python3", "-c", code], "securityContext": security}
