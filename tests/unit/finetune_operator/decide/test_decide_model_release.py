"""In which order a model that is deleted with its weights goes."""

import pytest

from finetune_operator.decide.model import DeploymentView
from finetune_operator.decide.model_release import NextStep, next_step
from tests.unit.finetune_operator.decide.given_models import deployed

OWN, BY_HAND = deployed(1), deployed(1, name="by-hand", owned=False)


@pytest.mark.parametrize(
    ("serving", "step"),
    [
        ([OWN, BY_HAND], NextStep("EndOwn", ("sentiment",))),
        ([BY_HAND], NextStep("WaitForOthers", ("by-hand",))),
        ([], NextStep("DeleteWeights")),
    ],
    ids=["its own first", "what was made by hand is ended by hand", "weights last"],
)
def test_weights_are_deleted_once_nothing_serves_them(serving: list[DeploymentView], step: NextStep) -> None:
    assert next_step(serving) == step
