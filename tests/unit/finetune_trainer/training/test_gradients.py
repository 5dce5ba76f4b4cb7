"""The gradients of one step: passes that count nothing add nothing, and what failed leaves nothing behind."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.computing.ranks import World
from finetune_trainer.data import IGNORED
from finetune_trainer.training.batches import Plan
from finetune_trainer.training.gradients import ComputeSettings, Gradients
from finetune_trainer.training.objective import by_loss
from finetune_trainer.training.passes import Cut, loss_sum
from finetune_trainer.training.steps import Steps
from finetune_trainer.training.surroundings import Surroundings
from finetune_trainer.training.token_store import TokenStore

ROWS = [
    ([5, 6, 7, 8], [IGNORED, IGNORED, 7, 8]),
    ([9, 8, 7], [IGNORED, 8, 7]),
    ([4, 3], [IGNORED, 3]),
    ([2, 3, 4, 5, 6], [IGNORED, IGNORED, IGNORED, 5, 6]),
]
ERROR = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class Noting(World):
    """One rank that notes when dropout is seeded."""

    seeded: list[tuple[int, int]]

    def reseed(self, seed, step):
        self.seeded.append((seed, step))


def model():
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))


def made(net, folder, cut, *, loss=loss_sum, at_once=1, world=None):
    """Gradients of the first step, and what the means of it are."""
    world = Noting() if world is None else world
    object.__setattr__(world, "seeded", [])
    objective = by_loss(loss)
    steps = Steps(TokenStore(ROWS), Plan(len(ROWS), batch_size=len(ROWS), epochs=1, seed=0), cut, world, objective)
    around = Surroundings(None, None, Interruption(), lambda *_: None, world)
    settings = ComputeSettings(cut, torch.float32, at_once=at_once)
    accelerator = SimpleNamespace(device=torch.device("cpu"), backward=lambda loss: loss.backward())
    gradients = Gradients(
        net, steps, objective, settings, around, checkpoints=folder, seed=7, accelerator=accelerator
    )  # fmt: skip
    return gradients, steps


def learnt(net):
    return [value.grad for value in net.parameters()]


def of_step(net, folder, cut, **how):
    gradients, steps = made(net, folder, cut, **how)
    mean = gradients.of_step(net, steps[0], 0)
    assert gradients.weight == sum(label != IGNORED for _, labels in ROWS for label in labels[1:])
    assert gradients.means[0] == pytest.approx(float(mean))
    return float(mean), learnt(net)


def same(got, expected):
    assert got[0] == pytest.approx(expected[0], rel=1e-5)
    for value, wanted in zip(got[1], expected[1], strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("cut", [Cut(None, 1), Cut(None, 2)])
def test_passes_side_by_side_add_up_to_the_gradients_and_means_of_one_pass(tmp_path, cut, at_once):
    same(of_step(model(), tmp_path, cut, at_once=at_once), of_step(model(), tmp_path, Cut(None, 4)))


def test_a_pass_that_a_rank_without_rows_computes_along_counts_nothing(tmp_path):
    """Models that are shared out want equally many passes of all ranks."""

    class WithAnother(Noting):
        def largest(self, count):
            return count + 2

        def any_rank(self, said):
            return said

    expected = of_step(model(), tmp_path, Cut(None, 2))
    net = model()
    gradients, steps = made(net, tmp_path, Cut(None, 2), world=WithAnother())
    gradients.are_sharded = True
    mean = gradients.of_step(net, steps[0], 0)
    same((float(mean), learnt(net)), expected)


def test_a_step_that_is_done_again_draws_anew_by_seed_and_step_and_keeps_no_gradient_of_the_first_try(tmp_path):
    drawn = []

    def drops(net, batch):
        drawn.append((len(batch["input_ids"]), float(torch.rand(()))))
        loss = loss_sum(net, batch)
        if len(batch["input_ids"]) > 2:
            loss.backward()
            raise ERROR
        return loss

    net, world = model(), Noting()
    torch.manual_seed(3)
    got = of_step(net, tmp_path, Cut(None, 4), loss=drops, world=world)
    assert world.seeded == [(7, 0)] * 2
    assert [rows for rows, _ in drawn] == [4, 2, 2]
    assert drawn[1][1] == drawn[0][1], "dropout draws what it would have drawn without the first try"
    same(got, of_step(model(), tmp_path, Cut(None, 2)))
