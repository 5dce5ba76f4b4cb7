"""One run of a life at a provider: proxies to the API server and to the provider, and a killer on both."""

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from finetune_operator.runtime.kube import EVENTS, MODEL_DEPLOYMENTS
from tests.chaos import operators
from tests.chaos.clocks import VARIABLE, Clocks
from tests.chaos.cloud_lives import CloudLife
from tests.chaos.cloud_site import CloudSite
from tests.chaos.cloud_turns import DAY
from tests.chaos.operators import ROOT
from tests.chaos.picture import OWN, picture
from tests.chaos.stage import Stage
from tests.chaos.store_wire import Stored, open_store_wire
from tests.chaos.walk import Fault, Killer, quiet
from tests.chaos.wire import HangUp, Wire, open_wire
from tests.lives import clouds
from tests.lives.clouds import Cloud
from tests.simulators import certificates
from tests.simulators.aws.moto import moto
from tests.simulators.certificates import Tls
from tests.simulators.http import Cut, Reply
from tests.simulators.simulator import Resource

_DIFFERS = (
    (re.compile(r"https?://127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"(tuning|life-of-bedrock)-[0-9a-f]{12}"), "BUCKET"),
    (re.compile(r"\b(file|ftjob)-\w+"), r"\1-ID"),
    # The operator's own clock advances by seconds; `Cost` compares its figures with the bill.
    (re.compile(r'"(sinceDeployed|ended|hosting|evaluation)": "\d+\.\d+"'), r'"\1": "DOLLARS"'),
    # Part of the job's UID; other users' jobs have none.
    (re.compile(r"\b(ft-[0-9a-f]{32}-[\w-]+)-[0-9a-f]{8}\b"), r"\1-MARK"),
    (re.compile(r'(ft:[^":]+:[^":]*:[^":]*)-[0-9a-f]{8}:'), r"\1-MARK:"),
    (re.compile(r"\bft-[0-9a-f]{32}\b"), "ft-ID"),
    (re.compile(r'(arn:aws:bedrock:[^"]+/)\w+"'), r'\1ID"'),
    (re.compile(r'(ft:[^":]+:[^":]*:[^":]*):\w+'), r"\1:ID"),
)
REPORT_PORT = 8443
QUESTION = "inference"
"""A model request on the simulators' bills."""
HOSTING = {"hosting", "throughput"}
"""An hour of a deployment on these bills."""
_CENT = Decimal("0.01")
HOST = "127.0.0.1"
BUSY = {("FineTuneJob", "ProviderBusy"), ("ModelDeployment", "ProviderBusy")}
"""Reported only to an operator that asks while something is being stopped; after a lost answer it asks later."""


@dataclass(frozen=True)
class AtProvider:
    """The provider's final state, after everything was deleted."""

    left: list[Resource]
    objects: list[str]
    running: list[str]
    """Hourly billed resources."""
    jobs: int
    """Number of jobs ever created."""
    bill: list[tuple[str, Decimal]]
    """Without model requests and zero lines, which result from requesting an existing deployment again."""
    questions: list[Decimal]
    """The cost of each model request."""
    deleted: int
    """Number of deleted deployments."""
    defects: list[str]


@dataclass(frozen=True)
class Cost:
    """The cost of deployments before everything was deleted, by status and by the provider's bill."""

    told: Decimal
    billed: Decimal
    allowed: Decimal
    """By how much status may exceed the bill: the run's real seconds pass only for the operator."""

    @property
    def is_told_right(self) -> bool:
        """Whether the two are equal, apart from that and from rounding."""
        return -_CENT <= self.told - self.billed <= self.allowed + _CENT


@dataclass(frozen=True)
class CloudTold:
    """The result of a run."""

    served: dict[str, Any]
    """The namespace's content before everything was deleted."""
    cost: Cost
    end: dict[str, Any]
    events: set[tuple[str, str]]
    """Events, by kind of object and reason."""
    provider: AtProvider
    points: list[str]
    killed: bool
    warnings: list[str]
    """The operator's logged warnings."""


class Calls:
    """An operator's calls to one provider: recorded, and interrupted by the killer."""

    def __init__(self, killer: Killer) -> None:
        self._killer = killer
        self._loop = asyncio.get_running_loop()
        self.seen: list[str] = []
        """Operations, in the order of arrival."""

    async def of_simulator(self, operation: str, carry_out: Callable[[], Reply]) -> Reply:
        """See simulators.http.Meddle: a simulator serves from its own thread."""

        async def forward() -> Reply:
            return carry_out()

        self.seen.append(operation)
        asked = asyncio.run_coroutine_threadsafe(self._killer.at(operation, forward), self._loop)
        try:
            return await asyncio.wrap_future(asked)
        except HangUp:
            raise Cut from None

    async def of_store(self, operation: str, forward: Callable[[], Awaitable[Stored]]) -> Stored:
        """See store_wire.Meddle."""
        self.seen.append(operation)
        return await self._killer.at(operation, forward)


async def walk(
    stage: Stage,
    live: CloudLife,
    provider: str,
    fault: Fault | None = None,
    trouble: Callable[[Cloud], None] | None = None,
    own_clock: float = 0,
    killer_of: type[Killer] = Killer,
) -> CloudTold:
    """Run a life at a provider.

    Args:
        stage: where.
        live: the life.
        provider: its name.
        fault: where the operator is killed.
        trouble: makes the provider fail.
        own_clock: seconds by which the operator's own clock is ahead of the API server's.
        killer_of: makes the killer.

    Raises:
        TimeoutError: a step of the life did not happen; with what was reached and what is left.
    """
    address, log = own_address(stage.site.name), stage.folder / "log"
    tls = certificates.kept(stage.folder.parent / "provider-tls", (HOST,))
    clocks = Clocks(stage.folder / "clocks")
    clocks.set(own_clock, 0)
    async with open_wire(stage.cluster.kubeconfig, stage.folder / "kubeconfig", stage.site.name, clocks) as wire:
        wire.meddle = killer = killer_of(stage.site, settings(stage, address, tls), log, fault)
        calls = Calls(killer)
        try:
            with moto(HOST) as store, opened(provider, store, tls) as cloud:
                async with open_store_wire(store, calls.of_store) as own_store:
                    lead(cloud, own_store, calls)
                    if trouble is not None:
                        trouble(cloud)
                    operator = f"https://{address}:{REPORT_PORT}"
                    site = CloudSite(stage.site, stage.cluster, cloud, operator, calls.seen, clocks)
                    return await _lived(site, live, wire, killer, log)
        except TimeoutError as error:
            left = json.dumps(await picture(stage.kube, stage.site.name), indent=1)
            error.add_note(f"points: {[call.point for call in wire.seen]}; {calls.seen}; left: {left}")
            raise
        finally:
            await killer.end()


async def _lived(site: CloudSite, live: CloudLife, wire: Wire, killer: Killer, log: Path) -> CloudTold:
    began = time.monotonic()
    await live(site)
    await quiet(wire)
    served = await cloud_picture(site)
    cost = await cost_of(site, time.monotonic() - began)
    await site.leaves()
    await quiet(wire)
    end = await cloud_picture(site)
    points = [*(call.point for call in wire.seen), *site.asked]
    events = await events_of(site)
    return CloudTold(served, cost, end, events, known(site.cloud), points, killer.killed, warnings(log))


def warnings(log: Path) -> list[str]:
    """The lines of an operator's log above level info."""
    return [line for line in log.read_text().splitlines() if '"level":"INFO"' not in line]


def settings(stage: Stage, address: str, tls: Tls) -> dict[str, str]:
    """Environment of the operator: with prices, frequent polling, and a fixed address for uploads."""
    chosen = operators.environment(
        stage.site.name,
        stage.folder / "kubeconfig",
        report_bind=address,
        report_port=REPORT_PORT,
        provider_poll_seconds=1,
        # Whether an idle deployment's usage is reported is chance: only a reconcile that starts before days pass at the
        # provider, and reads its metrics afterwards, does so.
        billed_idle_seconds=30 * DAY,
        provider_catalogue=ROOT / "helm/finetune-operator/files/providers.json",
    )
    return chosen | {"SSL_CERT_FILE": str(tls.authority), VARIABLE: str(stage.folder / "clocks")}


def own_address(name: str) -> str:
    """A loopback address unique to this operator: from the process ID and the play's number."""
    number = os.getpid() * 1024 + int(name.rpartition("-")[2])
    return f"127.{64 + (number >> 16) % 128}.{(number >> 8) % 256}.{number % 254 + 1}"


@contextmanager
def opened(provider: str, store: str, tls: Tls) -> Iterator[Cloud]:
    """A provider for this run only."""
    made = {
        "openai": lambda: clouds.openai(HOST),
        "azure": lambda: clouds.azure(HOST, tls),
        "bedrock": lambda: clouds.bedrock(HOST, store),
        "sagemaker": lambda: clouds.sagemaker(HOST, store),
    }
    with made[provider]() as cloud:
        yield cloud


def lead(cloud: Cloud, store: str, calls: Calls) -> None:
    """Route the operator's calls through `calls`. The simulator itself reads the store directly."""
    cloud.simulator.meddle = calls.of_simulator
    for block in cloud.block.values():
        if "endpoints" in block:
            block["endpoints"]["s3"] = store


def known(cloud: Cloud) -> AtProvider:
    """The provider's state."""
    simulator = cloud.simulator
    bill = sorted((line.what, line.amount) for line in simulator.ledger.lines())
    return AtProvider(
        left=simulator.left(),
        objects=cloud.objects(),
        running=simulator.ledger.running(),
        jobs=len(cloud.jobs()),
        bill=[(what, amount) for what, amount in bill if what != QUESTION and amount],
        questions=[amount for what, amount in bill if what == QUESTION],
        deleted=simulator.count(cloud.undeploys) if cloud.undeploys else 0,
        defects=simulator.defects,
    )


async def events_of(site: CloudSite) -> set[tuple[str, str]]:
    """Events of our own kinds."""
    own = {resource.kind for resource in OWN}
    found = await site.kube.list(EVENTS, site.name)
    return {(one["regarding"]["kind"], one["reason"]) for one in found if one["regarding"]["kind"] in own}


async def cost_of(site: CloudSite, seconds: float) -> Cost:
    """The cost of deployments so far, in a run of this many seconds."""
    found = await site.kube.list(MODEL_DEPLOYMENTS, site.name)
    if not found:
        return Cost(Decimal(0), Decimal(0), Decimal(0))  # costs of evaluations and deleted objects are elsewhere
    costs = [one["status"].get("cost", {}) for one in found]
    if any(cost.get("display") == "unknown" for cost in costs):
        return Cost(Decimal(0), Decimal(0), Decimal(0))
    told = sum((Decimal(cost.get("sinceDeployed", "0")) for cost in costs), Decimal(0))
    billed = sum((line.amount for line in site.cloud.simulator.ledger.lines() if line.what in HOSTING), Decimal(0))
    per_hour = max([site.cloud.per_hour, *(Decimal(cost.get("perHour", "0")) for cost in costs)])
    return Cost(told, billed, per_hour * Decimal(seconds) / 3600)


async def cloud_picture(site: CloudSite) -> dict[str, Any]:
    """As `picture`, without names generated by the provider."""
    return await picture(site.kube, site.name, _DIFFERS)
