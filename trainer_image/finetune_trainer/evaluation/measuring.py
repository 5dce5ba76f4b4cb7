"""Who answers the test set, one after the other. What was answered is kept until the artifact is whole.

    tuned → base model (with its loss) → base model with examples → active version → endpoints → judge → comparison

A baseline that cannot be asked is told with the reason: it never costs the tuned model.
"""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune_api.evaluation import Endpoint, Judge
from finetune_api.job_status import Progress
from finetune_api.names import JUDGE_KEY_VARIABLE, endpoint_key_variable
from finetune_api.trainer import ActiveVersionRef
from finetune_trainer import artifact_store
from finetune_trainer.data import TemplateRefusedError
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import material
from finetune_trainer.evaluation.contest import (
    ACTIVE_VERSION,
    FEW_SHOT,
    TUNED,
    ZERO_SHOT,
    Contest,
    Contestant,
    contest,
    endpoint_key,
)
from finetune_trainer.evaluation.generate import generated
from finetune_trainer.evaluation.judge import MAX_TOKENS, pairs, rulings
from finetune_trainer.evaluation.kept import FOLDER, Answer, KeptAnswers
from finetune_trainer.evaluation.material import Material, Prompt
from finetune_trainer.evaluation.models import Model, Tuned, base_of, same_tokens, version_in
from finetune_trainer.interruption import Interruption
from finetune_trainer.report import Reporter
from finetune_trainer.store import Store
from finetune_trainer.token_store import TokenStore


class Measuring:
    """One evaluation on its way.

    Args:
        tuned: the model of this job.
        asked: the test set.
        test: the test set with labels, for losses.
        learnt: what the tuned model learnt from, as a hash: answers of another one do not count.
        reporter: told how far it is.
        interruption: looked at between batches.
    """

    def __init__(
        self,
        tuned: Tuned,
        *,
        asked: Material,
        test: TokenStore,
        learnt: str,
        reporter: Reporter,
        interruption: Interruption,
    ) -> None:
        self._tuned, self._material, self._test, self._learnt = tuned, asked, test, learnt
        self._reporter, self._interruption = reporter, interruption
        self._evaluation = tuned.job.spec.evaluation
        self._active = tuned.job.active_version
        self._answered = 0

    def measure(self) -> Contest:
        """Ask everybody and compare."""
        self._report(due=True)
        found = {TUNED: self._ask_model(TUNED, self._tuned.model, self._learnt)}
        losses = {TUNED: self._loss(self._tuned.model)}
        with base_of(self._tuned) as base:
            losses[ZERO_SHOT] = self._loss(base)
            if self._evaluation.has(ZERO_SHOT):
                found[ZERO_SHOT] = self._ask_model(ZERO_SHOT, base)
            if self._evaluation.has(FEW_SHOT):
                found[FEW_SHOT] = self._few_shot(base)
        if self._compares_versions:
            found[ACTIVE_VERSION], losses[ACTIVE_VERSION] = self._active_version()
        for one in self._evaluation.endpoints:
            found[endpoint_key(one.name)] = self._endpoint(one)
        if self._evaluation.judge is not None:
            for name in [name for name in found if name != TUNED]:
                self._judge(self._evaluation.judge, name, found[TUNED].answers, found[name])
        self._report(due=True)
        return contest(self._material, self._evaluation.metrics, found, losses)

    @property
    def _compares_versions(self) -> bool:
        return self._active is not None or self._evaluation.has(ACTIVE_VERSION)

    def _ask_model(self, who: str, model: Model, *depends_on: Any) -> Contestant:
        longest = model.longest_prompt(self._material.max_new_tokens)
        prompts = material.prompts(self._material.questions, model.chat, longest)
        return self._ask_with(who, model, prompts, *depends_on)

    def _few_shot(self, base: Model) -> Contestant:
        shown = self._material.examples
        if not shown:
            return self._not_asked("every row of the training set is asked in the test set: there are no examples")
        longest = base.longest_prompt(self._material.max_new_tokens)
        try:
            prompts = material.prompts_with_examples(self._material.questions, shown, base.chat, longest)
        except TemplateRefusedError:
            return self._not_asked("the model's chat template takes no examples before the question")
        asked = self._ask_with(FEW_SHOT, base, prompts, len(shown), self._learnt)
        asked.notes = {"examples": round(sum(prompt.examples for prompt in prompts) / len(prompts), 2)}
        return asked

    def _active_version(self) -> tuple[Contestant, float | None]:
        active = self._active
        if active is None:
            return self._not_asked("the model had no active version when the attempt started"), None
        place = active.folder or (active.store and active.store.uri)
        if place is None:
            asked, loss = self._not_asked("its weights are not where the trainer can reach them"), None
        else:
            try:
                with version_in(self._tuned, self._here(active)) as model:
                    asked = self._ask_model(ACTIVE_VERSION, model, active.version, place)
                    loss = self._loss(model) if same_tokens(model.chat, self._tuned.model.chat) else None
            except TrainerError as error:
                asked, loss = self._not_asked(f"{error.reason}: {error.message}"), None
        asked.notes = {"version": active.version}
        return asked, loss

    def _here(self, active: ActiveVersionRef) -> Path:
        """The folder of its weights, fetched where they are in a store."""
        if active.store is None:
            return Path(active.folder or "")
        folder = Path(self._tuned.job.output) / ACTIVE_VERSION
        artifact_store.fetch(Store(active.store), "", folder, sha256=active.sha256)
        return folder

    def _ask_with(self, who: str, model: Model, prompts: Sequence[Prompt], *depends_on: Any) -> Contestant:
        kept = self._kept(who, *depends_on)
        left = [row for row in range(len(prompts)) if row not in kept.by_row]
        self._advance(len(prompts) - len(left))
        batches = generated(
            model.net,
            [prompts[row].ids for row in left],
            generation=model.generation,
            max_new_tokens=self._material.max_new_tokens,
            token_budget=4 * self._tuned.token_budget,  # no gradients, so more fits than in training
        )
        for batch in batches:
            said = [(left[place], model.chat.backend.decode(ids, skip_special_tokens=True)) for place, ids in batch]
            self._keep(kept, [Answer(row, text.strip()) for row, text in said])
        return _contestant(kept, len(prompts), prompt_tokens=_mean([len(prompt.ids) for prompt in prompts]))

    def _endpoint(self, one: Endpoint) -> Contestant:
        from finetune_trainer.evaluation.endpoint import ask  # needs an HTTP client

        kept = self._kept(endpoint_key(one.name).replace("/", "-"), one.url, one.model)
        asked = self._material.questions
        left = [(row, asked[row].turns) for row in range(len(asked)) if row not in kept.by_row]
        self._advance(len(asked) - len(left))
        outcome = ask(
            one,
            os.environ.get(endpoint_key_variable(one.name)),
            left,
            max_tokens=self._material.max_new_tokens,
            on_answer=lambda answer: self._keep(kept, [answer]),
        )
        self._advance(outcome.errors)
        counted = [answer.prompt_tokens for answer in kept.by_row.values() if answer.prompt_tokens is not None]
        contestant = _contestant(kept, len(asked), prompt_tokens=_mean(counted))
        contestant.problem = outcome.problem
        contestant.notes = {"name": one.name, "rows": len(asked) - outcome.errors, "errors": outcome.errors}
        return contestant

    def _judge(self, judge: Judge, name: str, tuned: list[str | None], other: Contestant) -> None:
        """Have each pair of answers judged, twice; what was not judged counts as an error."""
        from finetune_trainer.evaluation.endpoint import ask  # needs an HTTP client

        if all(answer is None for answer in other.answers):
            return
        asked = list(pairs(self._material.questions, tuned, other.answers, judge.criteria))
        who = "judge-" + name.replace("/", "-")
        kept = self._kept(who, judge.url, judge.model, judge.criteria, tuned, other.answers)
        left = [(number, turns) for number, turns in asked if number not in kept.by_row]
        key = os.environ.get(JUDGE_KEY_VARIABLE)
        outcome = ask(judge, key, left, max_tokens=MAX_TOKENS, on_answer=lambda one: self._keep(kept, [one], count=0))
        other.rulings = rulings(tuned, other.answers, {number: said.text for number, said in kept.by_row.items()})
        if outcome.problem and other.problem is None:
            other.problem = f"judge: {outcome.problem}"

    def _kept(self, who: str, *depends_on: Any) -> KeptAnswers:
        spec, asked = self._tuned.job.spec, self._material
        return KeptAnswers(
            Path(self._tuned.job.output),
            who,
            asked.sha256,
            asked.max_new_tokens,
            spec.base_model,
            spec.data.columns.wire(),
            *depends_on,
        )

    def _keep(self, kept: KeptAnswers, new: list[Answer], *, count: int = 1) -> None:
        self._interruption.check()
        self._interruption.before_writing()
        kept.add(new)
        self._advance(count * len(new))

    def _not_asked(self, why: str) -> Contestant:
        self._advance(len(self._material.questions))
        return Contestant([None] * len(self._material.questions), problem=why[:300])

    def _loss(self, model: Model) -> float | None:
        from finetune_trainer.evaluation.losses import loss_on  # needs torch

        return loss_on(
            model.net,
            self._test,
            token_budget=self._tuned.token_budget,
            compute_dtype=self._tuned.compute_dtype,
            interruption=self._interruption,
        )

    def _advance(self, answers: int) -> None:
        self._answered += answers
        self._report(due=self._reporter.due())

    def _report(self, *, due: bool) -> None:
        if not due:
            return
        asked = 1 + self._compares_versions + sum(not one.active_version for one in self._evaluation.baselines)
        before = self._reporter.report.progress or Progress(step=0, total_steps=0)
        progress = before.model_copy(
            update={
                "answers": self._answered,
                "total_answers": asked * len(self._material.questions),
                "eta_seconds": None,
                "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        self._reporter.update(phase="Evaluating", progress=progress)


def forget(output: Path) -> None:
    """The answers are in the artifact by now."""
    shutil.rmtree(output / FOLDER, ignore_errors=True)


def _contestant(kept: KeptAnswers, rows: int, prompt_tokens: float | None) -> Contestant:
    said = [kept.by_row[row].text if row in kept.by_row else None for row in range(rows)]
    return Contestant(said, prompt_tokens=prompt_tokens)


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
