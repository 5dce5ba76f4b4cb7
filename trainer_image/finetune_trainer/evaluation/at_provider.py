"""The evaluation of a tuned model that stays at its provider: every model is asked over HTTP, by its role.

    tuned → base model → base model with examples → active version → endpoints → judge → comparison

The operator knows the models' names and holds the key. There are no losses, which providers do not return.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune_api.asking import Candidate
from finetune_api.evaluation import Service
from finetune_api.reasons import Reason
from finetune_api.trainer import MeasureJob
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.data import Row
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.asking import NO_EXAMPLES, Asking
from finetune_trainer.evaluation.contest import (
    ACTIVE_VERSION,
    FEW_SHOT,
    TUNED,
    ZERO_SHOT,
    Contest,
    Contestant,
    contest,
)
from finetune_trainer.evaluation.endpoint import Outcome, Way
from finetune_trainer.evaluation.material import Material

AT_ONCE = 4
"""Concurrent questions. The operator serves other such pods too."""

ANSWER_SECONDS = 180
"""Timeout of an answer, longer than the operator's own for the provider."""

NO_LOSSES = "loss and perplexity are not measured: they are not available from a provider"


class AskingProvider(Asking):
    """The evaluation of a model at a provider."""

    def __init__(
        self,
        job: MeasureJob,
        output: Path,
        *,
        material: Material,
        way: Way,
        reporter: Reporter,
        interruption: Interruption,
    ) -> None:
        self._job, self._way = job, way
        super().__init__(
            job.spec,
            output,
            material=material,
            has_active=job.active_version is not None,
            reporter=reporter,
            interruption=interruption,
        )

    def measure(self) -> Contest:
        """Ask every model and compare.

        Raises:
            TrainerError: the tuned model does not answer, or a failure affects all models.
        """
        self._report(due=True)
        found = {TUNED: self._ask(TUNED, "tuned")}
        if self._evaluation.has(ZERO_SHOT):
            found[ZERO_SHOT] = self._ask(ZERO_SHOT, "base")
        if self._evaluation.has(FEW_SHOT):
            found[FEW_SHOT] = self._few_shot()
        if self._comparing_versions:
            found[ACTIVE_VERSION] = self._active_version()
        self._services(found)
        self._report(due=True)
        return contest(self._material, self._evaluation.metrics, found, {}, missing=_missing(found[TUNED]))

    def _few_shot(self) -> Contestant:
        shown = self._material.examples
        if not shown:
            return self._not_asked(NO_EXAMPLES)
        contestant = self._ask(FEW_SHOT, "base", len(shown), shown=shown)
        contestant.notes = {"examples": float(len(shown))}
        return contestant

    def _active_version(self) -> Contestant:
        number = self._job.active_version
        if number is None:
            return self._not_asked("the model had no active version when the evaluation started")
        if self._job.missing is not None:
            contestant = self._not_asked(self._job.missing)
        else:
            contestant = self._ask(ACTIVE_VERSION, "activeVersion", number)
        contestant.notes = {"version": number}
        return contestant

    def _ask(self, who: str, candidate: Candidate, *depends_on: int, shown: Sequence[Row] = ()) -> Contestant:
        """Ask one model; `shown` are the examples before each question."""
        kept = self._kept(who, self._job.uid, self._job.attempt, *depends_on)
        service = Service(
            url=self._job.answers_url, model=candidate, concurrency=AT_ONCE, timeout_seconds=ANSWER_SECONDS
        )
        contestant, outcome = self._ask_service(service, None, kept, shown=shown, way=self._way)
        _require_possible(outcome, candidate, answered=len(kept) > 0)
        return contestant


def _require_possible(outcome: Outcome, candidate: Candidate, *, answered: bool) -> None:
    """Raise if the remaining questions would fail too. A missing baseline only costs itself.

    Raises:
        TrainerError: with the reason that the operator gave.
    """
    of_one_model = outcome.reason in {Reason.PROVIDER_REFUSED, Reason.MODEL_NOT_FOUND}
    if outcome.reason is not None and not (of_one_model and candidate != "tuned"):
        raise TrainerError(outcome.reason, _why(outcome))
    if candidate == "tuned" and not answered:
        raise TrainerError(Reason.PROVIDER_REFUSED, f"the tuned model gives no answer: {_why(outcome)}")


def _why(outcome: Outcome) -> str:
    return max(outcome.problems, key=lambda cause: outcome.problems[cause], default="it was not asked")


def _missing(tuned: Contestant) -> str:
    parts: Iterable[str | None] = (NO_LOSSES, tuned.problem)
    return "; ".join(part for part in parts if part)[:500]
