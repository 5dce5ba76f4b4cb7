"""The process: connects, leads, watches, reconciles, and shuts down cleanly.

probe server ─▶ API server answers ─▶ report server ─▶ Lease ─▶ first listing ─▶ queue and watches ─▶ until SIGTERM,
or the Lease is lost
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api import RELEASE
from finetune_operator import ask
from finetune_operator.command_line import Parser
from finetune_operator.decide.pods.refused import step_of_write
from finetune_operator.handlers.observer import Observer
from finetune_operator.handlers.watches import CannotWatch, start
from finetune_operator.providers.accounts.client import Sources
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.catalogue import CatalogueFile
from finetune_operator.providers.connection_secret import ConnectionSecrets
from finetune_operator.providers.hugging_face.pod_metrics import PodMetrics
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.jobs.reports import ReportBox
from finetune_operator.reconcilers.object_metrics import register_object_metrics
from finetune_operator.reconcilers.watched.observed import make_store
from finetune_operator.reconcilers.wiring import Reconcilers
from finetune_operator.runtime import logs
from finetune_operator.runtime.certificates import Certificates, CertificatesUnusable, source_of
from finetune_operator.runtime.errors import KubeError, LeadershipLost, NoCluster, WentBack
from finetune_operator.runtime.events import Recorder
from finetune_operator.runtime.kube import Kube
from finetune_operator.runtime.leadership.leader_label import LeaderLabel
from finetune_operator.runtime.leadership.lease import unique_identity
from finetune_operator.runtime.leadership.lease_thread import LeaseThread, lease_thread
from finetune_operator.runtime.probes import ProbeServer
from finetune_operator.runtime.queue import Key, Requeue, WorkQueue
from finetune_operator.runtime.report_server.server import ReportServer, RequestHandlers
from finetune_operator.runtime.service_account import changed_trust, is_ipv6
from finetune_operator.runtime.settings import PREFIX, Settings, SettingsError

logger = logging.getLogger("finetune_operator")

STUCK_SECONDS = 120
"""A queue that makes no progress for this long needs a restart."""

YOUNG_OBJECTS = 5_000
"""Garbage collection threshold. Python's 700 objects are those of one job, and each collection stops all work."""

OK, FAILED, MISCONFIGURED = 0, 1, 2


class Operator:
    """One replica: everything that is made once and lives as long as the process."""

    def __init__(self, settings: Settings, kube: Kube, leadership: LeaseThread, certificates: Certificates) -> None:
        self._settings = settings
        self._kube = kube
        self._leadership = leadership
        self._certificates = certificates
        self._guarded = kube.guarded(self._leadership.assert_held)
        self._store = make_store()
        register_object_metrics(self._store)
        self._queue = WorkQueue(self._reconcile, settings.workers, timeout=settings.reconcile_timeout_seconds)
        self._reports = ReportBox(self._store, self._queue.add, kube.now)
        self._reconcilers = self._make_reconcilers()
        self._trust_has_changed = changed_trust(settings.service_account)
        self._observer = Observer(
            kube,
            self._store,
            self._queue.add_after,
            settings.watch_namespaces,
            on_deleted=self._reconcilers.handle_deletion,
        )
        self._working = False

    def _make_reconcilers(self) -> Reconcilers:
        settings = self._settings
        context = Context(
            kube=self._guarded,
            store=self._store,
            announce=Recorder(self._guarded, settings.pod_name).post,
            enqueue=self._queue.add,
            enqueue_after=self._queue.add_after,
            guard=self._leadership.assert_held,
            catalogue=CatalogueFile(settings.provider_catalogue).read,
            clock=self._kube.now,
            report_interval=timedelta(seconds=settings.progress_write_seconds),
            patience=timedelta(seconds=settings.trainer_silence_seconds),
            ipv6=is_ipv6(),
        )
        secrets = ConnectionSecrets(self._guarded, settings.namespace)
        self._accounts = Accounts(
            Sources(secrets, context.connection, context.lacking, context.guard),
            wake=self._queue.add,
            poll_seconds=settings.provider_poll_seconds,
        )
        return Reconcilers(
            context,
            self._accounts,
            self._reports,
            settings,
            report_ca=lambda: self._certificates.bundle,
            pod_metrics=PodMetrics(context.clock),
            ahead=lambda: self._kube.now() - datetime.now(UTC),
        )

    async def run(self, stop: asyncio.Event) -> int:
        """Serve probes, wait for API server and Lease, work until `stop` or until the Lease is lost; the exit code."""
        async with AsyncExitStack() as stack:
            await self._start_probes(stack)
            if not await _first(stop.wait(), self._certificates.begin()):
                return OK
            await self._start_reports(stack)
            leads = asyncio.Event()
            label = LeaderLabel(self._kube, self._guarded, self._settings.namespace, self._settings.pod_name)
            labelling = asyncio.create_task(label.keep(leads), name="label the leader")
            stack.callback(labelling.cancel)
            if not await _first(stop.wait(), self._leadership.acquire()):
                return OK
            stack.push_async_callback(self._leadership.release)
            leads.set()
            return await self._work(stop)

    async def _start_probes(self, stack: AsyncExitStack) -> None:
        """Started first: a process that waits for its API server is alive."""
        probes = ProbeServer(
            self._settings.probe_bind,
            self._settings.probe_port,
            live={"queue": self._queue_is_stuck, "trust": self._trust_has_changed},
            ready={"certificates": self._certificates.lacking, "listing": self._is_taking_over},
        )
        await probes.start()
        stack.push_async_callback(probes.stop)

    async def _start_reports(self, stack: AsyncExitStack) -> None:
        reports = ReportServer(
            self._settings,
            self._certificates.context,
            RequestHandlers(
                authorise=self._reports.authorise,
                accept=self._reports.accept,
                upload=self._reconcilers.uploads.accept,
                answering=self._reconcilers.answers,
            ),
            review=self._kube.review_token,
            is_leader=lambda: self._working and self._leadership.is_held(),
        )
        await reports.start()
        stack.push_async_callback(reports.stop)
        renewal = asyncio.create_task(self._certificates.keep(), name="renew certificates")
        stack.callback(renewal.cancel)

    async def _work(self, stop: asyncio.Event) -> int:
        """Lead: list, watch, reconcile. Running reconciles end before kopf's tasks do."""
        settings = self._settings
        stop_kopf = asyncio.Event()
        shell, watching = await start(settings, self._observer, stop_kopf)
        _stop_on_signals(stop)  # replaces kopf's handlers, which would stop in the middle of reconciles
        leading = asyncio.create_task(self._lead(), name="lead")
        over = asyncio.wait([shell, watching, leading], return_when=asyncio.FIRST_COMPLETED)
        ended = await _first(stop.wait(), self._leadership.lost(), over)
        self._working = False
        leading.cancel()
        drained = await self._queue.drain(settings.shutdown_seconds)
        await self._accounts.close()
        logger.info("stopping: %s", "all work is done" if drained else "some work was cut off and will be done again")
        watching.cancel()
        stop_kopf.set()
        await asyncio.wait([shell, watching], timeout=settings.shutdown_seconds)
        for task in (watching, leading):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                # For a refusal of the API server a sentence is enough; an unexpected error needs its traceback.
                foreseen = isinstance(error, CannotWatch | WentBack)
                logger.error("cannot continue: %s", _with_next_step(error), exc_info=None if foreseen else error)
        return OK if ended == 0 else FAILED

    async def _lead(self) -> None:
        """Reconcile, once the store is synced."""
        await self._observer.wait_until_synced()
        self._queue.start()
        self._working = True
        await self._observer.resync_periodically(self._settings.resync_seconds)

    async def _reconcile(self, key: Key) -> Requeue | None:
        if self._observer.is_shut(key.namespace):
            return None  # once it is watched again, everything there is reconciled
        return await self._reconcilers.reconcile(key)

    def _is_taking_over(self) -> str | None:
        """A standby is ready to take over; a leader is ready when its store is synced."""
        return "the first listing is not done" if self._leadership.is_held() and not self._working else None

    def _queue_is_stuck(self) -> str | None:
        """A long backlog is not stuck as long as it makes progress: a restart would only start over."""
        health = self._queue.health()
        stuck = self._working and health.seconds_without_progress > STUCK_SECONDS
        return f"{health.ready} objects wait, and none was done for {STUCK_SECONDS} s" if stuck else None


async def _first(*waits: Coroutine[Any, Any, Any]) -> int:
    """Wait for the first of them, cancel the others, and return its index."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    first = next(task for task in tasks if task in done)
    first.result()
    return tasks.index(first)


def _with_next_step(error: BaseException) -> str:
    """The error, and what to do if the operator's own rights are the cause."""
    step = step_of_write(str(error))
    return f"{error}. {step}" if step else str(error)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)


async def _main(settings: Settings) -> int:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    try:
        identity = unique_identity(settings.pod_name)
        async with Kube.connect(settings) as kube, lease_thread(settings, identity) as leadership:
            certificates = Certificates(source_of(settings, kube))
            return await Operator(settings, kube, leadership, certificates).run(stop)
    except LeadershipLost:
        logger.warning("another replica leads now")
        return FAILED
    except (NoCluster, CertificatesUnusable, KubeError, OSError) as error:
        logger.error("cannot continue: %s", _with_next_step(error))  # noqa: TRY400 - a sentence says it all
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line. Without a command it is the operator itself, with settings from the environment."""
    top = Parser(
        prog="finetune-operator",
        description="Without a command this starts the operator, as in its pod: it takes its settings from "
        "FINETUNE_… variables, of which it needs one at least, and works in the cluster that the kubeconfig names.",
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {RELEASE}", help="show the release and exit")
    ask.add_arguments(top.add_subparsers(dest="command", metavar="[COMMAND]", title="commands"))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operator, or one command; the exit code says whether it ended as asked."""
    args = parser().parse_args(argv)
    if args.command == "ask":
        try:
            return asyncio.run(ask.main(args))
        except KeyboardInterrupt:
            return ask.INTERRUPTED
    if not any(name.startswith(PREFIX) for name in os.environ):
        # Someone who types the bare name wants help, and no second operator for the kubeconfig of a laptop.
        parser().error(f"name a command; the operator itself runs in a pod, which has {PREFIX}NAMESPACE from the chart")
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - there is no logging yet
        return MISCONFIGURED
    logs.configure(settings.log_level)
    # Imported modules stay for ever: without this the collector walks over all of them, again and again.
    gc.collect()
    gc.freeze()
    # The more the last collection found, the rarer full ones become: now it finds nothing.
    gc.collect()
    gc.set_threshold(YOUNG_OBJECTS)
    return asyncio.run(_main(settings))


if __name__ == "__main__":
    sys.exit(main())
