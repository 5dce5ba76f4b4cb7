"""Deletes a model with its weights: first its deployments, then the weights, then the object. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune_operator.decide.model import DeploymentView

Step = Literal["EndOwn", "WaitForOthers", "DeleteWeights"]


@dataclass(frozen=True)
class NextStep:
    """What to do next, and for which deployments."""

    step: Step
    deployments: tuple[str, ...] = ()


def next_step(serving: Sequence[DeploymentView]) -> NextStep:
    """Weights are not deleted while something serves them. Users delete the deployments that they created."""
    own = tuple(one.name for one in serving if one.owned)
    if own:
        return NextStep("EndOwn", own)
    others = tuple(one.name for one in serving)
    return NextStep("WaitForOthers", others) if others else NextStep("DeleteWeights")
