"""Which ends of a training are certainly none: losses worse than a guess, and worse than at the beginning."""

import math

import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.training.diverged import doubts, require_sense

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


LN_2 = math.log(2)


@pytest.mark.parametrize(
    "losses",
    [
        pytest.param([], id="nothing was trained"),
        pytest.param([2.0], id="one step"),
        pytest.param([2.0, 9.0], id="two steps, of which one may be hard"),
        pytest.param([2.0, 9.0, 9.1, *[1.5] * 20], id="it came back"),
        pytest.param([2.0, 2.2, 2.4, 2.6, 2.8, 2.9], id="a little worse"),
        pytest.param([0.1, 3.0, 0.2, 4.5, 0.1, 2.9, 5.2, 0.0], id="steps of one row, the first of them easy"),
        pytest.param([0.02, 0.1, 0.3, 0.2, 0.3, 0.4], id="known by heart, and then less so"),
    ],
)
def test_what_is_no_doubt(losses):
    assert doubts([{"validationLoss": 9.0}, *({"loss": loss} for loss in losses)]) is None


@pytest.mark.parametrize("losses", [[2.0] + [9.3, 8.8] * 9, [2.0, 3.4, 3.5, 3.6], [0.4] + [1.9, 2.0] * 50])
def test_a_loss_that_ends_far_above_its_beginning_is_told(losses):
    (said,) = doubts([{"loss": loss} for loss in losses])
    assert said.startswith(f"the training loss rose from {losses[0]:.2f} to ")
    assert "worse than its base model. A lower hyperparameters.learningRate" in said
    assert len(said) <= 300


@pytest.mark.parametrize("losses", [[LN_2, 2.4, 9.9, 4.0, 0.1, 6.0, 5.5, 7.0, 3.0, 8.0, 9.0], [LN_2, 1.4, 1.5, 1.4]])
def test_a_loss_of_pairs_far_above_that_of_a_guess_is_told(losses):
    (said,) = doubts([{"loss": loss, "pairs": 8} for loss in losses])
    assert said.startswith("the training loss rose from 0.69 to ")
    assert "no better than a guess" in said


@pytest.mark.parametrize("losses", [[LN_2, 0.8, 0.9, 0.75], [LN_2, 5.0, 0.1, 0.0, 6.0, 0.0], [LN_2, 0.3, 0.1]])
def test_a_loss_of_pairs_that_goes_up_and_down_is_no_doubt(losses):
    assert doubts([{"loss": loss, "pairs": 8} for loss in losses]) is None
