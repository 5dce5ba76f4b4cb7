"""Carries files into and out of a cluster's volumes through a pod, the way into a site without a network."""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import Self

from demo.console import DemoError
from demo.kubectl import Kubectl, Manifest

START_TIMEOUT = "180s"


class Carrier:
    """The pod of examples/quickstart/carrier.yaml; as a context manager it is there, and gone at the end."""

    def __init__(self, kubectl: Kubectl, pod: Manifest) -> None:
        """Nothing is made yet."""
        self._kubectl = kubectl
        self._pod = pod
        self._namespace = pod["metadata"]["namespace"]
        self._name = pod["metadata"]["name"]

    def __enter__(self) -> Self:
        """Make the pod and wait until it runs.

        Raises:
            DemoError: it does not start.
        """
        self._delete("--wait=true")
        self._kubectl.apply(self._pod)
        try:
            self._in_namespace("wait", "--for=condition=Ready", f"pod/{self._name}", f"--timeout={START_TIMEOUT}")
        except DemoError as error:
            raise DemoError(
                f"the pod that carries files does not start: {self._why()}",
                f"Look at it: kubectl -n {self._namespace} describe pod {self._name}",
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        """Delete the pod; the cluster ends it in its own time."""
        self._delete("--wait=false")

    def send(self, data: bytes, target: str) -> bool:
        """Put a file at a path in the pod, whole or not at all; False where the same file was there already.

        Raises:
            DemoError: it did not arrive.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = shlex.quote(target)
        if self._sh(f"sha256sum {path} 2>/dev/null || true").startswith(digest):
            return False
        script = (
            f"mkdir -p $(dirname {path}) && cat > {path}.unfinished && mv {path}.unfinished {path} && sha256sum {path}"
        )
        if not self._sh(script, stdin=data).startswith(digest):
            raise DemoError(f"{target} did not arrive whole", "Run `make demo` again.")
        return True

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        return self._sh(f"test -e {shlex.quote(path)} && echo yes || true").strip() == "yes"

    def read(self, path: str) -> str:
        """The text of a file."""
        return self._sh(f"cat {shlex.quote(path)}")

    def _sh(self, script: str, stdin: bytes | None = None) -> str:
        interactive = ["-i"] if stdin is not None else []
        return self._in_namespace("exec", *interactive, self._name, "--", "sh", "-c", script, stdin=stdin)

    def _delete(self, wait: str) -> None:
        self._in_namespace("delete", "pod", self._name, "--ignore-not-found", wait)

    def _why(self) -> str:
        """The newest event of the pod, which says more than its phase."""
        selector = f"--field-selector=involvedObject.name={self._name}"
        events = json.loads(self._in_namespace("get", "events", selector, "-o", "json"))["items"]
        return str(events[-1]["message"]) if events else "no event says why"

    def _in_namespace(self, *arguments: str, stdin: bytes | None = None) -> str:
        return self._kubectl.run("--namespace", self._namespace, *arguments, stdin=stdin)
