"""Ensures the PodDisruptionBudget of a server. Best effort: a refused budget does not keep the server from running."""

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
    """The budgets of all servers.

    Args:
        context: what reconcilers share.
        children: applies objects.
    """

    context: Context
    children: Children

    async def ensure(self, deployment: Manifest, server: Manifest) -> None:
        """Apply the server's budget, unless its pods have one that someone else made."""
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
        """Whether a budget of someone else covers the pods. Looked up only if ours is missing, to save the request."""
        name, namespace = metadata["name"], metadata["namespace"]
        if self.context.store.get(DISRUPTION_BUDGETS, name, namespace) is not None:
            return False
        there = await self.context.kube.list(DISRUPTION_BUDGETS, namespace)
        return disruption_budget.has_foreign(there, server)
