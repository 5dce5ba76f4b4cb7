"""Reconcilers wired as in the process, over a FakeKube; tests act as users, kubelet and controllers."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from finetune_api.catalogue import Catalogue
from finetune_api.trainer import Report, termination_message
from finetune_operator.desired.compare import is_managed
from finetune_operator.handlers.observer import Observer
from finetune_operator.providers.accounts.client import Build, SignIn, Sources
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.azure.entra import credential_of
from finetune_operator.providers.connection_secret import ConnectionSecrets
from finetune_operator.providers.hugging_face.pod_metrics import PodMetrics
from finetune_operator.providers.sdks import build_api
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.jobs.reports import ReportBox
from finetune_operator.reconcilers.watched.observed import CHILDREN, make_store
from finetune_operator.reconcilers.wiring import Reconcilers
from finetune_operator.runtime.errors import LeadershipLost
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    DEPLOYMENTS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    NAMESPACES,
    PODS,
    Resource,
)
from finetune_operator.runtime.queue import Key, Lane, Requeue
from finetune_operator.runtime.settings import Settings
from tests.unit.finetune_operator.decide.given import NOW, connection, ended, job_spec
from tests.unit.finetune_operator.reconcilers.fake_kube import FakeKube

JOB = Key(FINE_TUNE_JOBS.kind, "team-a", "sentiment-1")
MODEL = Key(FINE_TUNED_MODELS.kind, "team-a", "sentiment")
DEPLOYMENT = Key(MODEL_DEPLOYMENTS.kind, "team-a", "sentiment")

SETTINGS = Settings(namespace="finetune", service_name="reports", check_image="check:1")


class Cluster:
    """An operator and its cluster. `restart` clears the operator's memory."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.leads = True
        self.build: Build | None = None
        self.sign_in: SignIn = credential_of
        self.metrics = PodMetrics(lambda: self.now)
        self.kube = FakeKube()
        self.now: datetime = NOW
        self.told: list[tuple[str, str, str]] = []
        self.notes: list[str] = []
        self.delays: dict[Key, float] = {}
        self.put_off: list[tuple[Key, float]] = []
        self.restart()

    def restart(self) -> None:
        """A new process: empty store, no reports."""
        self.queue: list[Key] = []
        self.lanes: dict[Key, Lane] = {}
        self.store = make_store()
        self.reports = ReportBox(self.store, self.wake, lambda: self.now)
        context = Context(
            self.kube,
            self.store,
            self.announce,
            self.wake,
            enqueue_after=self.wake_later,
            guard=self.guard,
            catalogue=lambda: self.catalogue,
            clock=lambda: self.now,
            seconds=lambda: self.now.timestamp(),  # noqa: PLW0108 - now moves on
        )
        sources = Sources(
            ConnectionSecrets(self.kube, SETTINGS.namespace),
            context.connection,
            context.lacking,
            self.guard,
            build=self.build or build_api,
            sign_in=self.sign_in,
            clock=context.seconds,
            rate=1e6,
        )
        self.accounts = Accounts(sources, wake=self.wake, poll_seconds=None)
        self.reconcilers = Reconcilers(
            context,
            self.accounts,
            self.reports,
            SETTINGS,
            report_ca=lambda: "CA",
            pod_metrics=self.metrics,
        )
        self.uploads, self.answers = self.reconcilers.uploads, self.reconcilers.answers
        self.observer = Observer(self.kube, self.store, self.wake_in, on_deleted=self.reconcilers.handle_deletion)
        for place in self.observer.places():
            self.observer.end_listing(*place, self.observer.start_listing(*place))

    def guard(self) -> None:
        if not self.leads:
            raise LeadershipLost("another replica leads")

    def wake(self, key: Key, lane: Lane = Lane.OTHERS) -> None:
        self.lanes[key] = min(lane, self.lanes.get(key, lane))
        if key not in self.queue:
            self.queue.append(key)

    def wake_in(self, key: Key, seconds: float, lane: Lane) -> None:
        """Like a watch event: keeps a pending earlier wake-up."""
        if seconds:
            self.delays[key] = min(seconds, self.delays.get(key, seconds))
        else:
            self.wake(key, lane)

    def wake_later(self, key: Key, seconds: float, lane: Lane) -> None:
        """Like `wake`, immediately, as the clock stands still."""
        self.put_off.append((key, seconds))
        self.wake(key, lane)

    async def announce(self, regarding: Mapping[str, Any], event_type: str, reason: str, note: str) -> None:
        self.told.append((regarding["kind"], event_type, reason))
        self.notes.append(note)
        assert note

    async def reconcile(self, key: Key) -> Requeue | None:
        return await self.reconcilers.reconcile(key)

    async def settle(self) -> None:
        """Run until watches and queue are empty; delays of zero run too, other delayed keys are kept."""
        for _ in range(200):
            self.hear()
            if not self.queue:
                return
            key = self.queue.pop(0)
            self.lanes.pop(key, None)
            again = await self.reconcile(key)
            self.delays.pop(key, None)
            if again is not None and again.after_seconds == 0:
                self.wake(key)
            elif again is not None:
                self.delays[key] = again.after_seconds
        raise AssertionError(f"it does not come to rest: {self.queue}")

    def hear(self) -> None:
        """Deliver watch events, without reconciling yet."""
        for event in self.kube.take_events():
            self.watched(*event)

    def watched(self, resource: Resource, event_type: str, obj: dict[str, Any]) -> None:
        """Deliver a watch event. Children are selected by label, so one that loses it seems deleted."""
        if resource not in CHILDREN or is_managed(obj):
            self.observer.handle_event(resource, event_type, obj)
            return
        metadata = obj["metadata"]
        known = self.store.get(resource, metadata["name"], metadata["namespace"])
        if known is not None and is_managed(known):
            known["metadata"]["resourceVersion"] = metadata["resourceVersion"]
            self.observer.handle_event(resource, "DELETED", known)

    async def wait(self, seconds: float) -> None:
        """Let time pass, and run the reconciles that become due."""
        self.now += timedelta(seconds=seconds)
        for key in [key for key, delay in self.delays.items() if delay <= seconds]:
            self.wake(key)
        await self.settle()

    # What users do.

    def add_namespace(self, **labels: str) -> None:
        self.kube.put(NAMESPACES, {"metadata": {"name": "team-a", "labels": labels}})

    def add_connection(self, **fields: Any) -> None:
        self.kube.put(CONNECTIONS, {"metadata": {"name": "local"}, "spec": connection(**fields).wire()})

    def add_job(self, name: str = "sentiment-1", **fields: Any) -> None:
        metadata = {"name": name, "namespace": "team-a"}
        self.kube.put(FINE_TUNE_JOBS, {"metadata": metadata, "spec": job_spec(**fields).wire()})

    def change_job(self, **fields: Any) -> None:
        spec = self.kube.objects[FINE_TUNE_JOBS, "team-a", "sentiment-1"]["spec"]
        self.kube.change(FINE_TUNE_JOBS, "sentiment-1", spec={**spec, **fields})

    # What the cluster does.

    def run_pod(self, attempt: int = 1, job: str = "sentiment-1", phase: str = "Running") -> None:
        batch_job = self.kube.objects[JOBS, "team-a", f"{job}-{attempt}"]
        metadata = batch_job["metadata"]
        labels = batch_job["spec"]["template"]["metadata"]["labels"] | {
            "batch.kubernetes.io/job-name": metadata["name"]
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        pod = {"name": f"{metadata['name']}-x", "namespace": "team-a", "labels": labels, "ownerReferences": [owner]}
        self.kube.put(PODS, {"metadata": pod, "status": {"phase": phase}})

    def end_pod(
        self, exit_code: int, last: Report | None = None, attempt: int = 1, job: str = "sentiment-1", **status: Any
    ) -> None:
        message = termination_message(last) if last else ""
        phase = "Failed" if exit_code else "Succeeded"
        state = {"phase": phase, **ended(exit_code, message=message), **status}
        self.kube.change(PODS, f"{job}-{attempt}-x", status=state)
        condition = {"type": "Failed" if exit_code else "Complete", "status": "True", "reason": "BackoffLimitExceeded"}
        self.kube.change(JOBS, f"{job}-{attempt}", status={"conditions": [condition]})

    def report(self, phase: Any, attempt: int = 1, job: str = "sentiment-1", **fields: Any) -> Report:
        uid = self.kube.objects[FINE_TUNE_JOBS, "team-a", job]["metadata"]["uid"]
        body = {"namespace": "team-a", "name": job, "uid": uid, "attempt": attempt, "phase": phase}
        return Report.model_validate(body | fields)

    def result(self, attempt: int = 1, job: str = "sentiment-1") -> Report:
        uri = f"pvc://models/team-a/sentiment/{job}/model"
        result = {"artifact": {"uri": uri, "kind": "Adapter"}, "steps": 100, "trainLoss": 0.4, "evalLoss": 0.5}
        return self.report("Succeeded", attempt, job, result=result)

    def roll_out(self, available: int = 1) -> None:
        deployment = self.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]
        wanted = deployment["spec"]["replicas"]
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "availableReplicas": available,
        }
        self.kube.change(DEPLOYMENTS, "sentiment", status=status)

    # What is there now.

    def status(self, key: Key = JOB) -> dict[str, Any]:
        resource = {r.kind: r for r in (FINE_TUNE_JOBS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, CONNECTIONS)}[key.kind]
        status: dict[str, Any] = self.kube.objects[resource, key.namespace, key.name].get("status", {})
        return status

    def condition(self, kind: str, key: Key = JOB) -> dict[str, Any]:
        found: dict[str, Any] = next((c for c in self.status(key).get("conditions", ()) if c["type"] == kind), {})
        return found


async def with_job(**fields: Any) -> Cluster:
    """A cluster whose operator has just started an attempt."""
    cluster = Cluster()
    cluster.add_namespace()
    cluster.add_connection()
    cluster.add_job(**fields)
    await cluster.settle()
    return cluster


async def with_running_job(**fields: Any) -> Cluster:
    """A cluster with a running pod."""
    cluster = await with_job(**fields)
    cluster.run_pod()
    await cluster.settle()
    return cluster
