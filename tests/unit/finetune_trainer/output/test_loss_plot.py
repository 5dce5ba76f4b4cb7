"""Up to where the axis of the loss curves goes, and how large their title is written."""

import pytest

from finetune_trainer.output.loss_plot import _fitting, ends_of_axis, highest_shown

FLAT = [0.5] * 99


@pytest.mark.parametrize(
    ("losses", "validation", "top"),
    [
        ([2.5], [], 2.5),
        ([2.5], [2.75], 2.75),
        ([*FLAT, 4.0], [], 4.0),
        ([*FLAT, 900.0], [], 1.0),
        ([*FLAT, 900.0], [0.75], 1.5),
        ([900.0, 0.5], [], 900.0),
        ([0.0] * 99 + [1.0], [], 1.0),
        ([], [], 0.0),
    ],
    ids=str,
)
def test_the_highest_loss_is_shown_but_for_single_spikes(losses, validation, top):
    assert highest_shown(losses, validation) == top


@pytest.mark.parametrize(
    ("losses", "validation", "ends"),
    [([2.0], [], (0, 2.1)), ([-1.0, -2.0], [], (-2.1, None)), ([1.0], [-2.0], (-2.1, 1.05)), ([0.0], [], (0, None))],
    ids=str,
)
def test_the_axis_has_a_negative_loss_of_own_code_too(losses, validation, ends):
    assert ends_of_axis(losses, validation, highest_shown(losses, validation)) == pytest.approx(ends)


@pytest.mark.parametrize(("title", "size"), [("sentiment · test/tiny-llama · LoRA", 11), ("", 11), ("W" * 170, None)])
def test_a_title_stands_in_its_line_whatever_its_letters(title, size):
    from matplotlib.textpath import TextPath

    found = _fitting(title)
    assert found == size or TextPath((0, 0), title, size=found).get_extents().width < 0.9 * 8 * 72
