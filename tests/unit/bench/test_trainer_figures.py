"""The benchmark of training compares what can be compared: all contenders learn the same, and its page says so."""

from dataclasses import replace

import pytest

from bench.trainer import by_transformers, ours
from bench.trainer.page import BOUND, agreement, apart, page, setting_of
from bench.trainer.races import AGREEMENT, named, races

TASK = replace(AGREEMENT.task, steps=6, batch=8, held_out=8, each=2)


def as_result(contender, found):
    return {"contender": contender, "setting": setting_of(TASK), "batch": TASK.batch, "machine": "here"} | found


@pytest.fixture(scope="module")
def results():
    programs = {"ours": ours.run, "ours-padded": ours.run, "transformers": by_transformers.run}
    tasks = {name: replace(TASK, contender=name) for name in programs}
    return [as_result(named(tasks[name]), run(tasks[name])) for name, run in programs.items()]


def test_we_learn_the_same_as_transformers_step_by_step(results):
    for result, curve, held_out in agreement(results):
        assert len(result["losses"]) == TASK.steps
        assert result["losses"][0] - result["losses"][-1] > 0.1, "it learns, or agreement says nothing"
        assert max(curve, held_out) < BOUND, result["contender"]


def test_the_page_says_whether_all_agree(results):
    assert "All stay within 0.01%" in page(results)
    off = results[2] | {"losses": [1.01 * loss for loss in results[2]["losses"]]}
    assert "NOT all stay within 0.01%" in page([*results[:2], off])


def test_the_page_says_who_did_not_run(results):
    assert "`unsloth` did not run: wants a GPU" in page([*results, as_result("unsloth", {"refused": "wants a GPU"})])


def test_the_page_says_who_was_measured_on_another_day(results):
    days = ["2026-11-26, here", "2026-11-26, here", "2026-11-27, here"]
    dated = [one | {"setting": "135M ragged-cpu", "machine": day} for one, day in zip(results, days, strict=True)]
    assert f"2026-11-26, here. {TASK.batch} rows a step. On 2026-11-27: `transformers-float32`.\n" in page(dated)


def test_the_page_says_whose_first_step_found_its_kernels_compiled(results):
    one = results[0] | {"setting": "135M ragged-cpu", "first_step_seconds": 20.04}
    assert "| 20.0 |" in page([one])
    assert "| 20.0 (partly cached) |" in page([one | {"cached": True}])


@pytest.mark.parametrize(
    ("losses", "ours", "expected"), [([2.0, 1.0], [2.0, 2.0, 3.0], 0.5), ([], [1.0], None), ([1.1], [1.0], 0.1)]
)
def test_curves_are_compared_at_the_steps_that_both_have(losses, ours, expected):
    assert apart(losses, ours) == pytest.approx(expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_contender_is_a_program_with_a_name_of_its_own(device):
    for race in races(device):
        names = [(task.contender, task.precision) for task in race.tasks]
        assert len(set(names)) == len(names)
        assert all(task.batch % min(task.batch, task.each) == 0 for task in race.tasks)
