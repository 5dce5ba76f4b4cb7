"""Simulates the pods that check data: replaces Job controller, kubelet and trainer, and uploads the files."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlencode

import aiohttp
import orjson

from bench.cloud.clouds import Cloud, Kind
from bench.scale.load import Api
from bench.scale.pushes import PODS, token_of
from bench.scale.world import NAMESPACE
from finetune_api.manifest import Manifest
from finetune_api.names import JOB_VARIABLE, UPLOAD_PATH

ROWS = 12
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""The trainer's pauses between tries of an upload, unless it is asked to wait longer."""


def _conversations() -> bytes:
    def said(role: str, text: str) -> Manifest:
        return {"role": role, "content": text}

    lines = ({"messages": [said("user", f"question {n}"), said("assistant", f"answer {n}")]} for n in range(ROWS))
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _for_nova() -> bytes:
    def said(role: str, text: str) -> Manifest:
        return {"role": role, "content": [{"text": text}]}

    lines = ({"schemaVersion": "bedrock-conversation-2024",
              "messages": [said("user", f"question {n}"), said("assistant", f"answer {n}")]}
             for n in range(ROWS))  # fmt: skip
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


DATA: dict[Kind, bytes] = {
    "openAI": _conversations(),
    "azureOpenAI": b"\xef\xbb\xbf" + _conversations(),
    "bedrock": _for_nova(),
}


@dataclass
class Checks:
    """All check pods of a run.

    Args:
        api: the API server.
        clouds: connections by name.
        report_port: the operator's port for uploads.
        told: whether a job's pod only claims to have uploaded its file: a dead provider accepts no uploads, and half
            of its jobs are to have theirs before it dies.
    """

    api: Api
    clouds: dict[str, Cloud]
    report_port: int
    told: Callable[[str, Cloud], bool]
    waits: int = 0
    """How often a pod was asked to come back later."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _addresses: Iterator[str] = field(
        default_factory=lambda: (f"127.{a}.{b}.{c}" for a, b, c in itertools.product(range(1, 255), repeat=3))
    )

    async def play(self) -> None:
        """Do what the pod of each check Job would do; never returns."""
        try:
            async for kind, job in self.api.watch(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"):
                if kind == "ADDED":
                    task = asyncio.create_task(self._check(job))
                    self._tasks.add(task)
                    task.add_done_callback(self._ended)
        finally:
            for task in self._tasks:
                task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Print a pod's failure: otherwise the run would just be slow."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print(f"a check's pod failed: {task.exception()!r}")

    async def _check(self, job: Manifest) -> None:
        pod = await self.api.create(PODS, _pod(job))
        name, token = await token_of(self.api, pod)
        prepare = _prepare(job)
        cloud = self.clouds[prepare["spec"]["connectionRef"]["name"]]
        data = DATA[cloud.kind]
        digest = hashlib.sha256(data).hexdigest()
        if self.told(prepare["name"], cloud):
            file = {"split": "train", "id": f"file-{prepare['uid']}", "bytes": len(data), "sha256": digest}
        else:
            file = await self._send(prepare, token, data, digest)
        await self.api.merge(f"{PODS}/{name}/status", {"status": _ended_well(prepare, file)})

    async def _send(self, prepare: Manifest, token: str, data: bytes, digest: str) -> Manifest:
        """PUT the file until it is accepted, as the trainer does, from its own address and connection."""
        target = {key: str(prepare[key]) for key in ("namespace", "name", "uid", "attempt")}
        query = urlencode(target | {"split": "train", "sha256": digest})
        url = f"https://127.0.0.1:{self.report_port}{UPLOAD_PATH}?{query}"
        connector = aiohttp.TCPConnector(ssl=False, local_addr=(next(self._addresses), 0))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/jsonl"}
        pause = FIRST_PAUSE
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            while True:
                found, asked = await _put(session, url, data)
                if found is not None:
                    return found
                self.waits += 1
                await asyncio.sleep(asked or pause)
                pause = min(2 * pause, LONGEST_PAUSE)


async def _put(session: aiohttp.ClientSession, url: str, data: bytes) -> tuple[Manifest | None, float]:
    """The file in the operator's response, or the seconds after which to try again.

    Raises:
        RuntimeError: the file is refused.
    """
    try:
        async with session.put(url, data=data) as answer:
            if answer.status == HTTPStatus.OK:
                return await answer.json(), 0.0
            # 403: the operator has not seen the pod yet.
            if answer.status not in {
                HTTPStatus.SERVICE_UNAVAILABLE,
                HTTPStatus.FORBIDDEN,
                HTTPStatus.TOO_MANY_REQUESTS,
            }:
                raise RuntimeError(f"{answer.status}: {await answer.text()}")
            return None, float(answer.headers.get("Retry-After", 0))
    except aiohttp.ClientConnectionError:
        return None, 0.0


def _prepare(job: Manifest) -> Manifest:
    """The job in the pod's environment."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    told: Manifest = next(orjson.loads(one["value"]) for one in container["env"] if one["name"] == JOB_VARIABLE)
    return told


def _pod(job: Manifest) -> Manifest:
    """As the Job controller creates it, without fields that only a kubelet reads."""
    metadata, template = job["metadata"], job["spec"]["template"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    labels = template["metadata"]["labels"] | {"batch.kubernetes.io/job-name": metadata["name"]}
    own = {"name": f"{metadata['name']}-0", "namespace": NAMESPACE, "labels": labels, "ownerReferences": [owner]}
    (container,) = template["spec"]["containers"]
    small = {"name": container["name"], "image": container["image"]}
    spec = {"serviceAccountName": "default", "restartPolicy": "Never", "containers": [small]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": own, "spec": spec}


def _ended_well(prepare: Manifest, file: Manifest) -> Manifest:
    """The status of a pod that succeeded."""
    report = {key: prepare[key] for key in ("namespace", "name", "uid", "attempt")}
    report |= {"phase": "Checked", "checked": {"files": [file], "tokens": 100}}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"exitCode": 0, "message": json.dumps(report), "startedAt": now, "finishedAt": now}
    container = {"name": "trainer", "image": "none", "imageID": "", "ready": False, "restartCount": 0}
    return {"phase": "Succeeded", "containerStatuses": [container | {"state": {"terminated": ended}}]}
