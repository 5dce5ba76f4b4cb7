"""What is watched, and the store that holds it."""

from finetune_api.names import FIELD_MANAGER, MANAGED_BY_LABEL
from finetune_operator.reconcilers.watched.indexes import INDEXERS
from finetune_operator.reconcilers.watched.trimming import TRIMS
from finetune_operator.runtime.kube import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    JOBS,
    NAMESPACES,
    OWN_KINDS,
    PODS,
    SERVICES,
    Resource,
)
from finetune_operator.runtime.store import Store

CHILD_SELECTOR = f"{MANAGED_BY_LABEL}={FIELD_MANAGER}"

CHILDREN: tuple[Resource, ...] = (JOBS, PODS, DEPLOYMENTS, SERVICES, DISRUPTION_BUDGETS)
WATCHED: tuple[Resource, ...] = (NAMESPACES, *CHILDREN, *OWN_KINDS)
"""Children before owners: when an owner is reconciled, its children are known."""


def make_store() -> Store:
    """A store with the indexes that reconcilers use, which keeps only the fields of large objects that they read."""
    return Store(indexers=INDEXERS, trims=TRIMS)
