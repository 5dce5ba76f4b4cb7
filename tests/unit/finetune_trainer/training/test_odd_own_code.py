"""spec.code that does odd things: each has a reason and words of its own, and nothing keeps the run from its end."""

import json
import os
import select
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.job_status import NOTHING_LEARNT
from finetune_trainer.training import code_reports, own_code
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.training.own_jobs import job_with
from tests.unit.finetune_trainer.training_runs import do

TOLD = """
import json, os, pathlib, shutil, time
told = json.load(open(os.environ["FINETUNE_CONTEXT"]))
pipe = os.open(os.path.join(told["reports"], "reports"), os.O_WRONLY)
def say(text): os.write(pipe, text.encode())
"""
"""What code needs to speak for itself, without a library."""

ENDS = {
    "a signal without a name": ("os.kill(os.getpid(), 40)", "ended with signal 40"),
    "a fault that Python tells": (
        "import ctypes, faulthandler\nassert faulthandler.is_enabled()\nctypes.string_at(0)",
        "ended with signal SIGSEGV",
    ),
    "a report that is none": (r"say('{}\n')", "reported what is not a report: step"),
    "a loss that is not a number": (r"""say('{"step": 1, "loss": NaN}\n')""", "reported what is not a report: loss"),
    "a loss beyond all": (r"""say('{"step": 1, "loss": 1e200}\n')""", "reported what is not a report: loss"),
    "passes without an end": (r"""say('{"step": 1, "epoch": Infinity}\n')""", "reported what is not a report: epoch"),
    "a number beyond all": (r"""say('{"step": %d}\n' % 10**30)""", "reported what is not a report: step"),
    "a line without an end": ("while True: say('x')", "reported what is not a report: all of it"),
}


@pytest.mark.parametrize("what", ENDS)
def test_code_that_ends_oddly_has_its_reason_and_words(tiny_model, tmp_path, what):
    source, words = ENDS[what]
    code, report, _ = do(job_with(TOLD + source, tmp_path, tiny_model))
    assert (code, report.failure.reason) == (ExitCode.CODE_FAILED, "CodeFailed")
    assert words in report.failure.message
    assert "spec.retryNonce" in report.failure.next_step


HOLDING = """
if (pid := os.fork()) == 0:
    os.setsid()
    time.sleep(600)
pathlib.Path({note!r}).write_text(str(pid))
for step in range(1, 900):
    say(json.dumps({{"step": step, "totalSteps": 899}}) + chr(10))
"""


def test_a_process_in_a_session_of_its_own_does_not_keep_the_run_and_all_reports_are_heard(tiny_model, tmp_path):
    source = TOLD + HOLDING.format(note=str(tmp_path / "child"))
    code, report, _ = do(job_with(source, tmp_path, tiny_model))
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)  # it is still there: nobody has waited for its end
    assert code == ExitCode.CODE_FAILED, "it has left no model"
    assert report.progress.step == 899


RANK = "setsid sleep 600 & echo begun; wait"
"""As torchrun starts them: in sessions of their own."""


def test_code_ends_with_its_trainer_when_that_is_killed_and_with_it_what_it_has_started():
    with subprocess.Popen(["sh", "-c", RANK], stdout=subprocess.PIPE, start_new_session=True) as code:
        assert code.stdout.readline() == b"begun\n"
        if (trainer := os.fork()) == 0:
            with own_code._guarded(code.pid):
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(trainer, 0)
        assert code.wait(timeout=60) == -signal.SIGKILL
        assert select.select([code.stdout], [], [], 60)[0], "the rank holds its end open"


ALL_DONE = """
done = pathlib.Path(told["checkpoints"], "done")
if not done.exists():
    say(json.dumps({"step": 8, "loss": 0.5, "tokens": 3}) + chr(10))
    done.touch()
"""


def test_what_code_has_reported_counts_on_where_the_next_attempt_has_nothing_left_to_do(tiny_model, tmp_path):
    job = job_with(TOLD + ALL_DONE, tmp_path, tiny_model)
    record = Path(job.output) / "metrics.jsonl"
    assert [do(job)[0], do(job)[0]] == [ExitCode.CODE_FAILED] * 2, "it has left no model"
    assert json.loads(record.read_text())["step"] == 8
    Path(job.code).write_text(f"{TOLD}{ALL_DONE}# of other code")
    do(job)
    assert record.read_text() == ""


OTHERS = """
import multiprocessing, subprocess, sys, threading, time
from finetune_trainer import recipe
found = []
thread = threading.Thread(target=lambda: found.append(recipe.context()))
thread.start()
thread.join()
assert found, "only the main thread may take signals"
recipe.context.cache_clear()
run = recipe.context()
forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=[600])
forked.start()
forked.terminate()
forked.join()
alone = [sys.executable, "-c", "from finetune_trainer import recipe; recipe.context().report(step=7)"]
subprocess.run(alone, check=True)
"""


def test_processes_that_the_code_starts_report_and_end_as_processes_do(tiny_model, tmp_path):
    """A launcher of ranks passes no descriptors on, and what ends a process waits until it has obeyed SIGTERM."""
    code, report, _ = do(job_with(OTHERS, tmp_path, tiny_model))
    assert code == ExitCode.CODE_FAILED
    assert "neither adapter_config.json nor config.json" in report.failure.message, "it has run to its end"
    assert report.progress.step == 7


def test_processes_that_the_code_starts_know_that_it_is_to_stop(tmp_path):
    writer = code_reports.Writer(tmp_path)
    assert not writer.is_asked_to_stop
    code_reports.ask_to_stop(tmp_path)
    assert writer.is_asked_to_stop


@pytest.mark.parametrize("instead", ["os.symlink('/nowhere', output)", "open(output, 'w').close()"])
def test_whatever_code_made_of_its_models_folder_the_next_attempt_has_an_empty_one(tiny_model, tmp_path, instead):
    spoiling = f"output = told['output']\nshutil.rmtree(output)\n{instead}"
    job = job_with(TOLD + spoiling, tmp_path, tiny_model)
    assert do(job)[0] == ExitCode.CODE_FAILED
    Path(job.code).write_text(f"{TOLD}raise SystemExit(40 + len(os.listdir(told['output'])))")
    _, report, _ = do(job)
    assert "ended with exit code 40" in report.failure.message


CHANGED = {
    "its configuration": ("open(base / 'config.json', 'w').write('{}')", "config.json"),
    "its weights": (
        "path = base / 'model.safetensors'\nwords = path.read_bytes()\npath.write_bytes(words[:-40] + bytes(40))",
        "model.safetensors",
    ),
    "a file of it removed": ("(base / 'tokenizer.json').unlink()", "tokenizer.json"),
    "all of it removed": ("shutil.rmtree(base)", "config.json"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_code_that_changes_the_base_model_is_told_so(tiny_model, tmp_path, what):
    """In a pod the cache cannot be written to; by hand it can, and the tuned model would be beside another base."""
    source, name = CHANGED[what]
    cache = tmp_path / "cache"
    shutil.copytree(tiny_model / NAME, cache / NAME)
    saving = "base = pathlib.Path(told['baseModel'])\nshutil.copytree(base, told['output'], dirs_exist_ok=True)\n"
    code, report, _ = do(job_with(TOLD + saving + source, tmp_path, cache, method="Full"))
    assert (code, report.failure.reason) == (ExitCode.CODE_FAILED, "CodeFailed")
    assert report.failure.message.startswith(name)
    assert f"of the base model in {cache / NAME} changed, or went" in report.failure.message
    assert "put the base model back" in report.failure.next_step


def test_code_may_put_files_beside_those_of_the_base_model(tiny_model, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(tiny_model / NAME, cache / NAME)
    beside = "base = told['baseModel']\nshutil.copytree(base, told['output'], dirs_exist_ok=True)\n"
    beside += "os.mkdir(base + '/.cache')\nopen(base + '/notes.txt', 'w').write('mine')"
    code, report, _ = do(job_with(TOLD + beside, tmp_path, cache, method="Full"))
    assert code == ExitCode.OK, report.failure
    assert [said[: len(NOTHING_LEARNT)] for said in report.result.warnings] == [NOTHING_LEARNT]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "its weights are stored quantised (gptq)"),
        ({"model_type": "openai-gpt"}, "keeps its state of a text in a way of its own"),
    ],
    ids=["GPTQ", "a kind that nobody serves"],
)
def test_own_code_is_not_run_on_a_base_that_nothing_it_leaves_could_be_taken_on(tiny_model, tmp_path, fields, said):
    folder = shutil.copytree(tiny_model / NAME, tmp_path / "cache" / NAME)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    ended, report, phases = do(job_with("", tmp_path, tmp_path / "cache"))
    assert (ended, phases) == (ExitCode.MODEL_UNUSABLE, ["Validating", "Failed"]), report.failure
    assert said in report.failure.message
