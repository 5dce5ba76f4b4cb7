"""Loss, gradients and measures of preference tuning are those of TRL's DPOTrainer on the same pairs and weights."""

import json
from contextlib import nullcontext

import pytest
import torch

from finetune_api.job import LoRA
from finetune_api.preference import Preference
from finetune_trainer.computing.adapted_linear import fuse
from finetune_trainer.computing.attention import kept_apart
from finetune_trainer.models.adapters import with_adapters
from finetune_trainer.training.objective import by_preference
from finetune_trainer.training.pair_store import PairStore
from finetune_trainer.training.passes import Cut
from finetune_trainer.training.token_store import TokenStore
from tests.assets import preference_by_trl as case
from tests.unit.finetune_trainer.training import references

TRL = json.loads(case.FIGURES.read_text())
CUTS = [Cut(None, 5), Cut(None, 1), Cut(24), Cut(24, packed=True), Cut(4096, packed=True)]


@pytest.fixture
def model():
    made = with_adapters(case.base(), LoRA(r=case.RANK, alpha=case.ALPHA), "llama")
    assert fuse(made)
    return case.fill(made)


def store_of(model, folder, cut):
    store = PairStore(TokenStore(case.documents()))
    references.fill(store, model, folder, "1", cut)
    return store


def by_us(model, folder, cut, **preference):
    """Loss and measures; gradients are the model's."""
    objective = by_preference(Preference(beta=case.BETA, **preference))
    with kept_apart(model) if cut.packed else nullcontext():
        store = store_of(model, folder, cut)
        model.train()
        total = torch.zeros(1 + len(objective.measures))
        for batch in objective.passes(store, list(range(len(store))), cut):
            means = objective.sums(model, batch) / len(store)
            means[0].backward()
            total += means.detach()
    return total.tolist()


def test_the_case_has_pairs_of_both_kinds():
    assert 0 < TRL["measures"][0] < 1
    assert abs(TRL["loss"] - 0.6931) > 0.05


@pytest.mark.parametrize("cut", CUTS)
def test_loss_gradients_and_measures_are_trls_however_a_step_is_cut(model, tmp_path, cut):
    loss, *measures, _ = by_us(model, tmp_path, cut)
    assert loss == pytest.approx(TRL["loss"], rel=1e-5)
    assert measures == pytest.approx(TRL["measures"], rel=1e-4)
    got = case.said_of(model)
    assert got.keys() == TRL["gradients"].keys()
    for name, said in TRL["gradients"].items():
        assert got[name] == pytest.approx(said, rel=1e-3, abs=1e-5), name


def test_label_smoothing_is_the_mean_of_trls_loss_either_way_round(model, tmp_path):
    loss, *_ = by_us(model, tmp_path, CUTS[0], label_smoothing=0.2)
    assert loss == pytest.approx(0.8 * TRL["loss"] + 0.2 * TRL["swapped"], rel=1e-5)
