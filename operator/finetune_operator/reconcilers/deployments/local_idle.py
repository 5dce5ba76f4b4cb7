"""Stops a server on this cluster without requests, as spec.idle says. Its pods' metrics count the requests."""

import asyncio
from dataclasses import dataclass, replace

from finetune_api.manifest import Manifest
from finetune_api.reasons import Reason
from finetune_operator.decide.deployment import idle
from finetune_operator.decide.deployment.decision import DeploymentView
from finetune_operator.providers.hugging_face.pod_metrics import PodMetrics, Unread, is_answering
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.deployments.hosted_observation import wake_of
from finetune_operator.reconcilers.watched.indexes import pods_of_deployment
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS, PODS

MEASUREMENTS_PER_LIMIT = 5
SOONEST_SECONDS, LATEST_SECONDS = 10.0, 300.0


@dataclass(frozen=True)
class LocalIdle:
    """Measures the use of serving pods.

    Args:
        context: what reconcilers share.
        metrics: reads a pod's metrics.
    """

    context: Context
    metrics: PodMetrics

    async def measure(self, deployment: Manifest, view: DeploymentView) -> tuple[Manifest, DeploymentView]:
        """Add the server's use to the view. If it is to be stopped, status has been written with that."""
        wake, status = wake_of(deployment), view.status
        limit = view.spec.idle if view.spec else None
        if limit is None:
            return deployment, without_idle(view)
        if status.asleep is not None and idle.is_asleep(status.asleep, view.generation, wake):
            return deployment, replace(view, idle=idle.sleeping(status.asleep, status.usage))
        status = status.model_copy(update={"asleep": None})
        if view.serving.state != "Serving":
            return deployment, replace(view, status=status, idle=idle.NOT_ANSWERING_YET)
        activity = await self._activity(view)
        seen = idle.check(status.usage, activity, idle.Limits(limit, None), view.now)
        status = status.model_copy(update={"usage": seen.usage})
        if not seen.sleeps:
            return deployment, replace(view, status=status, idle=seen.fact)
        asleep = idle.fall_asleep(view.generation, wake, view.now)
        status = status.model_copy(update={"asleep": asleep})
        written = await self.context.write_status(MODEL_DEPLOYMENTS, deployment, view.status, status)
        await self.context.announce(deployment, "Normal", Reason.IDLE, f"{seen.fact.message}: its pods are stopped")
        return written or deployment, replace(view, status=status, idle=idle.sleeping(asleep, seen.usage))

    async def _activity(self, view: DeploymentView) -> idle.Activity:
        pods = self.context.store.select(PODS, pods_of_deployment(view.namespace, view.name))
        answering = [pod for pod in pods if is_answering(pod)]
        try:
            uses = await asyncio.gather(*(self.metrics.read(pod) for pod in answering))
        except Unread as error:
            return idle.Activity(unknown=str(error))
        return idle.of_pods(list(uses), view.status.usage, view.now)


def without_idle(view: DeploymentView) -> DeploymentView:
    """The view if spec.idle is not set: nothing is asleep, and earlier usage is dropped."""
    was_measured = any(one.type == idle.CONDITION for one in view.status.conditions or ())
    status = view.status.model_copy(update={"asleep": None, "usage": None})
    return replace(view, status=status, idle=idle.NOT_CHECKED if was_measured else None)


def next_measurement(view: DeploymentView) -> float | None:
    """Seconds until the use is measured again; None if it is not measured."""
    limit = view.spec.idle if view.spec else None
    if limit is None or view.status.asleep is not None:
        return None
    return max(SOONEST_SECONDS, min(LATEST_SECONDS, limit.after_seconds / MEASUREMENTS_PER_LIMIT))
