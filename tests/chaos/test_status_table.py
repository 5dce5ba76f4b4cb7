"""docs/reference/status.md: what each phase looks like to tools, made from objects that a real operator has written."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

import aiohttp
import pytest
import yaml

from finetune_api.base import NOT_RECONCILED
from finetune_api.deployment import DeploymentPhase
from finetune_api.job_status import JobPhase
from finetune_api.manifest import Manifest
from finetune_api.names import DEPLOYMENT_LABEL, REPORT_PATH, TOKEN_AUDIENCE, TRAINER_CONTAINER
from finetune_operator.runtime.kube import CONNECTIONS, FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, Resource
from tests.chaos import operators
from tests.chaos.conftest import Outcome
from tests.chaos.judges import Sight, columns, kstatus
from tests.chaos.operators import ROOT
from tests.chaos.site import MOMENT, Site, connection
from tests.chaos.stage import Plays, Stage
from tests.chaos.wire import open_wire
from tests.cluster.cluster import Cluster
from tests.cluster.ports import free_port

PAGE = ROOT / "docs/reference/status.md"
BEGIN, END = "<!-- made by `make status-table` -->\n", "<!-- end -->\n"
KINDS = (FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, CONNECTIONS)
KEPT = "is deleted, and somebody's finalizer keeps it"
NO_VERSION = "no job has made a version yet"
"""For Argo CD it is well: a model may stand in an earlier sync wave than the job that makes its first version."""

PULL_FAILS = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
JOB, MODEL = "sentiment-1", "sentiment"


@dataclass
class Walkthrough:
    """One site with an operator, and what was seen on the way."""

    site: Site
    cluster: Cluster
    server: str
    report_port: int
    sights: list[Sight] = field(default_factory=list)

    async def see(
        self,
        resource: Resource,
        situation: str,
        name: str = JOB,
        *,
        phase: str = "",
        unseen: bool = False,
        **condition: str,
    ) -> None:
        """Wait until an object is in a phase or has a condition, and keep what is there then.

        `unseen`: in what its definition says of it, before any operator does.
        """
        namespace = self.site.name if resource.namespaced else ""

        async def look() -> Manifest | None:
            obj = await self.site.kube.get(resource, name, namespace or None)
            status = (obj or {}).get("status") or {}
            reasons = {c["type"]: c["reason"] for c in status.get("conditions") or () if c["status"] == "True"}
            fits = (not phase or status.get("phase") == phase) and condition.items() <= reasons.items()
            return obj if fits and unseen == (status.get("observedGeneration") == NOT_RECONCILED) else None

        obj = await self.site.until(look, f"{resource.kind} {situation}")
        row = await columns(self.server, self._token(), resource, namespace, name)
        self.sights.append(Sight(resource, situation, obj, row))

    @asynccontextmanager
    async def deleted(self, resource: Resource, name: str) -> AsyncIterator[None]:
        """Meanwhile an object is deleted and does not go."""
        kube, namespace = self.site.kube, self.site.name
        await kube.merge_patch(resource, name, namespace, {"metadata": {"finalizers": ["example.com/audit"]}})
        await kube.delete(resource, name, namespace)
        yield
        await kube.merge_patch(resource, name, namespace, {"metadata": {"finalizers": None}})

    async def report(self, pod: Manifest, phase: str, **body: Any) -> None:
        """What the trainer posts, with the token of its pod."""
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}")
        ask = ("create", "token", "default", "-n", self.site.name, f"--audience={TOKEN_AUDIENCE}", *bound)
        token = (await asyncio.to_thread(self.cluster.kubectl, *ask)).strip()
        report = {"namespace": self.site.name, "name": JOB, "attempt": 1, "phase": phase, **body}
        report["uid"] = (await self.site.kube.get(FINE_TUNE_JOBS, JOB, self.site.name) or {})["metadata"]["uid"]
        url, headers = f"https://127.0.0.1:{self.report_port}{REPORT_PATH}", {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=report, headers=headers, ssl=False) as answer,
        ):
            assert answer.status < 300, await answer.text()

    def _token(self) -> str:
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        return str(config["users"][0]["user"]["token"])


async def of_the_unseen(walk: Walkthrough) -> None:
    """What users may apply before there is an operator."""
    named: dict[Resource, Manifest] = {
        FINE_TUNE_JOBS: {
            "connectionRef": {"name": "nowhere"},
            "baseModel": "example/tiny",
            "modelRef": {"name": "unseen"},
            "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
        },
        FINE_TUNED_MODELS: {},
        MODEL_DEPLOYMENTS: {"modelRef": {"name": "nobody"}},
    }
    for resource, spec in named.items():
        await walk.site.apply(resource, "unseen", spec)
        await walk.see(resource, "no operator has looked at it yet", "unseen", unseen=True)


async def of_jobs(walk: Walkthrough) -> None:
    """A job from its first moment to each of its ends."""
    site, jobs = walk.site, FINE_TUNE_JOBS
    await site.job("lost", connectionRef={"name": "nowhere"})
    await walk.see(jobs, "its connection does not exist (yet)", "lost", phase="Pending")
    await site.job(JOB)
    await walk.see(jobs, "waits for its pod", phase="Queued", Reconciling="Queued")
    pod = await site.pod_of(JOB)
    await site.pod_says(pod, TRAINER_CONTAINER, PULL_FAILS)
    await walk.see(jobs, "its pod cannot start", phase="Queued", Stalled="ImagePullFailed")
    await site.trainer()
    await walk.see(jobs, "the trainer reads the dataset", phase="Validating")
    await walk.report(pod, "Running", progress={"step": 5, "totalSteps": 10, "percent": 50, "updatedAt": MOMENT})
    await walk.see(jobs, "the model is tuned", phase="Running")
    await walk.report(pod, "Evaluating")
    await walk.see(jobs, "the tuned model is measured", phase="Evaluating")
    await site.ends(pod, message=await site.result(JOB, 1))
    await walk.see(jobs, "has made a version", phase="Succeeded")
    await site.job("hungry", modelRef={"name": "other"})
    await site.ends(await site.trainer(job="hungry"), 137, "OOMKilled")
    await walk.see(jobs, "between two attempts", "hungry", phase="Pending", Reconciling="Retrying")
    await site.edit(jobs, "hungry", {"suspend": True})
    await walk.see(jobs, "suspended by its user", "hungry", phase="Suspended")
    await site.job("broken", modelRef={"name": "other"})
    await site.ends(await site.trainer(job="broken"), 65)
    await walk.see(jobs, "has failed for good", "broken", phase="Failed")
    await site.job("unwanted", modelRef={"name": "other"})
    await site.pod_of("unwanted")
    async with walk.deleted(jobs, "unwanted"):
        await walk.see(jobs, KEPT, "unwanted", phase="Cancelled")


async def of_models(walk: Walkthrough) -> None:
    """The model of the job that has succeeded, its deployment, and those that lack something."""
    site, models, deployments = walk.site, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS
    await walk.see(models, "its active version is being deployed", MODEL, Reconciling="Deploying")
    await walk.see(deployments, "its first server comes up", MODEL, phase="Deploying")
    server = await site.pod_with(f"{DEPLOYMENT_LABEL}={MODEL}")
    await site.pod_says(server, "server", PULL_FAILS)
    await walk.see(deployments, "its first server does not come up", MODEL, phase="Failed")
    await walk.see(models, "its active version cannot be served", MODEL, Stalled="ImagePullFailed")
    await site.served()
    await walk.see(deployments, "answers", MODEL, phase="Ready")
    await walk.see(models, "its active version answers", MODEL, Ready="Ready")
    await site.job("sentiment-2")
    await site.succeeds(job="sentiment-2")
    await walk.see(deployments, "answers, and a new version comes up", MODEL, phase="Updating")
    newer = await site.pod_with(f"{DEPLOYMENT_LABEL}={MODEL},finetune.dev/version=2")
    await site.pod_says(newer, "server", PULL_FAILS)
    await walk.see(deployments, "answers, and a new version does not come up", MODEL, phase="Degraded")
    await site.edit(models, MODEL, {"deployment": {"template": {"huggingFace": {"replicas": 0}}}})
    await site.says(lambda status: status.get("replicas") == 0, "no replicas", deployments, MODEL)
    await walk.see(deployments, "stopped by its user", MODEL, phase="Idle")
    await site.edit(models, MODEL, {"activeVersion": 9})
    await walk.see(models, "pinned to a version that does not exist", MODEL, Stalled="VersionNotFound")
    await site.apply(models, "empty", {})
    await walk.see(models, NO_VERSION, "empty", Reconciling="NoVersion")
    await site.apply(deployments, "orphan", {"modelRef": {"name": "nobody"}})
    await walk.see(deployments, "its model does not exist (yet)", "orphan", phase="Pending")
    async with walk.deleted(deployments, "orphan"):
        await walk.see(deployments, KEPT, "orphan", phase="Deleting")
    await site.apply(models, "unwanted", {})
    await site.job("done", modelRef={"name": "unwanted"})
    trainer = await site.trainer(job="done")
    async with walk.deleted(models, "unwanted"):
        await walk.see(models, KEPT, "unwanted", Reconciling="Pending")
        await site.ends(trainer, message=await site.result("done", 1))
        situation = "has made its weights, and waits for its model to take them: that one is being deleted"
        await walk.see(FINE_TUNE_JOBS, situation, "done", phase="Running", Reconciling="Pending")


async def of_what_is_elsewhere(walk: Walkthrough) -> None:
    """A version at a provider that bills deployments by the hour, and nobody has written how to deploy it."""
    site, models = walk.site, FINE_TUNED_MODELS
    azure = {
        "endpoint": "https://azure.invalid",
        "subscriptionID": "11111111-2222-3333-4444-555555555555",
        "resourceGroup": "g",
        "account": "a",
    }
    credentials = {"credentials": {"secretRef": {"name": "azure"}}}
    await site.apply(CONNECTIONS, site.name, {"namespaceSelector": {}, "azureOpenAI": azure | credentials})
    await site.apply(models, "elsewhere", {})
    version = {
        "version": 1, "job": "elsewhere-1", "jobUID": "u", "connection": site.name, "baseModel": "gpt-4o-mini",
        "method": "LoRA", "artifact": {"providerModelID": "gpt-4o-mini.ft-1"}, "createdAt": MOMENT,
    }  # fmt: skip
    made = {"versions": [version], "activeVersion": 1, "latestVersion": 1}
    await site.kube.patch_status(models, "elsewhere", site.name, made)

    def awaits(status: Manifest) -> bool:
        return any(c["reason"] == "AwaitingConfiguration" for c in status.get("conditions") or ())

    for resource in (MODEL_DEPLOYMENTS, models):
        await site.says(awaits, "awaits its configuration", resource, "elsewhere")
    situation = "its version is at a provider, and nobody has written how to deploy it"
    await walk.see(MODEL_DEPLOYMENTS, situation, "elsewhere", phase="Pending")
    await walk.see(models, "nobody has written how to deploy its active version", "elsewhere")
    await site.kube.delete(CONNECTIONS, site.name, None)


async def of_connections(walk: Walkthrough) -> None:
    """Connections, which have no phase."""
    await walk.see(CONNECTIONS, "jobs may use it", "local", Ready="Ready")
    closed = {**connection(), "fineTuning": {"enabled": False}}
    await walk.site.apply(CONNECTIONS, walk.site.name, closed)
    await walk.see(CONNECTIONS, "takes no new jobs", walk.site.name, Ready="FineTuningDisabled")


async def walk_through(stage: Stage) -> list[Sight]:
    """Everything that is seen on the way."""
    site, own = stage.site, stage.folder / "kubeconfig"
    port = free_port()
    async with open_wire(stage.cluster.kubeconfig, own, site.name) as wire:
        walk = Walkthrough(site, stage.cluster, wire.url, port)
        await of_the_unseen(walk)
        operator = operators.fork(operators.environment(site.name, own, report_port=port), stage.folder / "log")
        try:
            await of_jobs(walk)
            await of_models(walk)
            await of_what_is_elsewhere(walk)
            await of_connections(walk)
        finally:
            await operator.kill()
    return walk.sights


PLAYS = Plays(beside={walk_through: walk_through}, always=(walk_through,))


@pytest.fixture
def sights(outcome: Outcome) -> list[Sight]:
    """What was seen; names of namespaces differ from run to run."""
    found: list[Sight] = outcome(walk_through)
    return found


def table(sights: list[Sight]) -> str:
    """The page's tables, one for each kind."""
    verdicts = dict(zip(map(id, sights), kstatus([sight.obj for sight in sights]), strict=True))
    parts = []
    for kind in KINDS:
        rows = [(sight, verdicts[id(sight)]) for sight in sights if sight.resource is kind]
        parts.append("\n".join(_table(kind, rows)))
    return "\n".join(parts)


def _table(kind: Resource, rows: list[tuple[Sight, str]]) -> Iterator[str]:
    yield f"### {kind.kind}\n"
    has_phase = any(sight.phase for sight, _ in rows)
    lead = ("phase", "situation") if has_phase else ("situation",)
    head = (*lead, "conditions that are True: `kubectl wait` returns", "kstatus", "Argo CD", "`kubectl get` shows")
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for sight, verdict in rows:
        shown = ", ".join(f"{name} {value}" for name, value in sight.columns.items())
        shown = shown.replace(f".{sight.obj['metadata'].get('namespace')}.", ".team-a.")
        first = (f"`{sight.phase}`", sight.situation) if has_phase else (sight.situation,)
        true = ", ".join(f"`{condition}`" for condition in sight.waits) or "none"
        yield f"| {' | '.join((*first, true, verdict, sight.argo, shown))} |"
    yield ""


def test_the_page_says_what_tools_say(sights: list[Sight], request: pytest.FixtureRequest) -> None:
    made = table(sights)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    if request.config.getoption("write_status_table"):
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}")
    assert PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip() == made.strip(), "run `make status-table`"


@pytest.mark.parametrize(("resource", "phases"), [(FINE_TUNE_JOBS, JobPhase), (MODEL_DEPLOYMENTS, DeploymentPhase)])
def test_every_phase_has_its_row(sights: list[Sight], resource: Resource, phases: Any) -> None:
    assert {sight.phase for sight in sights if sight.resource is resource} == set(get_args(phases))


def test_kstatus_and_argo_contradict_each_other_only_about_models_without_a_version(sights: list[Sight]) -> None:
    alike = {
        "Current": {"Healthy"},
        "InProgress": {"Progressing", "Suspended"},
        "Failed": {"Degraded"},
        "Terminating": {"Progressing"},
    }
    for sight, verdict in zip(sights, kstatus([sight.obj for sight in sights]), strict=True):
        if sight.situation == NO_VERSION:
            assert (verdict, sight.argo) == ("InProgress", "Healthy")
        else:
            assert sight.argo in alike[verdict], sight.situation


def test_kubectl_wait_returns_for_what_the_table_names(cluster: Cluster, sights: list[Sight]) -> None:
    ends = [sight for sight in sights if sight.phase in {"Succeeded", "Failed"} and sight.resource is FINE_TUNE_JOBS]
    assert len(ends) == 2
    for sight in ends:
        name, namespace = sight.obj["metadata"]["name"], sight.obj["metadata"]["namespace"]
        for condition in sight.waits:
            cluster.kubectl("wait", f"--for=condition={condition}", f"ftj/{name}", "-n", namespace, "--timeout=10s")
