"""Composition root of the reconcilers: makes each part once and passes it what it needs.

Used by the process and by tests, each with its own cluster. Decides nothing and calls no API.
"""

import traceback
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.hugging_face.pod_metrics import PodMetrics
from finetune_operator.providers.hugging_face.training import HuggingFaceTraining
from finetune_operator.providers.remote.hosting import Hosting
from finetune_operator.providers.remote.pods import CloudPods
from finetune_operator.providers.remote.serving import CloudServing
from finetune_operator.providers.remote.training import CloudTraining
from finetune_operator.reconcilers.children import Children
from finetune_operator.reconcilers.connection import ConnectionReconciler
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.deployments.deployment import DeploymentReconciler
from finetune_operator.reconcilers.deployments.hosted import HostedDeployments
from finetune_operator.reconcilers.deployments.hosted_release import HostedRelease
from finetune_operator.reconcilers.deployments.local_idle import LocalIdle
from finetune_operator.reconcilers.jobs.answers import Answers
from finetune_operator.reconcilers.jobs.cloud_job import CloudJobs
from finetune_operator.reconcilers.jobs.evaluation_hosts import EvaluationHosts
from finetune_operator.reconcilers.jobs.job import JobReconciler
from finetune_operator.reconcilers.jobs.providers import Providers
from finetune_operator.reconcilers.jobs.reports import ReportBox
from finetune_operator.reconcilers.jobs.uploads import Uploads
from finetune_operator.reconcilers.models.model import ModelReconciler
from finetune_operator.reconcilers.offers import Offers
from finetune_operator.reconcilers.watched.affected import affected
from finetune_operator.runtime.errors import KubeError, LeadershipLost
from finetune_operator.runtime.kube import (
    CONNECTIONS,
    FINE_TUNE_JOBS,
    FINE_TUNED_MODELS,
    JOBS,
    MODEL_DEPLOYMENTS,
    OWN_KINDS,
    PODS,
    Resource,
)
from finetune_operator.runtime.queue import Key, Requeue
from finetune_operator.runtime.settings import Settings

Reconcile = Callable[[Key], Awaitable[Requeue | None]]

_DEFECT = "the operator cannot deal with the object as it is, by a defect of its own"
_REPORT_IT = (
    "Status is not kept up meanwhile. It is retried automatically; ask an admin for the operator's log, which has the "
    "traceback, and report it with the object's manifest"
)


class Reconcilers:
    """The reconciler of each kind, and the handlers of data and questions from their jobs' pods.

    Args:
        context: what they share.
        accounts: the providers' accounts.
        reports: the reports of pods.
        settings: the process's.
        report_ca: returns the current CA certificate of the report server, PEM.
        pod_metrics: asks serving pods whether they are used.
        ahead: how far the API server's clock is ahead of this process's own.
    """

    def __init__(
        self,
        context: Context,
        accounts: Accounts,
        reports: ReportBox,
        settings: Settings,
        *,
        report_ca: Callable[[], str],
        pod_metrics: PodMetrics,
        ahead: Callable[[], timedelta] = timedelta,
    ) -> None:
        self._context = context
        kube, store, service = context.kube, context.store, settings.report_names[0]
        local = HuggingFaceTraining(
            kube,
            store,
            last_report=reports.last,
            service=service,
            report_ca=report_ca,
            clock=context.clock,
            seconds=context.seconds,
            news=partial(_enqueue_affected, context),
        )
        pods = CloudPods(
            kube,
            store,
            local,
            service=service,
            report_ca=report_ca,
            image=settings.check_image,
            catalogue=context.catalogue,
        )
        remote = CloudTraining(store, accounts, pods, context.clock)
        providers, offers = Providers(local, remote, context.catalogue), Offers(context.enqueue_after)
        children, hosting = Children(context), Hosting(accounts, ahead)
        self.uploads = Uploads(context, accounts)
        self.answers = Answers(context, accounts, reports, providers)
        moving_seconds = settings.provider_poll_seconds
        hosts = EvaluationHosts(context, hosting, moving_seconds=moving_seconds)
        cloud = CloudJobs(context, remote, pods, self.answers, hosts)
        serving, idle = CloudServing(accounts, context.clock), LocalIdle(context, pod_metrics)
        warn_after = timedelta(seconds=settings.billed_idle_seconds)
        hosted = HostedDeployments(context, hosting, warn_after=warn_after, moving_seconds=moving_seconds)
        deployments = DeploymentReconciler(
            context, children, serving, hosted=hosted, release=HostedRelease(context, hosting), idle=idle
        )
        self._models = ModelReconciler(context, children, accounts, offers, local.observe_alone)
        self._of_kind: Mapping[str, Reconcile] = {
            CONNECTIONS.kind: ConnectionReconciler(context, accounts, settings.watch_namespaces).reconcile,
            FINE_TUNE_JOBS.kind: JobReconciler(context, providers, reports, cloud, offers).reconcile,
            FINE_TUNED_MODELS.kind: self._models.reconcile,
            MODEL_DEPLOYMENTS.kind: deployments.reconcile,
        }

    async def reconcile(self, key: Key) -> Requeue | None:
        """Reconcile an object with the reconciler of its kind."""
        try:
            return await self._of_kind[key.kind](key)
        except (KubeError, LeadershipLost):
            raise
        except Exception as error:
            await self._announce_defect(key, error)
            raise

    async def _announce_defect(self, key: Key, error: Exception) -> None:
        """Post an Event about an unexpected error, since status keeps saying what it said before, or nothing at all.

        The exception's text is only in the log: it may quote what it met.
        """
        resource = next(one for one in OWN_KINDS if one.kind == key.kind)
        obj = self._context.store.get(resource, key.name, key.namespace or None)
        if obj is not None:
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} in {Path(at.filename).name}, line {at.lineno}"
            await self._context.announce(obj, "Warning", "OperatorDefect", f"{_DEFECT} ({where}). {_REPORT_IT}")

    def handle_deletion(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        """Handle a deleted object: clean up or report what it left at a provider, unless that was released before."""
        if resource is FINE_TUNED_MODELS and not self._context.departed.expects_removal(obj):
            self._models.remember_deleted(obj)
        key = self._context.departed.take(resource, obj, self._context.clock)
        if key is not None:
            self._context.enqueue(key)


def _enqueue_affected(context: Context, regarding: Mapping[str, Any]) -> None:
    """Enqueue the objects that an Event about a Job or a pod affects."""
    resource = {JOBS.kind: JOBS, PODS.kind: PODS}.get(regarding.get("kind", ""))
    name, namespace = regarding.get("name", ""), regarding.get("namespace")
    found = context.store.get(resource, name, namespace) if resource else None
    if resource and found:
        for key in affected(resource, found, context.store):
            context.enqueue(key)
