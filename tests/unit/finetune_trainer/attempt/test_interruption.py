"""A run that is asked to stop ends as Interrupted wherever it is, and in nothing worse than that."""

import signal
import subprocess
import sys

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.trainer import DONE
from finetune_trainer.attempt import outcome
from finetune_trainer.attempt.interruption import Interrupted, Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.errors import TrainerError
from finetune_trainer.training import objective
from finetune_trainer.training.objective import by_loss
from finetune_trainer.training.passes import loss_sum
from tests.unit.finetune_trainer.attempt.stop_requests import STOPPED, terminate
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do, same_result


def ends(work, tmp_path, interruption=None) -> tuple[int, str]:
    reporter = Reporter(make_job(tmp_path, tmp_path))
    code = outcome.run_to_end(lambda: work(interruption), reporter, interruption or Interruption())
    return code, reporter.report.phase


def test_a_library_that_takes_every_error_for_its_own_does_not_swallow_it(tmp_path):
    def work(_):
        try:
            terminate()
        except Exception as error:
            raise TrainerError("ModelUnusable", "a library's own words") from error

    assert ends(work, tmp_path) == STOPPED


def test_a_library_that_turns_it_into_an_error_of_its_own_makes_no_crash_of_it(tmp_path):
    """As transformers' imports do, which are most of the first seconds of a trainer."""

    def work(_):
        try:
            terminate()
        except BaseException as error:
            raise ModuleNotFoundError("Could not import module 'BloomPreTrainedModel'") from error

    assert ends(work, tmp_path) == STOPPED


def test_the_same_error_without_a_signal_is_a_crash(tmp_path):
    def work(_):
        raise ModuleNotFoundError("Could not import module 'BloomPreTrainedModel'")

    assert ends(work, tmp_path) == (ExitCode.CRASHED, "Failed")


def test_a_signal_while_another_end_is_said_is_no_crash(tmp_path, monkeypatch):
    def work(_):
        raise TrainerError("DatasetInvalid", "line 3: prompt is empty")

    monkeypatch.setattr(outcome, "complain", lambda _error: terminate())
    assert ends(work, tmp_path) == STOPPED


def test_signals_after_the_end_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Reporter, "close", lambda _self: (terminate(), terminate(signal.SIGINT)))
    assert ends(lambda _: None, tmp_path)[0] == ExitCode.OK


@pytest.mark.parametrize("phase", sorted(DONE))
def test_a_signal_after_the_result_was_told_does_not_take_it_back(tmp_path, phase):
    job = make_job(tmp_path, tmp_path)
    told = []
    reporter = Reporter(job, listener=lambda report: told.append(report.phase))

    def work():
        reporter.update(phase=phase)
        terminate()  # while the last files of the way there are deleted

    assert outcome.run_to_end(work, reporter, Interruption()) == ExitCode.OK
    assert told[-1] == phase


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("stopped", "expected"), [(False, ExitCode.OK), (True, ExitCode.INTERRUPTED)])
def test_a_signal_while_the_process_tidies_up_does_not_change_how_it_ends(tmp_path, number, stopped, expected):
    """Libraries that were imported do things of their own then, and Python takes its handlers away in the middle."""
    code = f"""
import atexit, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from finetune_trainer import __main__ as cli
from finetune_trainer.attempt import interruption, outcome
from finetune_trainer.attempt.report import Reporter
from tests.unit.finetune_trainer.jobs import make_job

def command(args):
    asked = interruption.Interruption()
    work = lambda: os.kill(os.getpid(), signal.SIGTERM) if {stopped} else None
    return outcome.run_to_end(work, Reporter(make_job(Path({str(tmp_path)!r}), Path({str(tmp_path)!r}))), asked)

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {int(number)})

late = Late()
atexit.register(os.kill, os.getpid(), {int(number)})
modules = {{"finetune_trainer.train": SimpleNamespace(main=command)}}
cli.import_module = lambda name: modules.get(name) or interruption
sys.argv[1:] = ["train"]
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(cli.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stderr


def test_a_second_ctrl_c_stops_deferred_work_where_a_person_sits(tmp_path, capfd):
    def work(interruption):
        with interruption.deferred():
            terminate(signal.SIGINT)
            assert interruption.is_requested
            terminate(signal.SIGINT)
            pytest.fail("it went on")

    assert ends(work, tmp_path, Interruption("Stopping soon.")) == STOPPED
    assert capfd.readouterr().err.count("Stopping soon.") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_a_pod_deferred_work_ends_by_itself_however_often_it_is_asked(tmp_path, number):
    steps = []

    def work(interruption):
        with interruption.deferred():
            for _ in range(3):
                terminate(number)
                steps.append(interruption.is_requested)
        interruption.check()

    assert ends(work, tmp_path, Interruption()) == STOPPED
    assert steps == [True] * 3


def test_only_the_first_signal_raises():
    interruption = Interruption("Stopping soon.")
    with pytest.raises(Interrupted):
        interruption.request()
    interruption.request(insist=True)


@pytest.mark.alike
@pytest.mark.parametrize(
    "place",
    [
        "data.verdict.require_valid",
        "models.base_model.load_tokenizer",
        "evaluation.measuring.contest",
        "output.artifact.save_tokenizer",
        "output.loss_plot.draw",
    ],
)
def test_sigterm_wherever_a_run_is_leaves_what_the_next_attempt_needs(tiny_model, tmp_path, monkeypatch, place):
    spec = {"splits": ("train", "test"), "hyperparameters": {"epochs": 0.4}, "evaluation": {"maxNewTokens": 1}}
    job = make_job(tmp_path, tiny_model, **spec)
    target = place if place != "data.verdict.require_valid" else "train.require_valid"

    def asked(*_args, **_kwargs):
        terminate()
        pytest.fail("it went on")

    with monkeypatch.context() as patch:
        patch.setattr(f"finetune_trainer.{target}", asked)
        code, report, _ = do(job)
    assert (code, report.phase, report.failure) == (*STOPPED, None)
    assert not list(tmp_path.glob("output/.unfinished-*"))
    assert not (tmp_path / "output" / "model").exists()


def test_a_long_step_is_given_up_and_the_next_attempt_does_it_as_if_for_the_first_time(
    tiny_model, tmp_path, monkeypatch
):
    spec = {
        "splits": ("train",),
        "lora": {"dropout": 0.1},
        "hyperparameters": {"epochs": 0.8, "microBatchSize": 2, "checkpointSteps": 100},
    }
    straight, broken = (make_job(tmp_path / name, tiny_model, **spec) for name in ("straight", "broken"))
    assert do(straight)[0] == ExitCode.OK

    passes = []

    def counted(*args):
        passes.append(len(passes))
        if len(passes) == 7:  # a step has four: this is the third of the second
            terminate()
        return loss_sum(*args)

    with monkeypatch.context() as patch:
        patch.setattr(objective, "LIKELIHOOD", by_loss(counted))
        code, report, _ = do(broken)
    told = report.progress.step, report.progress.saved_step
    assert (code, *told) == (ExitCode.INTERRUPTED, 1, 1), "what was done and saved last is told at the end"
    assert len(passes) == 7
    assert [path.name for path in (tmp_path / "broken/output/checkpoints").iterdir()] == ["step-00000001"]
    assert do(broken)[0] == ExitCode.OK
    same_result(straight, broken)


def test_ctrl_c_at_a_command_that_has_nothing_to_lose_is_one_line_and_no_trace():
    code = (
        "import signal, sys; from finetune_trainer import __main__ as cli\n"
        # A shell's background jobs, and so what they start, have it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "cli.import_module = lambda name: signal.raise_signal(signal.SIGINT)\n"
        "sys.exit(cli.main(['prune', 'x', '--root', 'y']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "Interrupted.\n")
