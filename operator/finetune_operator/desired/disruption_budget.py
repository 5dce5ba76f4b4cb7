"""The PodDisruptionBudget of a server with several replicas: a drain evicts one pod at a time.

The drain then waits until the replacement is ready, which takes minutes for a large model. A single pod gets no budget:
nothing else could answer meanwhile anyway.
"""

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from finetune_api.connection import LabelSelector
from finetune_api.manifest import Manifest
from finetune_api.policy import selects
from finetune_operator.desired.compare import is_ours


def build(server: Manifest) -> Manifest | None:
    """The budget of a Deployment, with its name and owners; None for fewer than two pods.

    A server scaled to one pod keeps an existing budget, which allows that pod's eviction, ready or not.
    """
    if server["spec"]["replicas"] < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": dict(server["metadata"]),
        "spec": {
            "maxUnavailable": 1,
            # An unready pod is no loss, and must not block a drain.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": server["spec"]["selector"],
        },
    }


def has_foreign(budgets: Iterable[Manifest], server: Manifest) -> bool:
    """Whether another owner's budget selects these pods: Kubernetes evicts no pod with two budgets."""
    labels = server["spec"]["template"]["metadata"]["labels"]
    return any(not is_ours(one) and _selects(one["spec"].get("selector"), labels) for one in budgets)


def _selects(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    try:
        return selects(None if selector is None else LabelSelector.model_validate(selector), labels)
    except ValidationError:
        return True  # beyond our schema's limits: assume that it selects them
