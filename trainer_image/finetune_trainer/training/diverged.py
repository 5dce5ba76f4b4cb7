"""Whether a finished training made sense: a loss may explode and still be a finite number.

Only clear cases are refused; a loss that ends far above its start, and a training that moved no weight, are warnings of
the version. A model that is merely worse than before is found by validation and test sets.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from finetune_api.job import FineTuneJobSpec, Hyperparameters
from finetune_api.job_status import NOTHING_LEARNT, TOO_LONG
from finetune_api.reasons import Reason
from finetune_trainer.attempt.metrics import CHOSEN_LOSS
from finetune_trainer.errors import TrainerError

_END, _LEAST = 10, 5
"""The end is the last tenth of the steps, but at least this many: single steps vary."""

_MARGIN = 1.0
"""Nats that a loss must be above its limits to be refused."""

_FAR = 0.5
"""Nats above the start, and fraction of it, from which on an end gets a warning."""

_LONGER, _BEYOND = 1.25, 0.1
"""Factor, and nats, by which a validation loss must end above its minimum to get a warning: a little is normal."""

_EPSILON = 1e-8
"""Adam's epsilon: smaller gradients move a weight by less than the learning rate, in proportion to their size."""

_NOTHING = 1e-8
"""Distance of a weight over all steps that changes no answer: 16 bits cannot represent it beside a base weight."""


def warnings(
    spec: FineTuneJobSpec, lines: Sequence[Mapping[str, Any]], tokens: int, at_end: float | None
) -> list[str] | None:
    """Warnings for a training that was not refused; the arguments are those of the functions called."""
    ratio = spec.adapters.lora_plus_ratio if spec.adapters else None
    return (
        doubts(lines)
        or doubt_of_few(lines, tokens, at_end)
        or too_long(lines)
        or nothing_learnt(lines, spec.hyperparameters, ratio or 1.0)
    )


def require_sense(lines: Sequence[Mapping[str, Any]], tokens: int) -> None:
    """Refuse a model whose loss ended above that of a guess among all of its `tokens`, and above its start.

    A guess has a loss of ln(tokens) nats per token.

    Raises:
        TrainerError: TrainingDiverged.
    """
    losses, what = _of_tokens(lines)
    if not losses:
        return
    last = losses[-max(len(losses) // _END, _LEAST) :]
    end, guess = sum(last) / len(last), math.log(tokens)
    if end <= max(guess, losses[0]) + _MARGIN:
        return
    message = f"{what} rose from {losses[0]:.2f} to {end:.2f}; a guess among {tokens:,} tokens has {guess:.2f}"
    raise TrainerError(Reason.TRAINING_DIVERGED, message)


def _of_tokens(lines: Sequence[Mapping[str, Any]]) -> tuple[list[float], str]:
    """The loss of each step in nats per token, and its name.

    The loss of pairs is no measure: it also falls if both answers get unlikely, and only the rejected one more so. Old
    checkpoints may lack the loss of chosen answers.
    """
    steps = [line for line in lines if "loss" in line]
    if steps and "pairs" in steps[0]:
        return [line[CHOSEN_LOSS] for line in steps if CHOSEN_LOSS in line], "the loss of the chosen answers"
    return [line["loss"] for line in steps], "the training loss"


def require_sound_end(lines: Sequence[Mapping[str, Any]], tokens: int, at_end: float | None) -> None:
    """Refuse a model that the last step ruined: each step's loss was measured before its update.

    `at_end` is the loss of the last step's rows after it, so that the difference is not due to other rows.

    Raises:
        TrainerError: TrainingDiverged.
    """
    losses, what = _of_tokens(lines)
    if at_end is None or not losses:
        return
    if not math.isfinite(at_end):
        raise TrainerError(Reason.TRAINING_DIVERGED, f"{what} after the last step is not a finite number")
    guess = math.log(tokens)
    if at_end <= max(guess, losses[0], losses[-1]) + _MARGIN:
        return
    message = f"the last step took {what} from {losses[-1]:.2f} to {at_end:.2f}; a guess among {tokens:,} tokens has"
    raise TrainerError(Reason.TRAINING_DIVERGED, f"{message} {guess:.2f}")


def doubts(lines: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """A warning if the loss ends far above its start, by more than its variation over steps; otherwise None.

    A step's tokens may be easy ones by chance. The loss of pairs always starts at ln 2, that of a guess.
    """
    of_pairs = [line["loss"] for line in lines if "loss" in line and "pairs" in line]
    losses, what = _of_tokens(lines)
    if (end := _risen(of_pairs, vary=0)) is not None:
        losses, what = of_pairs, "the training loss"
        than = "the base model, which tells the answers apart no better than a guess"
    elif (end := _risen(losses, vary=1)) is not None:
        than = "its base model"
    else:
        return None
    said = f"{what} rose from {losses[0]:.2f} to {end:.2f}: the tuned model is probably worse than {than}"
    return [f"{said}. A lower hyperparameters.learningRate may help"]


def _risen(losses: Sequence[float], *, vary: int) -> float | None:
    """The end of the losses if it is far above the first one. `vary`: 1 if the first one varies by chance, 0 if not."""
    last = losses[1:][-max(len(losses) // _END, _LEAST) :]
    if len(last) < 2:  # one number has no variance
        return None
    end, chance = statistics.fmean(last), 2 * statistics.stdev(last) * math.sqrt(vary + 1 / len(last))
    return end if end - chance > losses[0] + max(_FAR, _FAR * losses[0]) else None


def doubt_of_few(lines: Sequence[Mapping[str, Any]], tokens: int, at_end: float | None) -> list[str] | None:
    """A warning if there were too few steps to tell a rise from chance, but the model ends worse than a guess.

    Uses the loss after the last step: its own loss may already be that of a ruined model. Only a warning, since
    these rows may have had the same loss at the start.
    """
    losses, what = _of_tokens(lines)
    if at_end is None or not losses or at_end <= max(math.log(tokens), losses[0]) + _MARGIN:
        return None
    said = (
        f"{what} was {losses[0]:.2f} at first and {at_end:.2f} after the last step, where a guess "
        f"among {tokens:,} tokens has {math.log(tokens):.2f}: the tuned model is probably worse than its base model"
    )
    return [f"{said}. A lower hyperparameters.learningRate may help"]


def too_long(lines: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """A warning if the validation loss ends far above its minimum: the training rows were then memorised.

    It is always measured on the same rows, so their choice plays no role.
    """
    checks = [line for line in lines if "validationLoss" in line]
    best = min(checks, key=itemgetter("validationLoss"), default=None)
    if best is None or checks[-1]["validationLoss"] <= _LONGER * best["validationLoss"] + _BEYOND:
        return None
    after = f"{best['validationLoss']:.2f} after {round(best['epoch'], 2):g} epochs"
    said = f"{TOO_LONG}: the validation loss was {after} and {checks[-1]['validationLoss']:.2f} at the end"
    return [f"{said}. Fewer hyperparameters.epochs, or a lower learningRate, may make a better model"]


def nothing_learnt(lines: Sequence[Mapping[str, Any]], hyper: Hyperparameters, factor: float = 1.0) -> list[str] | None:
    """A warning if the training cannot have moved any weight noticeably; otherwise None.

    `factor`: how much higher the learning rate of some weights is, with LoRA+.
    """
    steps = [line for line in lines if "loss" in line]
    norms = [min(line["gradNorm"], hyper.max_grad_norm) for line in steps]
    rates = [line["learningRate"] for line in steps]
    way = factor * sum(rate * min(1.0, norm / _EPSILON) for rate, norm in zip(rates, norms, strict=True))
    if not steps or way > _NOTHING:
        return None
    causes = [f"the largest learning rate was {max(rates):.0e}"] if max(rates) * factor * len(steps) <= _NOTHING else []
    causes += [f"no step's gradients were larger than {max(norms):.0e}"] if max(norms) < _EPSILON else []
    said = f"{NOTHING_LEARNT}: no weight has moved so far that it shows"
    why = f" ({'; '.join(causes)})" if causes else ""
    return [f"{said}{why}. Look at hyperparameters.learningRate and maxGradNorm, and at lora.dropout"]
