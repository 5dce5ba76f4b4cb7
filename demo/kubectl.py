"""kubectl as the demo calls it: run, apply what a file says, and follow one object."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.console import DemoError

Manifest = dict[str, Any]

CHUNK_BYTES = 1 << 20


class Kubectl:
    """One kubectl and the cluster that it speaks to.

    Args:
        program: the kubectl binary.
        kubeconfig: its kubeconfig; None: what kubectl itself finds.
    """

    def __init__(self, program: str, kubeconfig: Path | None = None) -> None:
        """Fix program and cluster; nothing is asked yet."""
        self.program = program
        self.kubeconfig = kubeconfig

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [self.program, *([f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []), *arguments]

    def run(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run it and return its output.

        Raises:
            DemoError: it failed, with what it said.
        """
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, check=False)
        if done.returncode != 0:
            raise DemoError(f"kubectl {' '.join(arguments[:4])}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()

    def get(self, *arguments: str) -> Manifest | None:
        """One object or list as JSON, or None where it is not there."""
        text = self.run("get", *arguments, "--ignore-not-found", "-o", "json")
        found: Manifest | None = json.loads(text) if text.strip() else None
        return found

    def manifests(self, path: Path) -> list[Manifest]:
        """The objects of a file, as kubectl reads it."""
        text = self.run("create", "--dry-run=client", "-o", "json", "-f", str(path))
        return list(_documents(text))

    def apply(self, *objects: Manifest) -> None:
        """Apply objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "-f", "-", stdin=json.dumps(items).encode())

    def follow(self, kind: str, name: str, namespace: str, patience: float = 1.0) -> Iterator[Manifest | None]:
        """An object each time it changes, for ever; None each time that nothing happened for `patience` seconds.

        It need not be there yet.

        Raises:
            DemoError: it cannot be watched.
        """
        while True:
            yield from self._follow_once(kind, name, namespace, patience)

    def _follow_once(self, kind: str, name: str, namespace: str, patience: float) -> Iterator[Manifest | None]:
        """One watch; API servers end each after some minutes."""
        one = f"--field-selector=metadata.name={name}"  # by its name alone, kubectl refuses what is not there yet
        command = self.command("get", kind, one, "--namespace", namespace, "--watch", "-o", "json")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                yield from _objects(process.stdout.fileno(), patience)
            finally:
                process.kill()
            said = process.stderr.read().decode(errors="replace").strip()
        if "forbidden" in said.lower() or "the server doesn't have a resource type" in said.lower():
            raise DemoError(f"kubectl get {kind} {name}: {said}")


def _objects(descriptor: int, patience: float) -> Iterator[Manifest | None]:
    decoder = json.JSONDecoder()
    buffer = ""
    while True:
        if not select.select([descriptor], [], [], patience)[0]:
            yield None
            continue
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            return
        buffer += chunk.decode()  # kubectl writes ASCII: it escapes what is not
        while buffer.lstrip():
            buffer = buffer.lstrip()
            try:
                found, end = decoder.raw_decode(buffer)
            except json.JSONDecodeError:
                break  # the rest of it comes with the next chunk
            buffer = buffer[end:]
            yield found


def _documents(text: str) -> Iterator[Manifest]:
    """The objects in kubectl's output: one after the other, or within a List."""
    decoder = json.JSONDecoder()
    rest = text.strip()
    while rest:
        found, end = decoder.raw_decode(rest)
        rest = rest[end:].strip()
        yield from found["items"] if found["kind"] == "List" else [found]
