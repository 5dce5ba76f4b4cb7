"""Which ends of a training are certainly none: losses worse than a guess, and worse than at the beginning."""

import math

import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.training.diverged import require_sense

TOKENS = 1000
GUESS = math.log(TOKENS)


@pytest.mark.parametrize(
    "losses",
    [
        pytest.param([], id="nothing was trained"),
        pytest.param([2.0, 1.0, 0.5], id="it learns"),
        pytest.param([0.1, 2.0, 3.0], id="worse than before, and better than a guess"),
        pytest.param([GUESS, GUESS + 0.9], id="about as good as a guess"),
        pytest.param([40.0, 30.0, 20.0], id="a model of random weights gets better"),
        pytest.param([2.0, 80.0, *[1.5] * 10], id="it came back"),
        pytest.param([2.0] * 95 + [1.0, 1.0, 1.0, 1.0, 30.0], id="one odd step at the end"),
    ],
)
def test_what_may_be_a_model(losses):
    require_sense([{"step": 1, "validationLoss": 99.0}, *({"loss": loss} for loss in losses)], TOKENS)


@pytest.mark.parametrize("losses", [[2.0, 50.0], [2.0] * 10 + [50.0] * 90, [GUESS + 2, GUESS + 9]])
def test_what_is_none(losses):
    with pytest.raises(TrainerError, match=f"rose from {losses[0]:.2f} to .*among 1,000 tokens has 6.91"):
        require_sense([{"loss": loss} for loss in losses], TOKENS)


def test_losses_of_pairs_are_not_per_token():
    require_sense([{"loss": 0.7, "pairs": 8}, {"loss": 90.0, "pairs": 8}], TOKENS)
