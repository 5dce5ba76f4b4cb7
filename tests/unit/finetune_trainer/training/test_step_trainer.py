"""What a step learns does not depend on how it is cut into passes; losses are means over tokens, not over batches."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from finetune_trainer.computing.attention import kept_apart, rope_switch_length
from finetune_trainer.computing.ranks import World
from finetune_trainer.data import IGNORED
from finetune_trainer.training.batches import Plan
from finetune_trainer.training.intervals import Intervals, intervals_of
from finetune_trainer.training.passes import Cut, labelled, loss_sum, packed, padded, passes_of
from finetune_trainer.training.steps import PASSES, Steps
from finetune_trainer.training.token_store import MappedTokens, TokenStore
from tests.unit.finetune_trainer.computing.small_models import make_model

ROWS = [
    ([5, 6, 7, 8, 9, 10], [IGNORED, IGNORED, IGNORED, 8, 9, 10]),
    ([11, 12, 13], [IGNORED, 12, 13]),
    ([4, 4, 4, 4, 4, 4, 4, 4, 3], [IGNORED] * 8 + [3]),
    ([7, 2], [IGNORED, 2]),
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def store():
    return TokenStore(ROWS)


def gradients(model, store, cut):
    passes = passes_of(store, [0, 1, 2, 3], cut)
    total = sum(map(labelled, passes))
    model.zero_grad()
    for one in passes:
        (loss_sum(model, one) / total).backward()
    return [value.grad.clone() for value in model.parameters()]


def test_a_store_gives_back_ids_and_labels(store):
    for number, (ids, labels) in enumerate(ROWS):
        got_ids, got_labels = store.row(number)
        assert (got_ids.tolist(), got_labels.tolist()) == (ids, labels)
    assert (len(store), store.longest, store.tokens) == (4, 9, 20)
    assert (store.labelled, store.largest_id) == (7, 13)


def test_a_store_that_another_process_maps_says_the_same_of_its_rows(tmp_path):
    written = TokenStore(ROWS, path=tmp_path / "rows")
    mapped = MappedTokens(tmp_path / "rows")
    for name in ("tokens", "longest", "labelled", "largest_id"):
        assert getattr(mapped, name) == getattr(written, name), name
    assert [mapped.row(row)[1].tolist() for row in range(4)] == [labels for _, labels in ROWS]


@pytest.mark.parametrize("cut", [Cut(None, 1), Cut(None, 2), Cut(12), Cut(1)])
def test_trap_06_gradients_do_not_depend_on_how_a_step_is_cut(model, store, cut):
    whole = gradients(model, store, Cut(None, 4))
    for expected, got in zip(whole, gradients(model, store, cut), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("rotated", "original", "switch"), [("longrope", 4, 4), ("dynamic", 2, 3)])
@pytest.mark.parametrize("packed", [False, True])
def test_rows_on_both_sides_of_where_a_model_rotates_otherwise_share_no_pass(rotated, original, switch, packed, store):
    rope = {"rope_type": rotated, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": original}
    rope |= {"short_factor": [1.0] * 2, "long_factor": [2.0, 9.0]} if rotated == "longrope" else {}
    net = make_model("llama", num_attention_heads=8, max_position_embeddings=4, rope_parameters=rope)
    assert (rope_switch_length(net), rope_switch_length(make_model("llama"))) == (switch, None)
    alone = gradients(net, store, Cut(None, 1))
    with kept_apart(net) if packed else contextlib.nullcontext():
        together = gradients(net, store, Cut(100, packed=packed, rope_switch=rope_switch_length(net)))
    for expected, got in zip(alone, together, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def test_the_loss_is_that_of_transformers_row_by_row(model, store):
    expected = 0.0
    for ids, labels in ROWS:
        out = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
        expected += out.loss.item() * sum(label != IGNORED for label in labels[1:])
    got = sum(loss_sum(model, one).item() for one in passes_of(store, [0, 1, 2, 3], Cut(None, 4)))
    assert got == pytest.approx(expected, rel=1e-5)


def test_trap_09_rows_of_one_pass_do_not_see_each_other_and_padding_changes_no_logit(model, store):
    batch = padded(store, [2, 1])
    together = model(input_ids=batch["input_ids"]).logits[1, :3]
    alone = model(input_ids=torch.tensor([ROWS[1][0]])).logits[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


class OfItsOwn(LlamaForCausalLM):
    """As the code is that some models bring: it computes all logits."""

    def forward(self, input_ids, position_ids=None, use_cache=None):
        return super().forward(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)


def test_a_model_that_knows_of_no_positions_to_keep_has_the_same_loss(model, store):
    own = OfItsOwn(model.config)
    own.load_state_dict(model.state_dict())
    batch = padded(store, [0, 1, 2, 3])
    assert len(batch["places"]) < batch["input_ids"].shape[1]
    assert loss_sum(own, batch).item() == pytest.approx(loss_sum(model, batch).item(), rel=1e-5)


def test_a_packed_pass_says_where_rows_end_and_how_long_the_longest_of_them_is(store):
    told = {}

    class Listening(torch.nn.Module):
        def forward(self, input_ids, **others):
            told.update(others)
            return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 32))

    loss_sum(Listening(), packed(store, [1, 0, 3]))
    assert told["cu_seq_lens_q"].tolist() == told["cu_seq_lens_k"].tolist() == [0, 3, 9, 11]
    assert (told["max_length_q"], told["max_length_k"]) == (6, 6)


def test_ranks_share_a_step_by_the_lengths_of_its_own_rows():
    lengths = [100, 90, 50, 40, 30, 20, 10, 9]
    store = TokenStore((range(1, length + 1), range(1, length + 1)) for length in lengths)
    plan = Plan(8, batch_size=8, epochs=1, seed=0)
    assert plan.rows_of(0) != list(range(8)), "they are shuffled"
    shares = [Steps(store, plan, Cut(None, 1), World(rank, 2))[0][PASSES].each for rank in (0, 1)]
    assert [sum(int(one["tokens"]) for one in share) for share in shares] == [179, 170]


@pytest.mark.parametrize(
    ("steps", "wanted", "tokens", "intervals"),
    [
        (100, None, (1000, 100), Intervals(total_steps=100, checkpoint_steps=10, validation_steps=25)),
        (100, 7, (1000, 10), Intervals(total_steps=100, checkpoint_steps=7, validation_steps=10)),
        (3, None, (1000, 10), Intervals(total_steps=3, checkpoint_steps=1, validation_steps=1)),
        (100, None, (10, 1000), Intervals(total_steps=100, checkpoint_steps=10, validation_steps=100)),
        (100, None, (1000, 0), Intervals(total_steps=100, checkpoint_steps=10, validation_steps=10)),
    ],
)
def test_checkpoints_and_validations_are_about_ten_and_validation_is_affordable(steps, wanted, tokens, intervals):
    plan = Plan(steps, batch_size=1, epochs=1, seed=0)
    assert intervals_of(plan, wanted, train_tokens=tokens[0], validation_tokens=tokens[1]) == intervals


def test_the_last_step_is_saved_and_validated():
    intervals = Intervals(total_steps=7, checkpoint_steps=3, validation_steps=5)
    assert [step for step in range(1, 8) if intervals.saves(step)] == [3, 6, 7]
    assert [step for step in range(1, 8) if intervals.validates(step)] == [5, 7]
