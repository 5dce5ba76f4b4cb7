"""A minimal Weights & Biases server for a run: GraphQL, the stream of a run's lines, and its files."""

import base64
import gzip
import json
from typing import Any

from tests.unit.finetune_trainer.fake_service import Answer, FakeService

KEY = f"local-{'0123456789' * 4}"
_BASIC = base64.b64encode(f"api:{KEY}".encode()).decode()


class FakeWandB(FakeService):
    """Accepts writes with the key. Everything received is also in `bodies`."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.bodies: list[bytes] = []

    def answer(self, _method: str, path: str, headers: Any, body: bytes) -> Answer:
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies.append(body)
        if path.startswith("/storage/"):
            self.files[path.removeprefix("/storage/")] = body
            return 200, {}, b""
        if headers.get("Authorization") != f"Basic {_BASIC}":
            return 401, {}, b"{}"
        said = self._graphql(json.loads(body)) if path == "/graphql" else self._stream(path, json.loads(body))
        return 200, {}, json.dumps(said).encode()

    def _graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        given = asked.get("variables") or {}
        match asked["operationName"]:
            case "RunResumeStatus":
                known = given["name"] in self.runs
                return {"data": {"model": {"bucket": self._bucket(given["name"])} if known else None}}
            case "UpsertBucket":
                return {"data": {"upsertBucket": self._upsert(given)}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.address}/storage/{name}"} for name in given["files"]]
                return {"data": {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}}
            case _:
                return {"data": {"serverInfo": {"features": []}}}

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        inserted = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], {"states": []})
        run |= {name: given[name] for name in ("project", "entity", "displayName", "config") if given.get(name)}
        return {"bucket": self._bucket(given["name"]), "inserted": inserted}

    def _bucket(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        project = {"id": "1", "name": run["project"], "entity": {"id": "1", "name": run.get("entity", "team")}}
        lines = {"historyLineCount": len(self.history), "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(self.history[-1])] if self.history else []), "eventsTail": "[]"}
        about = {"id": "1", "name": name, "displayName": run.get("displayName"), "config": run.get("config", "{}")}
        return (
            about
            | lines
            | tails
            | {"project": project, "summaryMetrics": self._summary(), "wandbConfig": '{"t": 1}', "tags": []}
        )

    def _summary(self) -> str:
        """The last value of each number."""
        return json.dumps({name: value for line in self.history for name, value in line.items()})

    def _stream(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[path.split("/")[-2]]
        added = asked.get("files", {}).get("wandb-history.jsonl")
        if added:
            lines = [json.loads(line) for line in added["content"]]
            self.history[added["offset"] :] = lines
        if asked.get("complete") is not None:
            run["states"].append(asked.get("exitcode"))
        return {}
