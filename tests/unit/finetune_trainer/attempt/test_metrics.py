"""The record of a run, its curves and its picture; how far a run is; what fits into memory."""

import json
import os
import re
import shutil
from xml.etree import ElementTree as ET

import pytest

from finetune_api.job_status import LOSS_POINTS
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.errors import TrainerError
from finetune_trainer.output.loss_plot import draw, running_mean
from finetune_trainer.training.batches import Plan
from finetune_trainer.training.progress import Pulse


def record(path, steps, every=10):
    metrics = Metrics(path)
    for step in range(1, steps + 1):
        metrics.add(
            step=step, epoch=step / 10, loss=1 / step, learningRate=0.1, tokens=20, completionTokens=step % 3 + 1
        )
        if step % every == 0:
            metrics.add(step=step, epoch=step / 10, validationLoss=2 / step)
    return metrics


def test_what_was_written_is_read_again_without_a_half_line_at_the_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written = record(path, 20)
    with path.open("a") as file:
        file.write('{"step": 21, "lo')
    assert Metrics(path).lines == written.lines
    assert Metrics(path).tokens == 400
    assert Metrics(path).has_validation(20)
    assert not Metrics(path).has_validation(19)


def test_going_on_from_a_checkpoint_forgets_the_steps_after_it_on_disk_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = record(path, 20)
    metrics.keep_until(10)
    assert [line["step"] for line in metrics.lines] == [*range(1, 11), 10]
    assert [json.loads(line)["step"] for line in path.open()] == [*range(1, 11), 10]


@pytest.mark.parametrize("lost", ["all", "the end", "nothing", "the checkpoint's"])
def test_going_on_from_a_checkpoint_puts_back_what_the_record_has_lost(tmp_path, lost):
    path, saved = tmp_path / "metrics.jsonl", tmp_path / "saved.jsonl"
    written = record(path, 20).lines[:11]
    path.rename(saved) if lost == "all" else shutil.copy(path, saved)
    if lost == "the end":
        os.truncate(path, 300)
    if lost == "the checkpoint's":
        saved.unlink()
    metrics = Metrics(path)
    metrics.keep_until(10, saved)
    assert metrics.lines == Metrics(path).lines == written


@pytest.mark.parametrize("steps", [1, 99, 100, 101, 250, 12345])
def test_curves_are_short_end_with_the_last_step_and_keep_the_mean(tmp_path, steps):
    metrics = record(tmp_path / "metrics.jsonl", 0)
    metrics.lines = [
        {"step": step, "loss": float(step % 7), "completionTokens": step % 3 + 1} for step in range(1, steps + 1)
    ]
    curve = metrics.curves().train
    assert len(curve) <= LOSS_POINTS
    assert curve[-1].step == steps
    weights = sum(line["completionTokens"] for line in metrics.lines[: curve[0].step])
    mean = sum(line["loss"] * line["completionTokens"] for line in metrics.lines[: curve[0].step]) / weights
    assert curve[0].value == pytest.approx(mean)


def test_curves_of_preferences_are_means_over_pairs_with_accuracy_and_margin(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for step in range(1, 151):
        measures = {"rewardAccuracy": step / 150, "rewardMargin": step - 75.0}
        metrics.add(step=step, epoch=step / 10, loss=1 / step, tokens=20, pairs=1 + step % 2, **measures)
    metrics.add(step=150, epoch=15, validationLoss=0.25, rewardAccuracy=0.75, rewardMargin=1.5)
    curves = metrics.curves()
    assert len(curves.train) <= LOSS_POINTS
    assert curves.train[0].value == pytest.approx((2 * 1 + 1 / 2) / 3)
    assert curves.train[0].reward_margin == pytest.approx((2 * -74 - 73) / 3)
    assert curves.train[-1].reward_accuracy == pytest.approx((2 * 149 + 150) / 3 / 150)
    (last,) = curves.validation
    assert (last.value, last.reward_accuracy, last.reward_margin) == (0.25, 0.75, 1.5)
    assert "<!-- loss (nats per pair) -->" in draw(metrics, title="preferences")


def test_the_picture_names_its_curves_and_axes(tmp_path):
    metrics = record(tmp_path / "metrics.jsonl", 60)
    comments = draw(metrics, title="sentiment")
    ET.fromstring(comments)
    for text in (
        "sentiment",
        "optimizer step",
        "loss (nats per completion token)",
        "training, running mean",
        "validation",
    ):
        assert f"<!-- {text} -->" in comments


@pytest.mark.parametrize(("steps", "dots"), [(1, 1), (3, 3), (30, 0)])
def test_the_picture_of_a_few_steps_shows_each_of_them_and_counts_whole_steps(tmp_path, steps, dots):
    picture = draw(record(tmp_path / "metrics.jsonl", steps, every=50), title="short")
    in_legend = 1 if dots else 0
    assert len(re.findall('<use [^>]*style="fill: #8fb3d9', picture)) == dots + in_legend
    texts = re.findall("<!-- (.+?) -->", picture)
    numbers = texts[: texts.index("optimizer step")]
    assert all(re.fullmatch("(\N{MINUS SIGN})?[0-9]+", number) for number in numbers), numbers


def test_the_running_mean_begins_with_the_first_value():
    assert running_mean([4.0, 4.0, 4.0]) == pytest.approx([4.0, 4.0, 4.0])
    assert running_mean([1.0, 3.0])[0] == pytest.approx(1.0)


def test_speed_and_time_left_follow_from_the_steps_seen():
    now = [100.0]
    pulse = Pulse(Plan(40, batch_size=4, epochs=2, seed=0), clock=lambda: now[0])
    assert pulse.progress(0).tokens_per_second is None
    for step in range(6, 11):  # resumed after step 5
        now[0] += 2
        pulse.saw(step, 50)
    progress = pulse.progress(10)
    assert (progress.step, progress.total_steps, progress.percent, progress.epoch) == (10, 20, 50, 1.0)
    assert progress.tokens_per_second == 25.0
    assert progress.eta_seconds == 20


def test_a_record_that_is_a_folder_is_told_with_what_to_do(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(TrainerError) as caught:
        Metrics(tmp_path / "metrics.jsonl")
    assert caught.value.message.startswith(f"{tmp_path / 'metrics.jsonl'} could not be read: ")
    assert caught.value.next_step.startswith(f"Remove {tmp_path / 'metrics.jsonl'},")


@pytest.mark.parametrize("rest", [b"3\n", b"[]\n", b'{"loss": 1}\n', b"\xff\xfe\n"])
def test_a_record_ends_where_a_line_is_none_of_ours(tmp_path, rest):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + rest + b'{"step": 2}\n')
    assert Metrics(tmp_path / "metrics.jsonl").lines == [{"step": 1}]
