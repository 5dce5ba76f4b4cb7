"""Servers on this cluster that nobody asks: measured over HTTP by their own metrics, stopped, woken."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from finetune_api.names import DEPLOYMENT_LABEL, WAKE_ANNOTATION
from finetune_operator.decide.conditions import timestamp
from finetune_operator.providers.hugging_face.pod_metrics import PodMetrics
from finetune_operator.runtime.kube import DEPLOYMENTS, FINE_TUNED_MODELS, MODEL_DEPLOYMENTS, PODS
from finetune_trainer.serving.metrics import ServerMetrics
from tests.unit.finetune_operator.reconcilers.fake_cluster import DEPLOYMENT, Cluster
from tests.unit.finetune_operator.reconcilers.versions import add_version, served_version, with_version

IDLE = {"afterSeconds": 600, "action": "ScaleToZero"}


class Server:
    """A serving pod's /metrics on an address of its own, as this project's server renders them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.running = 0.0
        self.metrics = ServerMetrics(waiting=lambda: 0, running=lambda: self.running)
        self.status = 200
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def answer(self, _: web.Request) -> web.Response:
        date = format_datetime(self.clock(), usegmt=True)
        return web.Response(body=self.metrics.render(), status=self.status, headers={"Date": date})

    def asked(self, at: datetime) -> None:
        self.metrics.last_request.set(at.timestamp())


@pytest.fixture
async def servers() -> AsyncIterator[dict[str, Server]]:
    """Two of them, on one port."""
    found, runners, port = {}, [], 0
    for address in ("127.0.0.1", "127.0.0.2"):
        server = Server(address)
        application = web.Application()
        application.router.add_get("/metrics", server.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, address, port)
        await site.start()
        port = runner.addresses[0][1]
        runners.append(runner)
        found[address] = server
    found["port"] = port  # type: ignore[assignment]
    yield found
    for runner in runners:
        await runner.cleanup()


async def serving(
    servers: dict[str, Any],
    idle: dict[str, Any] = IDLE,
    ahead: timedelta = timedelta(),
) -> Cluster:
    """A cluster whose first version answers in one pod, on a node whose clock is `ahead`."""
    cluster = await with_version(deployment={"template": {"idle": idle}})
    cluster.metrics = metrics_of(cluster, servers, ahead)
    cluster.restart()
    await cluster.observer.resync()
    run(cluster, "a", "127.0.0.1", ahead)
    cluster.roll_out()
    await cluster.settle()
    return cluster


def metrics_of(cluster: Cluster, servers: dict[str, Any], ahead: timedelta = timedelta()) -> PodMetrics:
    """What asks the servers, whose nodes' clocks are `ahead` of the cluster's."""
    for name, server in servers.items():
        if name != "port":
            server.clock = lambda: cluster.now + ahead
    return PodMetrics(lambda: cluster.now, servers["port"])


def run(cluster: Cluster, name: str, address: str, ahead: timedelta = timedelta()) -> None:
    """A server that is ready, as the kubelet tells of it."""
    state = {"running": {"startedAt": timestamp(cluster.now + ahead)}}
    server = {"name": "server", "ready": True, "state": state}
    labels = {DEPLOYMENT_LABEL: "sentiment", "app.kubernetes.io/managed-by": "finetune-operator"}
    metadata = {"name": name, "namespace": "team-a", "labels": labels}
    cluster.kube.put(PODS, {"metadata": metadata, "status": {"podIP": address, "containerStatuses": [server]}})


async def go_on(cluster: Cluster, seconds: float, step: float = 120) -> None:
    for _ in range(int(seconds / step)):
        await cluster.wait(step)


def replicas(cluster: Cluster) -> int:
    wanted: int = cluster.kube.objects[DEPLOYMENTS, "team-a", "sentiment"]["spec"]["replicas"]
    return wanted


async def sleeping(servers: dict[str, Any]) -> Cluster:
    cluster = await serving(servers)
    await go_on(cluster, 720)
    cluster.kube.drop(PODS, "a")
    await cluster.settle()
    assert (cluster.status(DEPLOYMENT)["phase"], replicas(cluster)) == ("Idle", 0)
    return cluster


async def test_one_that_is_asked_goes_on(servers):
    cluster = await serving(servers)
    for _ in range(4):
        servers["127.0.0.1"].asked(cluster.now)
        await go_on(cluster, 480)
    assert (cluster.status(DEPLOYMENT)["phase"], replicas(cluster)) == ("Ready", 1)
    assert cluster.condition("Idle", DEPLOYMENT)["reason"] == "InUse"


@pytest.mark.parametrize("hours", [-3, 3])
async def test_the_clock_of_its_node_neither_stops_it_early_nor_keeps_it(servers, hours):
    ahead = timedelta(hours=hours)
    cluster = await serving(servers, ahead=ahead)
    await go_on(cluster, 480)
    servers["127.0.0.1"].asked(cluster.now + ahead)
    await go_on(cluster, 480)
    assert replicas(cluster) == 1, "it was asked eight minutes ago"
    await go_on(cluster, 240)
    assert replicas(cluster) == 0


async def test_one_that_nobody_asks_has_no_pods_left(servers):
    cluster = await serving(servers)
    await go_on(cluster, 480)
    assert replicas(cluster) == 1
    await go_on(cluster, 240)
    status = cluster.status(DEPLOYMENT)
    assert (status["phase"], status.get("servedVersion"), replicas(cluster)) == ("Idle", None, 0)
    assert WAKE_ANNOTATION in cluster.condition("Ready", DEPLOYMENT)["message"]
    assert ("ModelDeployment", "Normal", "Idle") in cluster.told


async def test_one_at_work_is_not_idle_however_long_it_takes(servers):
    cluster = await serving(servers)
    servers["127.0.0.1"].running = 1.0
    await go_on(cluster, 3600)
    assert replicas(cluster) == 1


async def test_all_of_its_pods_are_asked(servers):
    cluster = await serving(servers)
    run(cluster, "b", "127.0.0.2")
    await cluster.settle()
    for _ in range(4):
        servers["127.0.0.2"].asked(cluster.now)
        await go_on(cluster, 480)
    assert replicas(cluster) == 1


@pytest.mark.parametrize("trouble", ["refused", "no such address"])
async def test_what_cannot_be_read_is_not_taken_for_idle(servers, trouble):
    cluster = await serving(servers)
    servers["127.0.0.1"].status = 500 if trouble == "refused" else 200
    if trouble != "refused":
        run(cluster, "b", "127.0.0.3")
    await go_on(cluster, 1800)
    condition = cluster.condition("Idle", DEPLOYMENT)
    assert (condition["status"], condition["reason"]) == ("Unknown", "UsageUnknown")
    assert replicas(cluster) == 1


async def test_an_operator_that_is_new_all_the_time_comes_to_the_same(servers):
    cluster = await serving(servers)
    servers["127.0.0.1"].asked(cluster.now)
    for _ in range(6):
        cluster.restart()
        await cluster.observer.resync()
        await cluster.settle()
        await go_on(cluster, 120)
    assert replicas(cluster) == 0


async def test_a_restarted_server_has_its_time_anew(servers):
    cluster = await serving(servers)
    await go_on(cluster, 480)
    run(cluster, "a", "127.0.0.1")
    await go_on(cluster, 480)
    assert replicas(cluster) == 1


async def test_it_wakes_by_the_annotation_and_has_its_time_anew(servers):
    cluster = await sleeping(servers)
    await go_on(cluster, 3600)
    assert replicas(cluster) == 0
    found = cluster.kube.objects[MODEL_DEPLOYMENTS, "team-a", "sentiment"]
    annotations = {**found["metadata"].get("annotations", {}), WAKE_ANNOTATION: "now"}
    cluster.kube.put(MODEL_DEPLOYMENTS, {**found, "metadata": {**found["metadata"], "annotations": annotations}})
    await cluster.settle()
    assert (replicas(cluster), cluster.status(DEPLOYMENT)["phase"]) == (1, "Deploying")
    run(cluster, "a", "127.0.0.1")
    cluster.roll_out()
    await go_on(cluster, 480)
    assert cluster.status(DEPLOYMENT)["phase"] == "Ready"


async def test_it_wakes_when_idle_is_taken_back(servers):
    cluster = await sleeping(servers)
    spec = {"deployment": {"template": {"idle": {"afterSeconds": 600, "action": "None"}}}}
    cluster.kube.change(FINE_TUNED_MODELS, "sentiment", spec=spec)
    await cluster.settle()
    assert replicas(cluster) == 1


async def test_a_new_version_does_not_wake_it_and_is_the_one_that_wakes(servers):
    cluster = await sleeping(servers)
    await add_version(cluster, 2)
    assert (replicas(cluster), served_version(cluster), cluster.status(DEPLOYMENT)["phase"]) == (0, "2", "Idle")


async def test_without_idle_no_pod_is_asked(servers):
    cluster = await with_version()
    cluster.metrics = metrics_of(cluster, servers)
    cluster.restart()
    await cluster.observer.resync()
    servers["127.0.0.1"].status = 500
    run(cluster, "a", "127.0.0.1")
    cluster.roll_out()
    await cluster.settle()
    await go_on(cluster, 7200, 600)
    assert cluster.condition("Idle", DEPLOYMENT) == {}
    assert "usage" not in cluster.status(DEPLOYMENT)
