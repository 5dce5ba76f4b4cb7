"""The learning rate over a run: it rises, it falls as asked, and it is 0 in no step."""

import pytest

from finetune_trainer.training.schedule import factor, warmup_steps


@pytest.mark.parametrize(
    ("schedule", "warmup", "total", "expected"),
    [
        ("Cosine", 0, 1, [1.0]),
        ("Cosine", 1, 1, [0.5]),
        ("Linear", 0, 4, [1.0, 0.75, 0.5, 0.25]),
        ("Linear", 1, 5, [0.5, 1.0, 0.75, 0.5, 0.25]),
        ("Cosine", 2, 4, [1 / 3, 2 / 3, 1.0, 0.5]),
        ("Constant", 1, 4, [0.5, 1.0, 1.0, 1.0]),
        ("Cosine", 3, 3, [0.25, 0.5, 0.75]),
    ],
)
def test_it_rises_to_the_peak_and_falls_as_the_schedule_says(schedule, warmup, total, expected):
    got = [factor(step, schedule=schedule, warmup=warmup, total_steps=total) for step in range(total)]
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["Cosine", "Linear", "Constant"])
@pytest.mark.parametrize(("ratio", "total"), [(0.03, 1), (0.03, 3), (0.03, 33), (0.5, 7), (1.0, 5), (0.0, 2)])
def test_no_step_learns_nothing(schedule, ratio, total):
    warmup = warmup_steps(ratio, total)
    for step in range(total):
        assert 0 < factor(step, schedule=schedule, warmup=warmup, total_steps=total) <= 1


@pytest.mark.parametrize(("ratio", "total", "steps"), [(0.03, 1, 0), (0.03, 15, 0), (0.03, 100, 3), (1.0, 4, 4)])
def test_warmup_is_a_part_of_the_steps(ratio, total, steps):
    assert warmup_steps(ratio, total) == steps


def test_what_the_optimizer_asks_after_the_last_step_is_a_number():
    assert factor(4, schedule="Linear", warmup=4, total_steps=4) == 0
