"""Sees to the PodDisruptionBudget of a server, which serves without one too: who refuses that does not keep it away."""

from contextlib import suppress
from dataclasses import dataclass

from finetune_api.manifest import Manifest
from finetune_operator.desired import disruption_budget
from finetune_operator.reconcilers.children import Children, NameTaken
from finetune_operator.reconcilers.context import Context
from finetune_operator.runtime.errors import REFUSALS
from finetune_operator.runtime.kube import DISRUPTION_BUDGETS


@dataclass(frozen=True)
class DisruptionBudgets:
    """Those of all servers.

    Args:
        context: the world.
        children: applies objects.
    """

    context: Context
    children: Children

    async def ensure(self, deployment: Manifest, server: Manifest) -> None:
        """Apply the budget that a server is to have, unless somebody else has made one for its pods."""
        wanted = disruption_budget.build(server)
        if wanted is None:
            return
        metadata = wanted["metadata"]
        write = f"{deployment['metadata']['uid']}/{deployment['metadata']['generation']}/disruption budget"
        what = f"PodDisruptionBudget {metadata['name']} cannot be made: a drain may end all pods at once"
        with suppress(*REFUSALS, NameTaken):
            async with self.context.refusable(deployment, write, what):
                if not await self._is_theirs(metadata, server):
                    await self.children.ensure(DISRUPTION_BUDGETS, deployment, wanted)

    async def _is_theirs(self, metadata: Manifest, server: Manifest) -> bool:
        """Looked up only where there is none of ours: whoever deletes it, and has another, keeps that."""
        name, namespace = metadata["name"], metadata["namespace"]
        if self.context.store.get(DISRUPTION_BUDGETS, name, namespace) is not None:
            return False
        there = await self.context.kube.list(DISRUPTION_BUDGETS, namespace)
        return disruption_budget.is_theirs(there, server)
