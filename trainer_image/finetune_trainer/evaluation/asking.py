"""What all evaluations share: asking services, saving answers as they arrive, and reporting progress.

Subclasses know where the tuned model is and how to ask it: here, or at a provider.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.evaluation import Endpoint, Judge, Service
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Progress
from finetune_api.names import JUDGE_KEY_VARIABLE, endpoint_key_variable
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.data import Row, Turn
from finetune_trainer.evaluation.contest import ACTIVE_VERSION, TUNED, Contestant, endpoint_key
from finetune_trainer.evaluation.judge import MAX_TOKENS, doubts, pairs, rulings
from finetune_trainer.evaluation.kept import Answer, KeptAnswers
from finetune_trainer.evaluation.material import Material, after_examples
from finetune_trainer.evaluation.stored import Each

if TYPE_CHECKING:
    from finetune_trainer.evaluation.endpoint import Outcome, Way

NO_EXAMPLES = "every row of the training set is asked in the test set: there are no examples"


class Asking:
    """One evaluation in progress."""

    def __init__(
        self,
        spec: FineTuneJobSpec,
        output: Path,
        *,
        material: Material,
        has_active: bool,
        reporter: Reporter,
        interruption: Interruption,
    ) -> None:
        self._spec, self._output, self._material = spec, output, material
        self._evaluation = spec.evaluation
        self._comparing_versions = has_active or spec.evaluation.has(ACTIVE_VERSION)
        self._reporter, self._interruption = reporter, interruption
        self._answered = 0

    def _services(self, found: dict[str, Contestant]) -> None:
        """Ask the endpoints, then the judge about every contestant; adds the endpoints to `found`."""
        for one in self._evaluation.endpoints:
            found[endpoint_key(one.name)] = self._endpoint(one)
        if self._evaluation.judge is not None:
            for name in [name for name in found if name != TUNED]:
                self._judge(self._evaluation.judge, name, found[TUNED].answers, found[name])

    def _endpoint(self, one: Endpoint) -> Contestant:
        kept = self._kept(endpoint_key(one.name).replace("/", "-"), one.url, one.model)
        contestant, outcome = self._ask_service(one, os.environ.get(endpoint_key_variable(one.name)), kept)
        rows = len(self._material.questions) - outcome.errors
        contestant.notes = {"name": one.name, "rows": rows, "errors": outcome.errors}
        return contestant

    def _ask_service(
        self,
        service: Service,
        key: str | None,
        kept: KeptAnswers,
        *,
        shown: Sequence[Row] = (),
        way: "Way | None" = None,
    ) -> tuple[Contestant, "Outcome"]:
        """Ask the questions without a saved answer; `shown` are the examples before each question."""
        from finetune_trainer.evaluation.endpoint import ask  # needs an HTTP client

        questions = self._material.questions

        def conversation(row: int) -> tuple[int, tuple[Turn, ...]]:
            return row, after_examples(questions[row].turns, shown)

        left = Each(range(len(questions)), conversation).without(kept.__contains__)
        self._advance(len(questions) - len(left))
        outcome = ask(
            service,
            key,
            left,
            max_tokens=self._material.service_tokens,
            on_answer=lambda answer: self._keep(kept, [answer]),
            way=way,
        )
        self._advance(outcome.errors)
        contestant = Contestant(kept.texts(len(questions)), prompt_tokens=kept.prompt_tokens)
        contestant.problem = outcome.problem
        return contestant, outcome

    def _judge(self, judge: Judge, name: str, tuned: Sequence[str | None], other: Contestant) -> None:
        """Have each pair of answers judged twice; pairs without a ruling count as errors."""
        from finetune_trainer.evaluation.endpoint import ask  # needs an HTTP client

        most = 2 * len(self._material.questions)
        if all(answer is None for answer in other.answers):
            self._advance(most)
            return
        comparisons = pairs(self._material.questions, tuned, other.answers, judge.criteria)
        who = "judge-" + name.replace("/", "-")
        kept = self._kept(who, judge.url, judge.model, judge.criteria, *map(hash_of, (tuned, other.answers)))
        left = comparisons.without(kept.__contains__)
        key = os.environ.get(JUDGE_KEY_VARIABLE)
        self._advance(most - len(left))
        outcome = ask(judge, key, left, max_tokens=MAX_TOKENS, on_answer=lambda one: self._keep(kept, [one]))
        self._advance(outcome.errors)
        said = kept.texts(2 * len(tuned))
        other.rulings = rulings(tuned, other.answers, said)
        why = "; ".join(filter(None, (outcome.summary("question"), doubts(other.rulings, said))))
        if why:
            other.problem = "; ".join(filter(None, (other.problem, f"judge: {why}")))

    def _kept(self, who: str, *depends_on: Any) -> KeptAnswers:
        spec, material = self._spec, self._material
        return KeptAnswers(
            self._output,
            who,
            material.sha256,
            material.max_new_tokens,
            spec.base_model,
            spec.data.columns.wire(),
            *depends_on,
        )

    def _keep(self, kept: KeptAnswers, new: list[Answer]) -> None:
        self._interruption.check()
        self._interruption.before_writing()
        kept.add(new)
        self._advance(len(new))

    def _not_asked(self, why: str) -> Contestant:
        self._advance(len(self._material.questions))
        return Contestant([None] * len(self._material.questions), problem=why[:300])

    def _advance(self, answers: int) -> None:
        self._answered += answers
        self._report(due=self._reporter.due())

    def _report(self, *, due: bool) -> None:
        if not due:
            return
        models = 1 + self._comparing_versions + sum(not one.active_version for one in self._evaluation.baselines)
        ruled = 2 * (models - 1) if self._evaluation.judge is not None else 0
        before = self._reporter.report.progress or Progress(step=0, total_steps=0)
        progress = before.model_copy(
            update={
                "answers": self._answered,
                "total_answers": (models + ruled) * len(self._material.questions),
                "eta_seconds": None,
                "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        self._reporter.update(phase="Evaluating", progress=progress)


def hash_of(texts: Iterable[str | None]) -> str:
    """A hash of all texts in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(text).encode() + b"\n")
    return digest.hexdigest()
