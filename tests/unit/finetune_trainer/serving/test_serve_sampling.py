"""A token is chosen by temperature, top_p, top_k, seed, penalties and bias."""

import pytest
import torch

from finetune_trainer.serving.asks import Sampling
from finetune_trainer.serving.sampling import Sampler

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def share(settings: Sampling, draws: int = 4000) -> list[float]:
    sampler = Sampler(settings)
    counts = torch.zeros(4)
    for _ in range(draws):
        counts[sampler.choose(LOGITS)] += 1
    return (counts / draws).tolist()


SHARES = [
    pytest.param(Sampling(seed=1), [0.5, 0.3, 0.15, 0.05], id="as the model says"),
    pytest.param(Sampling(seed=1, temperature=0), [1, 0, 0, 0], id="greedy"),
    pytest.param(Sampling(seed=1, temperature=1e-39), [1, 0, 0, 0], id="so cold that float32 has no quotients"),
    pytest.param(Sampling(seed=1, temperature=0.5), [0.685, 0.247, 0.062, 0.007], id="cold"),
    pytest.param(Sampling(seed=1, top_p=0.8), [0.625, 0.375, 0, 0], id="top_p met exactly"),
    pytest.param(Sampling(seed=1, top_p=0.81), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], id="top_p needs one more"),
    pytest.param(Sampling(seed=1, top_p=1e-9), [1, 0, 0, 0], id="the likeliest always stays"),
    pytest.param(Sampling(seed=1, top_k=2), [0.625, 0.375, 0, 0], id="top_k"),
    pytest.param(Sampling(seed=1, logit_bias=((0, -100.0),)), [0, 0.6, 0.3, 0.1], id="a banned token"),
    pytest.param(Sampling(seed=1, temperature=0, logit_bias=((3, 100.0),)), [0, 0, 0, 1], id="a forced token"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "expected"), SHARES)
def test_tokens_come_as_often_as_their_settings_say(settings, expected):
    assert share(settings) == pytest.approx(expected, abs=0.03)


def test_a_seed_gives_the_same_tokens_again_and_another_seed_others():
    def draw(seed):
        sampler = Sampler(Sampling(seed=seed))
        return [sampler.choose(LOGITS) for _ in range(30)]

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(None) != draw(None)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # scores 2.0 1.5 0.9 0.0: each token is pushed down once by 1.0 and then stays where it is
        (Sampling(temperature=0, presence_penalty=1.0), [0, 1, 0, 0]),
        # 0: 1.4; 1: 0.9; 0: 0.8; then 1 and 2 stand at 0.9: the first of equals
        (Sampling(temperature=0, frequency_penalty=0.6), [0, 1, 0, 1]),
    ],
)
def test_penalties_push_down_what_came_before(settings, expected):
    sampler = Sampler(settings)
    assert [sampler.choose(torch.tensor([2.0, 1.5, 0.9, 0.0])) for _ in range(4)] == expected


def test_only_greedy_without_adjustments_is_plain():
    assert Sampler(Sampling(temperature=0)).is_plain_greedy
    assert not Sampler(Sampling(temperature=0, frequency_penalty=1)).is_plain_greedy
    assert not Sampler(Sampling(temperature=0, logit_bias=((1, 1.0),))).is_plain_greedy
    assert not Sampler(Sampling()).is_plain_greedy
