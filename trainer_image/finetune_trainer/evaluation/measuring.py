"""Asks each contestant to answer the test set. Answers are kept until the artifact is complete.

    tuned → base model (with its loss) → base model with examples → active version → endpoints → judge → comparison

A baseline that cannot be asked is reported with the reason, and never costs the tuned model. If a GPU runs out of
memory, batches are halved for all later contestants; for attempts that were OOM-killed, see `care`.
"""

import logging
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from finetune_api.reasons import Reason
from finetune_api.trainer import ActiveVersionRef
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.data import TemplateRefusedError
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import material
from finetune_trainer.evaluation.asking import NO_EXAMPLES, Asking
from finetune_trainer.evaluation.care import Care
from finetune_trainer.evaluation.contest import (
    ACTIVE_VERSION,
    FEW_SHOT,
    TUNED,
    ZERO_SHOT,
    Contest,
    Contestant,
    contest,
)
from finetune_trainer.evaluation.generate import generated
from finetune_trainer.evaluation.kept import Answer, KeptAnswers
from finetune_trainer.evaluation.material import Material, Prompt, Question
from finetune_trainer.evaluation.models import Model, Room, Tuned, base_of, left_out, same_tokens, version_in
from finetune_trainer.evaluation.stored import portions
from finetune_trainer.storage import artifact_store
from finetune_trainer.storage.store import Store
from finetune_trainer.training.token_store import TokenStore

logger = logging.getLogger(__name__)


class Measuring(Asking):
    """The evaluation of a model that is loaded here.

    `test` has labels, for losses; `trained_on` is a hash of what the model was trained on: other models' answers are
    ignored.
    """

    def __init__(
        self,
        tuned: Tuned,
        *,
        material: Material,
        test: TokenStore,
        trained_on: str,
        reporter: Reporter,
        interruption: Interruption,
    ) -> None:
        self._tuned, self._test, self._trained_on = tuned, test, trained_on
        self._active = tuned.job.active_version
        self._token_budget = 4 * tuned.token_budget  # no gradients, so more fits than in training
        self._missing: list[str] = []
        self._care = Care.of(
            Path(tuned.job.output), trained_on, interruption, short_of_memory=tuned.job.short_of_memory
        )
        super().__init__(
            tuned.job.spec,
            Path(tuned.job.output),
            material=material,
            has_active=self._active is not None,
            reporter=reporter,
            interruption=interruption,
        )

    def measure(self) -> Contest:
        """Ask every contestant and compare.

        Raises:
            TrainerError: OutOfMemory, for the tuned model.
        """
        self._report(due=True)
        with self._care.asking(TUNED):
            found = {TUNED: self._ask_model(TUNED, self._tuned.model, self._trained_on)}
        losses = {TUNED: self._loss(TUNED, self._tuned.model)}
        self._base_model(found, losses)
        if self._comparing_versions:
            found[ACTIVE_VERSION], losses[ACTIVE_VERSION] = self._active_version()
        self._services(found)
        self._report(due=True)
        return contest(self._material, self._evaluation.metrics, found, losses, "; ".join(self._missing)[:500] or None)

    def _base_model(self, found: dict[str, Contestant], losses: dict[str, float | None]) -> None:
        """Ask the base model as the job says, with and without examples; adds to `found` and `losses`."""
        ways: dict[str, Callable[[Model], Contestant]] = {
            ZERO_SHOT: partial(self._ask_model, ZERO_SHOT),
            FEW_SHOT: self._few_shot,
        }
        chosen = [who for who in ways if self._evaluation.has(who)]
        try:
            with self._care.asking("base"), base_of(self._tuned) as base:
                losses[ZERO_SHOT] = self._loss(ZERO_SHOT, base)
                for who in chosen:
                    found[who] = self._if_room(who, partial(ways[who], base))
        except TrainerError as error:
            if error.reason is not Reason.OUT_OF_MEMORY:
                raise
            found |= {who: self._not_asked(error.message) for who in chosen}

    def _if_room(self, who: str, ask: Callable[[], Contestant]) -> Contestant:
        before = self._answered
        try:
            with self._care.asking(who):
                return ask()
        except TrainerError as error:
            if error.reason is not Reason.OUT_OF_MEMORY:
                raise
            self._answered = before
            return self._not_asked(error.message)

    def _ask_model(self, who: str, model: Model, *depends_on: Any) -> Contestant:
        lengths = self._lengths(model)
        room = self._room(model, lengths)
        if who == TUNED:
            hyper = self._spec.hyperparameters
            for said in left_out(room, lengths, self._material.max_new_tokens, model.chat, hyper):
                logger.warning("%s", said)
                self._missing.append(said)

        def prompts_of(questions: Sequence[Question]) -> list[Prompt]:
            return material.prompts(questions, model.chat, room.prompt)

        return self._ask_with(who, model, prompts_of, room.answer, *depends_on)

    def _lengths(self, model: Model) -> "array[int]":
        """Number of tokens of each question."""
        return array("i", (len(model.chat.prompt_ids(one.turns)) for one in self._material.questions))

    def _room(self, model: Model, lengths: "array[int]", *, rows: int = 1) -> Room:
        """The room for prompts of this many rows: an encoder was trained on rows up to the row limit."""
        trained = rows * model.chat.row_limit(self._spec.hyperparameters)
        return model.room(max(lengths), self._material.max_new_tokens, trained=trained)

    def _few_shot(self, base: Model) -> Contestant:
        shown = self._material.examples
        if not shown:
            return self._not_asked(NO_EXAMPLES)
        room = self._room(base, self._lengths(base), rows=1 + len(shown))
        before = self._answered

        def prompts_of(questions: Sequence[Question]) -> list[Prompt]:
            return material.prompts_with_examples(questions, shown, base.chat, room.prompt)

        try:
            if not any(one.examples for part in portions(self._material.questions) for one in prompts_of(part)):
                return self._not_asked("the model's context has room for no example before any question")
            return self._ask_with(FEW_SHOT, base, prompts_of, room.answer, len(shown), self._trained_on)
        except TemplateRefusedError:
            self._answered = before
            return self._not_asked("the model's chat template takes no examples before the question")

    def _active_version(self) -> tuple[Contestant, float | None]:
        active = self._active
        if active is None:
            return self._not_asked("the model had no active version when the attempt started"), None
        place = active.folder or (active.store and active.store.uri)
        if place is None:
            contestant, loss = self._not_asked("its weights are not where the trainer can reach them"), None
        else:
            before = self._answered
            try:
                with self._care.asking(ACTIVE_VERSION), version_in(self._tuned, self._here(active)) as model:
                    contestant = self._ask_model(ACTIVE_VERSION, model, active.version, place)
                    loss = (
                        self._loss(ACTIVE_VERSION, model) if same_tokens(model.chat, self._tuned.model.chat) else None
                    )
            except TemplateRefusedError:
                self._answered = before
                contestant, loss = self._not_asked("its chat template does not take the test set's conversations"), None
            except TrainerError as error:
                self._answered = before
                contestant, loss = self._not_asked(f"{error.reason}: {error.message}"), None
        contestant.notes = {"version": active.version}
        return contestant, loss

    def _here(self, active: ActiveVersionRef) -> Path:
        """The folder of its weights, downloaded if they are in a store."""
        if active.store is None:
            return Path(active.folder or "")
        folder = Path(self._tuned.job.output) / ACTIVE_VERSION
        artifact_store.fetch(Store(active.store), "", folder, sha256=active.sha256)
        return folder

    def _ask_with(
        self,
        who: str,
        model: Model,
        prompts_of: Callable[[Sequence[Question]], list[Prompt]],
        max_new_tokens: int,
        *depends_on: Any,
    ) -> Contestant:
        """Ask in portions: the prompts of a whole test set may not fit into memory."""
        kept, rows = self._kept(who, *depends_on), len(self._material.questions)
        self._advance(len(kept))
        first = tokens = examples = 0
        for part in portions(self._material.questions):
            prompts = prompts_of(part)
            left = {row: one for row, one in enumerate(prompts, first) if row not in kept}
            self._answer(kept, model, left, max_new_tokens)
            first += len(prompts)
            tokens += sum(len(one.ids) for one in prompts)
            examples += sum(one.examples for one in prompts)
        contestant = Contestant(kept.texts(rows), prompt_tokens=tokens / rows if rows else None)
        contestant.notes = {"examples": round(examples / rows, 2)} if who == FEW_SHOT and rows else {}
        return contestant

    def _answer(self, kept: KeptAnswers, model: Model, prompts: dict[int, Prompt], max_new_tokens: int) -> None:
        rows = list(prompts)
        batches = generated(
            model.net,
            [one.ids for one in prompts.values()],
            generation=model.generation,
            max_new_tokens=max_new_tokens,
            token_budget=1 if self._care.one_row_at_a_time else self._token_budget,
            on_shortage=partial(setattr, self, "_token_budget"),
        )
        for batch in batches:
            said = [(rows[place], model.chat.answer_in(ids)) for place, ids in batch]
            decode = model.chat.backend.decode
            self._keep(kept, [Answer(row, decode(ids, skip_special_tokens=True).strip()) for row, ids in said])

    def _loss(self, who: str, model: Model) -> float | None:
        """The loss, or None if out of memory: the answers say more about a model than its loss."""
        from finetune_trainer.evaluation.losses import loss_on  # needs torch

        try:
            with self._care.asking(f"{who}, loss"):
                return loss_on(
                    model.net,
                    self._test,
                    token_budget=1 if self._care.one_row_at_a_time else self._tuned.token_budget,
                    compute_dtype=self._tuned.compute_dtype,
                    interruption=self._interruption,
                )
        except TrainerError as error:
            if error.reason is not Reason.OUT_OF_MEMORY:
                raise
            if error.message not in self._missing:
                self._missing.append(error.message)
            return None
