"""N trainers that report at the same moment, each like a pod: own address, token and connection, with retries."""

from __future__ import annotations

import asyncio
import itertools
import time
import urllib.request
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp
import orjson

from bench.scale.load import Api, in_turns
from bench.scale.world import NAMESPACE
from finetune_api.manifest import Manifest
from finetune_api.names import JOB_LABEL, JOB_VARIABLE, REPORT_PATH, TOKEN_AUDIENCE

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
TOKENS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token"
PROBE_EVERY_SECONDS = 0.1


@dataclass
class Pushed:
    """Results for the reports. Times in seconds."""

    taken: list[float] = field(default_factory=list)
    """From the common start until a report was accepted, including waits."""
    told_to_wait: int = 0
    """Responses 429 and 503, and connections closed during a request: retry later."""
    shown: float = 0.0
    """Until the client's watch shows the last job's progress in its status."""
    probes: list[float] = field(default_factory=list)
    """Durations of the liveness probe during this time."""


async def play(
    kubeconfig: Path, path: str, jobs: list[Manifest], *, report_port: int, probe_port: int, seconds: float
) -> Pushed:
    """Apply jobs whose pods keep running, wait for the pods, and have all report at once.

    Raises:
        TimeoutError: not finished in time.
    """
    pushed = Pushed()
    async with Api.connect(kubeconfig) as api, asyncio.timeout(seconds):
        await in_turns(jobs, lambda job: api.create(path, job))
        pods = await _running_pods(api, len(jobs))
        tokens = dict(await in_turns(pods, lambda pod: token_of(api, pod)))
        began = time.monotonic()
        probing = asyncio.create_task(_probe(probe_port, pushed))
        showing = asyncio.create_task(_shown(api, path, len(jobs)))
        try:
            addresses = (f"127.{a}.{b}.{c}" for a, b, c in itertools.product(range(1, 255), repeat=3))
            trainers = [
                Trainer(f"https://127.0.0.1:{report_port}{REPORT_PATH}", address, pod, tokens[pod["metadata"]["name"]])
                for pod, address in zip(pods, addresses, strict=False)
            ]
            await asyncio.gather(*(trainer.report(pushed, began) for trainer in trainers))
            pushed.shown = await showing - began
        finally:
            probing.cancel()
            showing.cancel()
    return pushed


async def _running_pods(api: Api, count: int) -> list[Manifest]:
    running: dict[str, Manifest] = {}
    async for _, pod in api.watch(PODS):
        if pod.get("status", {}).get("phase") == "Running" and JOB_LABEL in pod["metadata"]["labels"]:
            running[pod["metadata"]["name"]] = pod
        if len(running) == count:
            break
    return list(running.values())


async def token_of(api: Api, pod: Manifest) -> tuple[str, str]:
    """As mounted by the kubelet: a token bound to the pod, with the operator as its only audience."""
    metadata = pod["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    request = {"audiences": [TOKEN_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": request}
    made = await api.create(TOKENS, body)
    return metadata["name"], made["status"]["token"]


def report_of(pod: Manifest) -> Manifest:
    """A report from the middle of training, for the job in the pod's environment."""
    (container,) = pod["spec"]["containers"]
    job = next(orjson.loads(one["value"]) for one in container["env"] if one["name"] == JOB_VARIABLE)
    own = {key: job[key] for key in ("namespace", "name", "uid", "attempt")}
    loss = {"train": [{"step": step, "value": 1 / step} for step in range(1, 51)], "validation": []}
    progress = {"step": 50, "totalSteps": 100, "percent": 50, "updatedAt": "2026-01-01T00:00:00Z"}
    return {**own, "phase": "Running", "progress": progress, "loss": loss}


@dataclass(frozen=True)
class Trainer:
    """One pod from the view of the report server."""

    url: str
    address: str
    pod: Manifest
    token: str

    async def report(self, pushed: Pushed, began: float) -> None:
        """Report until it is accepted, waiting when the server asks for it.

        Raises:
            RuntimeError: the server rejects it.
        """
        connector = aiohttp.TCPConnector(ssl=False, local_addr=(self.address, 0))  # a throw-away certificate
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        body = orjson.dumps(report_of(self.pod))
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            while (wait := await self._post(session, body)) is not None:
                pushed.told_to_wait += 1
                await asyncio.sleep(wait)
        pushed.taken.append(time.monotonic() - began)

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> float | None:
        """Seconds after which to retry; None: accepted."""
        try:
            async with session.post(self.url, data=body) as answer:
                if answer.status == HTTPStatus.ACCEPTED:
                    return None
                if answer.status not in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
                    raise RuntimeError(f"{answer.status}: {await answer.text()}")
                return float(answer.headers.get("Retry-After", 1))
        except aiohttp.ClientConnectionError:
            # The server may close the connection if it asks to wait before the body was read.
            return 1.0


async def _shown(api: Api, path: str, count: int) -> float:
    """When the last job's status shows the reported step."""
    showing: set[str] = set()
    async for _, job in api.watch(path):
        if ((job.get("status") or {}).get("progress") or {}).get("step"):
            showing.add(job["metadata"]["name"])
        if len(showing) == count:
            break
    return time.monotonic()


async def _probe(port: int, pushed: Pushed) -> None:
    def ask() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            answer.read()

    while True:
        began = time.monotonic()
        await asyncio.to_thread(ask)
        pushed.probes.append(time.monotonic() - began)
        await asyncio.sleep(PROBE_EVERY_SECONDS)
