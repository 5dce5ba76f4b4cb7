"""The order of the data, and how a step is cut into forward passes."""

import pytest

from finetune_trainer.training.batches import Plan, forward_passes, shuffled


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "total"),
    [
        (10, 4, 1, 3),
        (10, 4, 2, 6),
        (10, 4, 0.5, 2),
        (8, 4, 1.5, 3),
        (3, 16, 0.01, 1),
        (1, 1, 1, 1),
        (10, 10, 0.1, 1),
        (30, 1, 0.1, 3),
        (100, 1, 0.07, 7),
    ],
)
def test_steps_follow_from_rows_batch_size_and_epochs(rows, batch_size, epochs, total):
    assert Plan(rows, batch_size=batch_size, epochs=epochs, seed=0).total_steps == total


def test_an_epoch_sees_every_row_once_and_the_next_one_in_another_order():
    plan = Plan(50, batch_size=8, epochs=2, seed=3)
    epochs = [
        [row for step in range(start, start + 7) for row in plan.rows_of(step)] for start in (0, plan.steps_per_epoch)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(50))
    assert epochs[0] != epochs[1]


def test_order_depends_on_seed_and_epoch_alone():
    assert (shuffled(30, 1, 2) == shuffled(30, 1, 2)).all()
    assert (shuffled(30, 1, 2) != shuffled(30, 2, 2)).any()
    assert (shuffled(30, 1, 2) != shuffled(30, 1, 3)).any()


@pytest.mark.parametrize(
    ("lengths", "limits", "passes"),
    [
        ([3, 9, 5], {"rows_each": 2}, [[1, 2], [0]]),
        ([3, 9, 5], {"token_budget": 18}, [[1, 2], [0]]),
        ([4, 4, 4, 4], {"token_budget": 8}, [[0, 1], [2, 3]]),
        ([100, 2], {"token_budget": 10}, [[0], [1]]),
        ([1, 2, 3], {"rows_each": 1}, [[2], [1], [0]]),
        ([7], {"token_budget": 1}, [[0]]),
        ([3, 1, 2], {}, [[0, 2, 1]]),
    ],
)
def test_forward_passes_hold_rows_of_like_lengths_within_the_limit(lengths, limits, passes):
    assert forward_passes(lengths, **limits) == passes


def test_passes_over_the_data_are_counted_in_parts():
    plan = Plan(10, batch_size=4, epochs=2, seed=0)
    assert [plan.epochs_after(step) for step in (0, 1, 3, 6)] == [0, 1 / 3, 1, 2]
