"""A GPU that is too small for an evaluation, or code that gives no answers, costs these at most, never the model."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finetune_api.exit_codes import ExitCode
from finetune_trainer import train
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import generate, losses, models
from finetune_trainer.evaluation.losses import loss_on
from finetune_trainer.evaluation.models import base_of
from finetune_trainer.models import base_model
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.evaluation.test_evaluation_measuring import Bench
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.shortages import ERRORS
from tests.unit.finetune_trainer.training_runs import do

BASELINES = [{"zeroShot": {}}, {"fewShot": {"examples": 3}}]


def answers_fail_where(monkeypatch, is_too_large, words="torch"):
    original = generate._new_tokens

    def new_tokens(model, prompts, *rest):
        if is_too_large(prompts):
            raise ERRORS[words]
        return original(model, prompts, *rest)

    monkeypatch.setattr(generate, "_new_tokens", new_tokens)


@pytest.fixture(scope="module")
def at_once(tiny_model, tmp_path_factory):
    """What is measured where memory is enough."""
    return Bench(tmp_path_factory.mktemp("at-once"), tiny_model, baselines=BASELINES).measure().result


@pytest.mark.alike
@pytest.mark.parametrize("words", ERRORS)
def test_smaller_batches_give_the_same_result(tiny_model, tmp_path, monkeypatch, at_once, words):
    sizes = []
    answers_fail_where(monkeypatch, lambda prompts: sizes.append(len(prompts)) or len(prompts) > 2, words)
    small = Bench(tmp_path / "small", tiny_model, baselines=BASELINES).measure()
    assert small.result == at_once
    assert sum(size > 2 for size in sizes) <= 3, "a shortage is learnt from"


def test_a_baseline_that_does_not_fit_is_told_and_costs_nothing_else(tiny_model, tmp_path, monkeypatch):
    longest = max(len(one) for one in prompts_of(Bench(tmp_path / "a", tiny_model), monkeypatch))
    answers_fail_where(monkeypatch, lambda prompts: max(map(len, prompts)) > longest)
    bench = Bench(tmp_path / "b", tiny_model, baselines=BASELINES)
    found = bench.measure().result.baselines
    assert "the GPU's memory was not enough for one question and its answer" in found.few_shot.problem
    assert (found.few_shot.chr_f, found.zero_shot.problem) == (None, None)
    assert found.zero_shot.chr_f is not None
    assert bench.reports[-1].progress.answers == bench.reports[-1].progress.total_answers == 36


def prompts_of(bench, monkeypatch):
    asked = []
    with monkeypatch.context() as patch:
        answers_fail_where(patch, asked.extend)
        bench.measure()
    return asked


@pytest.mark.alike
@pytest.mark.parametrize("words", ERRORS)
def test_a_whole_base_model_that_does_not_fit_beside_nothing_leaves_the_tuned_one_in_its_place(
    tiny_model, tmp_path, monkeypatch, words
):
    whole = base_model.load_model(tiny_model / NAME, dtype=torch.float32)
    bench = Bench(tmp_path, tiny_model, net=whole, baselines=BASELINES)
    moved = []

    class Large:
        def to(self, device):
            moved.append(str(device))
            if len(moved) == 1:
                raise ERRORS[words]
            return self

    monkeypatch.setattr(models, "_load", lambda *_: Large())
    result = bench.measure().result
    assert moved == ["cpu", "meta"], "what was moved by then has left its place"
    problem = "the GPU's memory was not enough for the model"
    assert [result.baselines.zero_shot.problem, result.baselines.few_shot.problem] == [problem] * 2
    assert (result.tuned.chr_f is not None, result.verdict) == (True, None)


def test_another_model_leaves_its_place_to_the_tuned_one_whoever_holds_it_still(tiny_model, tmp_path):
    whole = base_model.load_model(tiny_model / NAME, dtype=torch.float32)
    bench = Bench(tmp_path, tiny_model, net=whole)
    with base_of(bench.tuned) as base:
        assert not any(value.is_meta for value in base.net.parameters())
    assert all(value.is_meta for value in base.net.parameters())
    with pytest.raises(TrainerError, match="of its own"), base_of(bench.tuned) as base:
        raise TrainerError("OutOfMemory", "of its own")
    assert all(value.is_meta for value in base.net.parameters())
    assert not any(value.is_meta for value in whole.parameters())


def losses_fail_where(monkeypatch, is_too_large, words="torch"):
    original = losses.loss_sum

    def loss_sum(net, batch):
        if is_too_large(batch["input_ids"].numel()):
            raise ERRORS[words]
        return original(net, batch)

    monkeypatch.setattr(losses, "loss_sum", loss_sum)


@pytest.mark.parametrize("words", ERRORS)
def test_the_loss_is_computed_on_smaller_passes_where_memory_is_short(tiny_model, tmp_path, monkeypatch, words):
    bench = Bench(tmp_path, tiny_model)
    how = {"token_budget": 4096, "compute_dtype": torch.float32, "interruption": Interruption()}
    plain = loss_on(bench.tuned.model.net, bench.store, **how)
    losses_fail_where(monkeypatch, lambda tokens: tokens > 2 * bench.store.longest, words)
    assert loss_on(bench.tuned.model.net, bench.store, **how) == pytest.approx(plain, rel=1e-5)


def test_a_loss_that_no_memory_is_left_for_is_missing_and_says_why(tiny_model, tmp_path, monkeypatch):
    losses_fail_where(monkeypatch, lambda _: True)
    result = Bench(tmp_path, tiny_model).measure().result
    assert (result.tuned.loss, result.missing) == (None, "the GPU's memory was not enough for the loss of one row")
    assert result.tuned.chr_f is not None


def test_a_model_that_cannot_be_asked_is_a_version_all_the_same(tiny_model, tmp_path, monkeypatch):
    job = make_job(tmp_path, tiny_model, splits=("train", "test"))
    calls = itertools.count()
    answers_fail_where(monkeypatch, lambda _: next(calls) > 0)  # the answer on trial, before training, is given
    code, report, phases = do(job)
    assert (code, phases[-2:]) == (ExitCode.OK, ["Evaluating", "Succeeded"])
    failure = report.result.evaluation_failure
    assert (failure.reason, report.evaluation) == ("OutOfMemory", None)
    assert "the GPU's memory was not enough for one question" in failure.message
    assert "larger GPU" in failure.next_step
    folder = Path(job.output) / "model"
    assert json.loads((folder / "result.json").read_text())["training"]["evaluationFailure"]["reason"] == "OutOfMemory"
    again = do(job.model_copy(update={"attempt": 2}))[1]
    assert again.result.evaluation_failure == failure


def test_a_model_that_was_shared_out_and_gives_no_answers_is_a_version_all_the_same(tiny_model, tmp_path, monkeypatch):
    """It can be asked only once it is whole again: after its training."""
    prepared, tries = train._prepare, itertools.count()
    monkeypatch.setattr(train, "_prepare", lambda *one, **more: replace(prepared(*one, **more), shards=2))
    answers = train.require_answers

    def require_answers(folder, model):
        if next(tries):
            raise TrainerError("ModelUnusable", "its own code gives no answers", "Measure it where it is served.")
        answers(folder, model)

    monkeypatch.setattr(train, "require_answers", require_answers)
    code, report, _ = do(make_job(tmp_path, tiny_model, splits=("train", "test"), hyperparameters={"epochs": 0.4}))
    assert (code, report.evaluation, next(tries)) == (ExitCode.OK, None, 2)
    assert report.result.evaluation_failure.reason == "ModelUnusable"
