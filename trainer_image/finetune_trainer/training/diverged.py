"""Whether a training that has come to its end has come to anything: a loss may explode and stay a finite number.

Only what is certain is refused; a loss that ends far above its beginning, and a training that has moved no weight, are
told beside the version. A model that is merely worse than before is found by validation and test sets.
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
"""The last tenth of the steps is the end, and no fewer than these: single steps vary."""

_MARGIN = 1.0
"""Nats: so far a loss must lie above what it is held against."""

_FAR = 0.5
"""Nats above the beginning, and part of it, from which on an end is worth a word."""

_LONGER, _BEYOND = 1.25, 0.1
"""Times, and nats, by which a validation loss must end above its lowest one to be worth a word: a little is usual."""

_EPSILON = 1e-8
"""Of Adam: gradients below it move a weight by less than the learning rate, and by the less the smaller they are."""

_NOTHING = 1e-8
"""A way of a weight over all steps that no answer shows: 16 bits cannot even hold it beside a weight of a base."""


def warnings(
    spec: FineTuneJobSpec, lines: Sequence[Mapping[str, Any]], tokens: int, at_end: float | None
) -> list[str] | None:
    """What to say beside the version of a training that was let through; the arguments are those of what it asks."""
    ratio = spec.adapters.lora_plus_ratio if spec.adapters else None
    return (
        doubts(lines)
        or doubt_of_few(lines, tokens, at_end)
        or too_long(lines)
        or nothing_learnt(lines, spec.hyperparameters, ratio or 1.0)
    )


def require_sense(lines: Sequence[Mapping[str, Any]], tokens: int) -> None:
    """Refuse a model that answers worse than a guess among all of its `tokens`, and worse than it began.

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
    said = f"{what} rose from {losses[0]:.2f} to {end:.2f}; a guess among {tokens:,} tokens has {guess:.2f}"
    raise TrainerError(Reason.TRAINING_DIVERGED, said)


def _of_tokens(lines: Sequence[Mapping[str, Any]]) -> tuple[list[float], str]:
    """The loss of each step in nats per token, and what it is called.

    That of pairs is none: it falls as well where both answers are lost, and only the rejected one by more. Checkpoints
    of before may lack the other one.
    """
    steps = [line for line in lines if "loss" in line]
    if steps and "pairs" in steps[0]:
        return [line[CHOSEN_LOSS] for line in steps if CHOSEN_LOSS in line], "the loss of the chosen answers"
    return [line["loss"] for line in steps], "the training loss"


def require_sound_end(lines: Sequence[Mapping[str, Any]], tokens: int, at_end: float | None) -> None:
    """Refuse a model whose last step has spoilt it: each step's own loss is from before the step.

    `at_end` is that of the last step's rows after it, by which chance of other rows has no part in the difference.

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
    said = f"the last step took {what} from {losses[-1]:.2f} to {at_end:.2f}; a guess among {tokens:,} tokens has"
    raise TrainerError(Reason.TRAINING_DIVERGED, f"{said} {guess:.2f}")


def doubts(lines: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """What to say of a training whose loss ends far above its beginning, by more than steps vary; None where none does.

    A step's tokens may be easy ones by chance. The loss of pairs begins at ln 2, that of a guess, whatever they are.
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
    """Where losses end, if that is far above the first one, which may be so by chance or not at all (`vary` 1 or 0)."""
    last = losses[1:][-max(len(losses) // _END, _LEAST) :]
    if len(last) < 2:  # one number does not vary
        return None
    end, chance = statistics.fmean(last), 2 * statistics.stdev(last) * math.sqrt(vary + 1 / len(last))
    return end if end - chance > losses[0] + max(_FAR, _FAR * losses[0]) else None


def doubt_of_few(lines: Sequence[Mapping[str, Any]], tokens: int, at_end: float | None) -> list[str] | None:
    """What to say where there were too few steps to tell a rise from chance, and yet a guess does better in the end.

    The last step's own loss is no measure there: the step before it may have spoilt the model. Other rows may have had
    as high a loss before; that is why it is a word and no refusal.
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
    """What to say where rows that are not learnt had a far lower loss before the end: then others were learnt by heart.

    Each time they are the same rows, so no chance of theirs has a part in it.
    """
    checks = [line for line in lines if "validationLoss" in line]
    best = min(checks, key=itemgetter("validationLoss"), default=None)
    if best is None or checks[-1]["validationLoss"] <= _LONGER * best["validationLoss"] + _BEYOND:
        return None
    after = f"{best['validationLoss']:.2f} after {round(best['epoch'], 2):g} epochs"
    said = f"{TOO_LONG}: the validation loss was {after} and {checks[-1]['validationLoss']:.2f} at the end"
    return [f"{said}. Fewer hyperparameters.epochs, or a lower learningRate, may make a better model"]


def nothing_learnt(lines: Sequence[Mapping[str, Any]], hyper: Hyperparameters, factor: float = 1.0) -> list[str] | None:
    """What to say of a training that can have moved no weight so far that it shows; None where it may have.

    `factor`: by which the rate of some weights is larger, as LoRA+ has it.
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
