"""Tools that evaluate an object's status: kstatus, `kubectl wait`, Argo CD, and the columns of `kubectl get`."""

import json
import subprocess
from dataclasses import dataclass

import aiohttp

from finetune_api.manifest import Manifest
from finetune_operator.runtime.kube import Resource
from tests.cluster import binaries
from tests.unit.helm.health import health

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_AGE = "Age"


@dataclass(frozen=True)
class Sight:
    """One object at one moment, and its row of `kubectl get`."""

    resource: Resource
    situation: str
    obj: Manifest
    columns: dict[str, str]

    @property
    def phase(self) -> str:
        """The phase in status."""
        return str(self.obj.get("status", {}).get("phase", ""))

    @property
    def waits(self) -> list[str]:
        """Conditions for which `kubectl wait --for=condition=…` returns: those that are True of this generation."""
        status, generation = self.obj.get("status", {}), self.obj["metadata"]["generation"]
        conditions = status.get("conditions") or ()
        return [c["type"] for c in conditions if c["status"] == "True" and c["observedGeneration"] == generation]

    @property
    def argo(self) -> str:
        """The verdict of Argo CD's script."""
        return health(self.resource.kind, self.obj)[0]


async def columns(server: str, token: str, resource: Resource, namespace: str, name: str) -> dict[str, str]:
    """The object's row as the API server prints it for kubectl, without name, age and the columns of -o wide."""
    headers = {"Accept": _TABLE, "Authorization": f"Bearer {token}"}
    url = server + resource.path(namespace or None, name)
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        table = await answer.json()
    cells = table["rows"][0]["cells"]
    shown = [column["name"] for column in table["columnDefinitions"] if column["priority"] == 0]
    named = dict(zip((column["name"] for column in table["columnDefinitions"]), cells, strict=True))
    return {name: str(named[name]) for name in shown[1:] if name != _AGE and named[name] not in {None, ""}}


def kstatus(objects: list[Manifest]) -> list[str]:
    """The verdict of kstatus itself, for each object."""
    lines = "\n".join(json.dumps(obj) for obj in objects)
    command = [str(binaries.program("kstatus", "kstatus"))]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    return done.stdout.split()
