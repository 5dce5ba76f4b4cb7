"""The evaluation of a model at a simulated OpenAI: the trainer's own `measure`, over HTTPS, acts as the pod."""

import asyncio
import json
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from finetune_api.catalogue import Catalogue
from finetune_api.job_status import ProviderFile
from finetune_api.names import JOB_VARIABLE, REPORT_CA_VARIABLE
from finetune_api.trainer import MeasureJob, Report
from finetune_operator.runtime.kube import JOBS, PODS, TokenIdentity
from finetune_operator.runtime.report_server.server import ReportServer, RequestHandlers
from finetune_operator.runtime.settings import Settings
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.outcome import fail
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.operator_way import operator_way
from finetune_trainer.measure import measure
from tests.simulators.simulator import Simulator
from tests.unit.finetune_operator.decide.given import verdict
from tests.unit.finetune_operator.reconcilers.bedrock import BedrockCluster, conversations
from tests.unit.finetune_operator.reconcilers.cloud import AzureCluster, CloudCluster, catalogue, rows
from tests.unit.finetune_operator.runtime.tls import certificates

ROWS = 12
DATASET = {"train": {"uri": "pvc://data/train.jsonl"}, "test": {"uri": "pvc://data/test.jsonl"}}
PRICES = {"base": {"input": "0.15", "output": "0.60"}, "tuned": {"input": "0.30", "output": "1.20"}}
SIZE = {"rows": ROWS, "promptTokens": 100, "completionTokens": 50}


def split(name: str) -> dict[str, Any]:
    return {"file": f"{name}.jsonl", "format": "JSON lines", "rows": ROWS}


def priced(host: str, **prices: Any) -> Catalogue:
    return catalogue(host, model={"answers": {**PRICES, **prices, "asOf": "2026-11-01"}})


class MeasuredCluster(CloudCluster):
    """A cluster with the operator's report server, and the data in the pods' volume path."""

    content = rows(ROWS)
    """What the check pod uploads."""
    creates, lists = "fine_tuning.jobs.create", "deployments.list"
    """The calls that create a job and list deployments."""

    def __init__(self, provider: Simulator, url: str, folder: Path) -> None:
        self.folder = folder
        self.identities: dict[str, TokenIdentity] = {}
        self.servers = AsyncExitStack()
        (folder / "data").mkdir(parents=True)
        for name in ("train", "test"):
            (folder / "data" / f"{name}.jsonl").write_bytes(rows(ROWS))
        super().__init__(provider, url)

    def connect(self) -> None:
        super().connect()
        self.catalogue = priced(self.url.removeprefix("http://"))

    async def serve(self, monkeypatch: Any) -> None:
        """Start the report server, and give pods what they need to reach it."""
        self.certificates = await certificates()
        monkeypatch.setenv(REPORT_CA_VARIABLE, self.certificates.bundle)
        monkeypatch.setattr("finetune_trainer.attempt.report.TOKEN_PATH", str(self.folder / "token"))
        monkeypatch.setattr("finetune_api.uris.CLAIMS_PATH", str(self.folder))
        monkeypatch.setattr("finetune_operator.desired.names.CLAIMS_PATH", str(self.folder))
        monkeypatch.setattr("finetune_trainer.evaluation.endpoint._LONGEST_PAUSE", 0.01)
        await self.listen()

    async def listen(self) -> None:
        """Listen on a new port, as a new process would."""
        settings = Settings(report_port=0, report_bind="127.0.0.1", report_burst=100)
        made = ReportServer(
            settings, self.certificates.context,
            RequestHandlers(authorise=self.reports.authorise, accept=self.reports.accept, answering=self.answers),
            review=self.review, is_leader=lambda: self.leads,
        )  # fmt: skip
        await made.start()
        self.servers.push_async_callback(made.stop)
        self.port = made.port

    async def review(self, token: str, _: str) -> TokenIdentity | None:
        return self.identities.get(token)

    async def aclose(self) -> None:
        await self.servers.aclose()
        await super().aclose()

    async def begin(self, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
        """Run until the job's model exists and awaits its evaluation."""
        await self.serve(monkeypatch)
        self.add_cloud_job(**({"dataset": DATASET} | fields))
        await self.settle()
        await self.tune()

    async def go_on(self, until: Callable[[], bool], seconds: float = 60, looks: int = 60) -> None:
        for _ in range(looks):
            if until():
                return
            await self.pass_time(seconds)
        raise AssertionError(f"it does not come to that: {self.status()}")

    def checked(self, files: list[ProviderFile], tokens: int = 1000, **of: Any) -> Report:
        checked = {"files": [file.wire() for file in files], "tokens": tokens, "evaluation": SIZE}
        found = verdict(train=split("train"), test=split("test"))
        return self.report("Checked", **of, dataset=found, checked=checked)

    async def tune(self) -> None:
        """Run from the check to the provider's model."""
        await self.check(self.content)
        await self.settle()
        await self.pass_time(3600)

    def start_pod(self, number: int = 1, job: str = "sentiment-1", component: str | None = None) -> MeasureJob:
        """Act as Job controller and kubelet; returns the pod's job, with addresses of this machine."""
        name = f"{job}-1-eval{number}"
        batch_job = self.kube.objects[JOBS, "team-a", name]
        template, metadata = batch_job["spec"]["template"], batch_job["metadata"]
        labels = template["metadata"]["labels"] | {"batch.kubernetes.io/job-name": name}
        labels |= {"app.kubernetes.io/component": component} if component else {}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": metadata["uid"]}
        pod = {"name": f"{name}-x", "namespace": "team-a", "labels": labels, "ownerReferences": [owner]}
        self.kube.put(PODS, {"metadata": pod, "status": {"phase": "Running"}})
        made = self.kube.objects[PODS, "team-a", f"{name}-x"]["metadata"]
        account = "system:serviceaccount:team-a:default"
        token = f"head.claims-{made['uid']}.signature"
        (self.folder / "token").write_text(token, encoding="utf-8")
        self.identities[token] = TokenIdentity(account, "s", (), "team-a", "default", made["name"], made["uid"])
        self.pod = number
        container = template["spec"]["containers"][0]
        assert container["args"] == ["measure"]
        told = next(one["value"] for one in container["env"] if one["name"] == JOB_VARIABLE)
        here = told.replace("https://reports.finetune.svc", f"https://localhost:{self.port}")
        return MeasureJob.model_validate_json(here)

    async def ask(self, job: MeasureJob) -> Report:
        """Do the pod's work in a thread, while the operator runs."""
        reporter = Reporter(job)

        def work() -> None:
            try:
                measure(job, operator_way(), reporter, Interruption())
            except TrainerError as error:
                fail(reporter, error)
            reporter.close()

        running = asyncio.create_task(asyncio.to_thread(work))
        while not running.done():
            await asyncio.wait([running], timeout=0.02)
            self.now += timedelta(seconds=1)
            await self.settle()
        running.result()
        return reporter.report

    def finish_pod(self, last: Report | None, exit_code: int = 0, job: str = "sentiment-1") -> None:
        """End the pod with the trainer's termination message."""
        self.end_pod(exit_code, last, job=job, attempt=f"1-eval{self.pod}")  # type: ignore[arg-type]

    async def measure(self, number: int = 1) -> Report:
        """Run a pod from start to end."""
        job = self.start_pod(number)
        await self.settle()
        last = await self.ask(job)
        self.finish_pod(last, 0 if last.phase == "Measured" else 1)
        await self.settle()
        return last

    async def begin_anew(self) -> None:
        """Restart with a new leader, which has nothing of the first one's memory."""
        await self.accounts.close()
        self.restart()
        await self.observer.resync()
        await self.listen()
        await self.settle()

    @property
    def evaluation(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status()["provider"]["evaluation"]
        return found

    def evaluation_state(self) -> dict[str, Any]:
        """The same; empty where there is none yet."""
        found: dict[str, Any] = self.status().get("provider", {}).get("evaluation", {})
        return found

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.certificates.bundle)


class AzureMeasured(MeasuredCluster, AzureCluster):
    """At Azure OpenAI, whose models answer only in deployments."""

    content = b"\xef\xbb\xbf" + rows(ROWS)

    def connect(self) -> None:
        AzureCluster.connect(self)
        model = {"answers": {**PRICES, "asOf": "2026-11-01"}}
        self.catalogue = catalogue("azureOpenAI", hosting={"Standard": "1.70", "DeveloperTier": "0.00"}, model=model)


class BedrockMeasured(MeasuredCluster, BedrockCluster):
    """At Bedrock, where base models are called on demand."""

    content = conversations(ROWS)
    creates, lists = "CreateModelCustomizationJob", "ListCustomModelDeployments"

    def connect(self) -> None:
        BedrockCluster.connect(self)
        model = {
            "training": {"perMillionTokens": "1.00", "asOf": "2026-11-01"},
            "answers": {**PRICES, "asOf": "2026-11-01"},
        }
        self.catalogue = Catalogue.model_validate({"providers": {"bedrock": {"models": {"amazon.nova-*": model}}}})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
