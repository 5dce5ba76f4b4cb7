"""The PodDisruptionBudget of a server with several replicas: whoever drains nodes ends one pod at a time.

It waits for the next pod to answer, which takes minutes where a model is large. A single pod gets none: nothing else
answers meanwhile, whatever a budget says.
"""

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from finetune_api.connection import LabelSelector
from finetune_api.manifest import Manifest
from finetune_api.policy import selects
from finetune_operator.desired.compare import is_ours


def build(server: Manifest) -> Manifest | None:
    """The budget of a Deployment, with its name and its owners; None where it has not several pods.

    Where there is one already, a server of one pod keeps it: that pod may be ended, whether it answers or not.
    """
    if server["spec"]["replicas"] < 2:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": dict(server["metadata"]),
        "spec": {
            "maxUnavailable": 1,
            # What does not answer is no loss, and must not hold up a drain.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": server["spec"]["selector"],
        },
    }


def is_theirs(budgets: Iterable[Manifest], server: Manifest) -> bool:
    """Whether one of these is somebody else's, for these pods: Kubernetes evicts no pod that has two."""
    labels = server["spec"]["template"]["metadata"]["labels"]
    return any(not is_ours(one) and _selects(one["spec"].get("selector"), labels) for one in budgets)


def _selects(selector: Manifest | None, labels: Mapping[str, str]) -> bool:
    try:
        return selects(None if selector is None else LabelSelector.model_validate(selector), labels)
    except ValidationError:
        return True  # it is longer than ours are: left to whoever has made it
