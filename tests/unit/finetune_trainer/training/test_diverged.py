"""Which ends of a training are certainly none: losses worse than a guess, and worse than at the beginning."""

import math
from types import SimpleNamespace

import pytest

from finetune_api.job import Hyperparameters
from finetune_api.job_status import EXPERTS_LEFT, TOO_LONG, ArtifactRef, TrainingResult
from finetune_trainer import train
from finetune_trainer.errors import TrainerError
from finetune_trainer.training.diverged import (
    doubt_of_few,
    doubts,
    nothing_learnt,
    require_sense,
    require_sound_end,
    warnings,
)

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


@pytest.mark.parametrize(
    ("step", "at_end"),
    [({"loss": 2.0}, None), ({"loss": 2.0}, GUESS + 0.9), ({"loss": 40.0}, 40.5), ({"loss": 0.7, "pairs": 8}, 50.0)],
)
def test_a_last_step_that_may_have_been_one(step, at_end):
    require_sound_end([step, {"step": 1, "validationLoss": 99.0}], TOKENS, at_end)


@pytest.mark.parametrize(
    ("at_end", "said"),
    [
        (GUESS + 1.1, "last step took the training loss from 2.00 to 8.01; a guess among 1,000 tokens has 6.91"),
        (math.nan, "the training loss after the last step is not a finite number"),
    ],
)
def test_a_last_step_that_has_spoilt_the_model(at_end, said):
    with pytest.raises(TrainerError, match=said):
        require_sound_end([{"loss": 3.0}, {"loss": 2.0}], TOKENS, at_end)


def test_losses_of_pairs_are_not_per_token():
    require_sense([{"loss": 0.7, "pairs": 8}, {"loss": 90.0, "pairs": 8}], TOKENS)


def of_pairs(*chosen):
    return [{"loss": 0.7 / 9**step, "pairs": 8, "chosenLoss": loss} for step, loss in enumerate(chosen)]


def test_answers_that_are_told_apart_ever_better_may_be_lost_both():
    with pytest.raises(TrainerError, match=r"the loss of the chosen answers rose from 2.00 to 12.00; a guess"):
        require_sense(of_pairs(2.0, *[12.0] * 5), TOKENS)
    with pytest.raises(TrainerError, match=r"the last step took the loss of the chosen answers from 2.10 to 9.00;"):
        require_sound_end(of_pairs(2.0, 2.1), TOKENS, 9.0)
    (few,) = doubt_of_few(of_pairs(2.0, 9.0), TOKENS, 9.0)
    assert few.startswith("the loss of the chosen answers was 2.00 at first and 9.00 after the last step")
    (said,) = doubts(of_pairs(2.0, 3.4, 3.5, 3.6))
    assert said.startswith("the loss of the chosen answers rose from 2.00 to 3.50")
    assert max(len(few), len(said)) <= 300
    usual = of_pairs(2.0, 2.2, 2.4, 2.3)
    assert doubts(usual) is doubt_of_few(usual, TOKENS, 2.3) is require_sense(usual, TOKENS) is None


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


@pytest.mark.parametrize(
    ("losses", "at_end", "told"),
    [
        ([2.0, 2.1, GUESS + 5], GUESS + 5, True),
        ([2.0, GUESS + 3], GUESS + 3, True),
        ([2.0, 2.1, 9.0], 2.5, False),
        ([2.0, 2.1], GUESS + 0.9, False),
        ([GUESS + 5, GUESS + 5], GUESS + 5.5, False),
        ([2.0, 2.1], None, False),
        ([], 9.0, False),
    ],
)
def test_a_model_that_the_last_step_but_one_of_a_few_has_spoilt_is_told(losses, at_end, told):
    said = doubt_of_few([{"loss": loss} for loss in losses], TOKENS, at_end)
    assert (said is not None) == told
    if said:
        assert said[0].startswith(f"the training loss was 2.00 at first and {at_end:.2f} after the last step")
        assert len(said[0]) <= 300
    assert doubt_of_few([{"loss": loss, "pairs": 8} for loss in losses], TOKENS, at_end) is None


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([], False),
        ([3.0], False),
        ([3.0, 2.0, 1.0], False),
        ([3.0, 1.0, 1.3], False),
        ([0.0, 0.09], False),
        ([3.0, 1.0, 9.0, 1.2], False),
        ([3.0, 1.0, 1.4], True),
        ([0.02, 0.2], True),
    ],
)
def test_a_validation_loss_that_ends_far_above_its_lowest_is_told(losses, told):
    checks = [{"step": 9 * epoch, "epoch": epoch / 3, "validationLoss": loss} for epoch, loss in enumerate(losses, 1)]
    spec = SimpleNamespace(adapters=None, hyperparameters=Hyperparameters())
    said = warnings(spec, [{"loss": 0.1, "learningRate": 1, "gradNorm": 1}, *checks], TOKENS, None)
    assert (said is not None) == told
    if len(losses) == 3 and said:
        assert said[0].startswith(f"{TOO_LONG}: the validation loss was 1.00 after 0.67 epochs and 1.40 at the end. ")
        assert len(said[0]) <= 300


def steps(rate, norm, count=5):
    return [{"validationLoss": 2.0}, *({"loss": 2.0, "learningRate": rate, "gradNorm": norm} for _ in range(count))]


@pytest.mark.parametrize(
    ("rate", "norm", "clip", "said"),
    [
        (1e-12, 3.0, 1.0, "(the largest learning rate was 1e-12)"),
        (1e-300, 0.0, 1.0, "(the largest learning rate was 1e-300; no step's gradients were larger than 0e+00)"),
        (1e-2, 0.0, 1.0, "(no step's gradients were larger than 0e+00)"),
        (1e-2, 3.0, 1e-30, "(no step's gradients were larger than 1e-30)"),
    ],
)
def test_a_training_that_has_moved_no_weight_says_so(rate, norm, clip, said):
    (told,) = nothing_learnt(steps(rate, norm), Hyperparameters(max_grad_norm=clip))
    assert told.startswith("the tuned model answers as its base model does")
    assert said in told
    assert told.endswith("Look at hyperparameters.learningRate and maxGradNorm, and at lora.dropout")


@pytest.mark.parametrize(
    ("rate", "norm", "factor"), [(1e-6, 0.1, 1), (2e-4, 1e-6, 1), (1e-10, 1.0, 1000), (2e-9, 9, 1)]
)
def test_a_small_step_is_a_step(rate, norm, factor):
    assert nothing_learnt(steps(rate, norm, 9), Hyperparameters(), factor) is None
    assert nothing_learnt([], Hyperparameters()) is None


@pytest.mark.parametrize(
    ("told", "more", "warnings"),
    [
        (None, ["it rose"], ["it rose"]),
        (["too long"], ["it rose"], ["too long"]),
        ([EXPERTS_LEFT], ["it rose"], ["it rose", EXPERTS_LEFT]),
        (["too long", EXPERTS_LEFT], ["it rose"], ["too long", EXPERTS_LEFT]),
        ([EXPERTS_LEFT], None, [EXPERTS_LEFT]),
    ],
)
def test_one_doubt_is_told_and_before_what_adapters_do_not_reach(told, more, warnings):
    result = TrainingResult(artifact=ArtifactRef(), steps=1, warnings=told)
    assert train._with_warnings(result, more).warnings == warnings
