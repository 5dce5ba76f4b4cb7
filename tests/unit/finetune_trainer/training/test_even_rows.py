"""A step's rows in an even number of passes of like sizes, which a CPU computes side by side."""

import pytest

from finetune_trainer.training.batches import even_rows


@pytest.mark.parametrize(
    ("lengths", "tokens", "passes"),
    [
        ([4, 4, 4, 4], 8, [[0, 2], [1, 3]]),
        ([5, 7, 3, 1], 100, [[1, 3], [0, 2]]),
        ([3, 9, 5], 9, [[1], [2, 0]]),
        ([6, 6, 6], 10, [[0], [1], [2]]),
        ([100, 2, 2], 10, [[0], [1, 2]]),
        ([7], 1, [[0]]),
        ([], 8, []),
    ],
)
def test_even_rows_are_in_passes_of_like_sizes_of_which_there_are_an_even_number(lengths, tokens, passes):
    assert even_rows(lengths, tokens) == passes


def test_even_rows_hold_every_row_once_within_the_limit():
    lengths = [(37 * number) % 97 + 3 for number in range(200)]
    passes = even_rows(lengths, 256)
    sizes = [sum(lengths[place] for place in one) for one in passes]
    assert sorted(place for one in passes for place in one) == list(range(200))
    assert (len(passes) % 2, max(sizes) <= 256, max(sizes) - min(sizes) < 20) == (0, True, True)
