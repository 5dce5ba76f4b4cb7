"""A model that is deleted with its weights: its deployments go first, then the weights, then the object. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune_operator.decide.model import DeploymentView

Step = Literal["EndOwn", "WaitForOthers", "DeleteWeights"]


@dataclass(frozen=True)
class NextStep:
    """What comes next, and the deployments that it is about."""

    step: Step
    deployments: tuple[str, ...] = ()


def next_step(serving: Sequence[DeploymentView]) -> NextStep:
    """Weights are never deleted while something serves them: who made a deployment by hand ends it by hand."""
    own = tuple(one.name for one in serving if one.owned)
    if own:
        return NextStep("EndOwn", own)
    others = tuple(one.name for one in serving)
    return NextStep("WaitForOthers", others) if others else NextStep("DeleteWeights")
