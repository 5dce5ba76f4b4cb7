"""spec.code: the examples as they are, and what becomes of code that fails, stops, lies or leaves no model."""

import hashlib
import json
import os
import runpy
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_api.exit_codes import ExitCode
from finetune_api.verdict import DatasetVerdict
from finetune_trainer import recipe
from finetune_trainer.attempt import outcome
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.data import Position, Row, Turn
from finetune_trainer.job.code_files import no_key
from finetune_trainer.output import artifact
from finetune_trainer.storage.durable import read_manifest
from finetune_trainer.train import execute
from finetune_trainer.training import own_code
from finetune_trainer.training.own_code import canonical
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training.own_jobs import EXAMPLES, REFERENCE, job_with, left
from tests.unit.finetune_trainer.training_runs import do

__all__ = ["left"]


@pytest.fixture(autouse=True)
def environment_of_children(monkeypatch):
    """The trainer is importable, as in the image where it is installed."""
    root = EXAMPLES.parents[1]
    paths = os.pathsep.join([str(root / "operator"), str(root / "trainer_image")])
    monkeypatch.setenv("PYTHONPATH", paths, prepend=os.pathsep)


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs the code here, where the large libraries are imported already, and lets a child that does nothing end."""

    def start(code, told, scratch):
        context = scratch / "context.json"
        context.write_text(told.model_dump_json(by_alias=True))
        monkeypatch.setenv(own_code.CONTEXT_VARIABLE, str(context))
        recipe.context.cache_clear()
        try:
            runpy.run_path(str(code), run_name="__main__")
        finally:
            recipe.context().restore_handlers()
            recipe.context.cache_clear()
        return subprocess.Popen(["true"], start_new_session=True)

    monkeypatch.setattr(own_code, "_start", start)


@pytest.mark.parametrize(
    ("example", "kind", "method"),
    [
        ("snippets.py", "Adapter", "LoRA"),
        ("own_loop.py", "Adapter", "LoRA"),
        ("plain_trainer.py", "Full", "Full"),
    ],
)
@pytest.mark.usefixtures("in_this_process")
def test_the_examples_run_as_they_are(tiny_model, tmp_path, example, kind, method):
    splits = ("train", "validation", "test")
    job = job_with(
        EXAMPLES / example, tmp_path, tiny_model, splits=splits, method=method, hyperparameters={"epochs": 2},
        evaluation={"maxNewTokens": 4},
    )  # fmt: skip
    code, report, phases = do(job)
    assert code == ExitCode.OK, report.failure
    assert phases == ["Validating", "Running", "Evaluating", "Succeeded"]
    assert report.progress.percent == 100
    assert report.loss.train[-1].value < report.loss.train[0].value
    assert report.result.artifact.kind == kind
    assert report.result.steps == report.progress.total_steps == 10
    assert report.evaluation.rows == 12
    folder = Path(job.output) / "model"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["codeSHA256"]) == 64
    assert "the code may have done otherwise" in (folder / "README.md").read_text()
    page = (folder / "report.html").read_text()
    assert ("may have done otherwise" in page, "rows per pass" in page) == (True, False)
    assert not list(folder.rglob("*.bin"))
    left = sorted(path.name for path in Path(job.output).iterdir())
    assert left == ["attempt", "attempt-holder", "metrics.jsonl", "model"]


@pytest.mark.usefixtures("in_this_process")
def test_an_adapter_that_peft_alone_reads_says_so_and_how_vllm_serves_it_is_not_told(tiny_model, tmp_path):
    code = "from finetune_trainer import recipe\nrun = recipe.context()\nmodel = recipe.load_model(run)\n"
    code += "recipe.fit(run, model)\nmodel.peft_config['default'].bias = 'lora_only'\nrecipe.save(run, model)\n"
    job = job_with(code, tmp_path, tiny_model, hyperparameters={"epochs": 1})
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert report.result.artifact.needs_peft is True
    assert "vllm serve" not in (Path(job.output) / "model" / "README.md").read_text()


@pytest.mark.usefixtures("in_this_process")
def test_the_built_in_pieces_learn_what_the_built_in_recipe_learns(tiny_model, tmp_path):
    code = "from finetune_trainer import recipe\nrun = recipe.context()\nmodel = recipe.load_model(run)\n"
    code += "recipe.fit(run, model)\nrecipe.save(run, model)\n"
    splits = ("train", "validation")
    own = job_with(code, tmp_path / "own", tiny_model, splits=splits)
    plain = make_job(tmp_path / "plain", tiny_model, splits=splits)
    (got, own_report, _), (expected, report, _) = do(own), do(plain)
    assert got == expected == ExitCode.OK, own_report.failure
    weights = [load_file(Path(job.output) / "model" / "adapter_model.safetensors") for job in (own, plain)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-7)
    assert [point.step for point in own_report.loss.validation] == [point.step for point in report.loss.validation]
    assert own_report.loss.last_validation == pytest.approx(report.loss.last_validation, rel=1e-5)
    assert own_report.result.artifact.lora_rank == 16


@pytest.mark.usefixtures("in_this_process")
def test_an_attempt_that_finds_all_steps_done_keeps_what_the_one_before_has_reported(tiny_model, tmp_path):
    code = "from finetune_trainer import recipe\nrun = recipe.context()\nmodel = recipe.load_model(run)\n"
    code += "recipe.fit(run, model)\nagain = run.checkpoints / 'again'\n"
    code += "recipe.save(run, model) if again.exists() else again.touch()\n"
    job = job_with(code, tmp_path, tiny_model, splits=("train", "validation"), hyperparameters={"epochs": 1})
    record = Path(job.output) / "metrics.jsonl"
    assert do(job)[0] == ExitCode.CODE_FAILED, "it has left no model"
    before = record.read_text()
    code, report, _ = do(job)
    assert (code, record.read_text()) == (ExitCode.OK, before), report.failure
    assert report.result.steps == 5
    assert report.loss.last_validation is not None


COUNTING = """
import json, shutil
from finetune_trainer import recipe

run = recipe.context()
note = run.checkpoints / "step.json"
done = json.loads(note.read_text()) if note.exists() else 0
limit = 12 if done else 1000000
for step in range(done + 1, limit + 1):
    if run.stop_requested:
        note.write_text(json.dumps(step - 1))
        run.stop()
    run.report(step=step, total_steps=limit, loss=1 / step, tokens=3)
shutil.copytree({model!r}, run.output, dirs_exist_ok=True)
"""


def test_code_that_is_asked_to_stop_writes_a_checkpoint_and_goes_on_from_it(left, tiny_model, tmp_path):
    job = job_with(COUNTING.format(model=str(left[2])), tmp_path / "job", tiny_model)
    reporter, interruption = Reporter(job, interval=0.0), Interruption()
    original = reporter.update

    def update(**fields):
        original(**fields)
        if fields.get("progress") and fields["progress"].step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    reporter.update = update
    work = lambda: execute(job, reporter, interruption, allow_local=True)  # noqa: E731
    assert outcome.run_to_end(work, reporter, interruption) == ExitCode.INTERRUPTED
    assert reporter.report.progress.saved_step >= 5, "code that calls stop has written a checkpoint"
    note = Path(job.output) / "checkpoints" / "step.json"
    assert json.loads(note.read_text()) >= 5
    assert not (Path(job.output) / "model").exists()

    note.write_text("5")  # as if it had been stopped right then: what the record has beyond that is done anew
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    record = [json.loads(line)["step"] for line in (Path(job.output) / "metrics.jsonl").open()]
    assert record == list(range(1, 13))
    assert (report.result.steps, report.result.tokens) == (12, 36)


def ends_right_after_training(job):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune_trainer.train._evaluate", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        return do(job)


RUN_AND_COUNTED = """
import pathlib, shutil
from finetune_trainer import recipe

run = recipe.context()
runs = pathlib.Path({runs!r})
runs.write_text(runs.read_text() + "x")
run.report(step=1, total_steps=1, loss=0.5, tokens=3)
shutil.copytree({model!r}, run.output, dirs_exist_ok=True)
"""


NEEDS_GRADIENTS = """
import torch
from finetune_trainer import recipe
from finetune_trainer.training.passes import loss_sum

def smooth(model, batch):
    loss = loss_sum(model, batch)
    learnt = next(one for one in model.parameters() if one.requires_grad)
    (slope,) = torch.autograd.grad(loss, learnt, retain_graph=True)
    return loss / (1 + slope.norm())

run = recipe.context()
model = recipe.load_model(run)
recipe.fit(run, model, loss_sum=smooth)
recipe.save(run, model)
"""


@pytest.mark.usefixtures("in_this_process")
def test_a_loss_that_needs_gradients_is_computed_in_steps_alone(tiny_model, tmp_path):
    job = job_with(NEEDS_GRADIENTS, tmp_path, tiny_model, hyperparameters={"epochs": 0.2, "packing": False})
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("changed", [False, True])
def test_code_that_has_left_a_good_model_is_run_again_only_where_it_is_another_one(left, tiny_model, tmp_path, changed):
    (tmp_path / "runs").write_text("")
    source = RUN_AND_COUNTED.format(runs=str(tmp_path / "runs"), model=str(left[2]))
    job = job_with(source, tmp_path / "job", tiny_model)
    ends_right_after_training(job)
    if changed:
        Path(job.code).with_name("helper.py").write_text("one = 1")
    code, report, phases = do(job)
    assert (code, phases) == (ExitCode.OK, ["Validating", "Running", "Succeeded"])
    assert (tmp_path / "runs").read_text() == ("xx" if changed else "x")
    assert (report.result.steps, report.result.tokens, report.result.train_loss) == (1, 3, 0.5)
    assert [point.step for point in report.loss.train] == [1]


EDITED = {
    "another one": """own.write_text("raise SystemExit('of another ConfigMap')")""",
    "none": "own.unlink()",
}


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("edited", EDITED)
def test_code_that_is_edited_while_it_runs_is_told_as_what_was_run(left, tiny_model, tmp_path, edited):
    """As the kubelet exchanges a ConfigMap's files."""
    (tmp_path / "runs").write_text("")
    source = RUN_AND_COUNTED.format(runs=str(tmp_path / "runs"), model=str(left[2]))
    source += f"own = pathlib.Path(__file__)\n{EDITED[edited]}\n"
    job = job_with(source, tmp_path / "job", tiny_model)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    told = read_manifest(artifact.folder_of(job))["codeSHA256"]
    assert told == hashlib.sha256(source.encode()).hexdigest()


@pytest.mark.usefixtures("in_this_process")
def test_what_it_was_edited_to_while_it_ran_is_run_by_the_next_attempt(left, tiny_model, tmp_path):
    (tmp_path / "runs").write_text("")
    source = RUN_AND_COUNTED.format(runs=str(tmp_path / "runs"), model=str(left[2]))
    job = job_with(f"{source}pathlib.Path(__file__).write_text({source!r})\n", tmp_path / "job", tiny_model)
    ends_right_after_training(job)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    assert (tmp_path / "runs").read_text() == "xx"


@pytest.mark.usefixtures("in_this_process")
def test_code_whose_model_was_refused_is_run_again(left, tiny_model, tmp_path):
    (tmp_path / "runs").write_text("")
    source = RUN_AND_COUNTED.format(runs=str(tmp_path / "runs"), model=str(left[2]))
    (left[2] / "adapter_config.json").rename(tmp_path / "missing.json")
    job = job_with(source, tmp_path / "job", tiny_model)
    assert do(job)[0] == ExitCode.CODE_FAILED
    (tmp_path / "missing.json").rename(left[2] / "adapter_config.json")
    assert do(job)[0] == ExitCode.OK
    assert (tmp_path / "runs").read_text() == "xx"


FAILING = {
    "an exception": ("raise KeyError('x')", "exit code 1"),
    "its own exit code": ("import sys; sys.exit(7)", "exit code 7"),
    "a signal": ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "signal SIGABRT"),
    "no room in shared memory": ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "SIGBUS: a file that it"),
    "no model": (
        "from finetune_trainer import recipe; recipe.context()",
        "neither adapter_config.json nor config.json",
    ),
    "a report that is none": (
        "from finetune_trainer import recipe; recipe.context()._reports.line(b'{}')",
        "reported what is not a report: step",
    ),
}


@pytest.mark.parametrize("what", FAILING)
def test_code_that_fails_has_its_own_reason_and_a_next_step(tiny_model, tmp_path, what):
    source, words = FAILING[what]
    code, report, _ = do(job_with(source, tmp_path, tiny_model))
    assert (code, report.failure.reason) == (ExitCode.CODE_FAILED, "CodeFailed")
    assert words in report.failure.message
    assert "spec.retryNonce" in report.failure.next_step
    assert not (Path(tmp_path) / "output" / "model").exists()


def test_its_traceback_is_in_the_log(tiny_model, tmp_path, capfd):
    do(job_with("raise KeyError('of mine')", tmp_path, tiny_model))
    assert 'train.py", line 1' in (said := capfd.readouterr().err)
    assert "KeyError: 'of mine'" in said


def test_a_process_that_the_code_leaves_behind_does_not_keep_the_run(tiny_model, tmp_path):
    source = "import subprocess\nprint(subprocess.Popen(['sleep', '600']).pid, file=open('/tmp/own-code-child', 'w'))\n"
    source = source.replace("/tmp/own-code-child", str(tmp_path / "child"))
    code, *_ = do(job_with(source, tmp_path, tiny_model))
    assert code == ExitCode.CODE_FAILED
    stat, deadline = Path("/proc", (tmp_path / "child").read_text().strip(), "stat"), time.monotonic() + 20
    while stat.exists() and stat.read_text().split(")")[1].split()[0] != "Z":  # a zombie only waits for its parent
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.01)


def test_what_a_killed_code_means(tiny_model, tmp_path):
    source = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    code, report, _ = do(job_with(source, tmp_path, tiny_model))
    assert (code, report.failure.reason) == (ExitCode.OUT_OF_MEMORY, "OutOfMemory")


def test_a_key_that_the_config_map_lacks_is_named(tiny_model, tmp_path):
    job = job_with("", tmp_path, tiny_model)
    Path(job.code).unlink()
    code, report, _ = do(job)
    assert code == ExitCode.SPEC_INVALID
    assert report.failure.message == "spec.code: ConfigMap my-recipe has no key train.py"


def test_a_key_that_is_misspelt_is_told_beside_those_that_are_there(tmp_path):
    (tmp_path / "trian.py").touch()
    (tmp_path / "..data").mkdir()
    error = no_key("my-recipe", "train.py", tmp_path)
    assert error.message == "spec.code: ConfigMap my-recipe has no key train.py; it has trian.py"


def test_the_code_gets_the_datas_keys_and_neither_the_operators_job_nor_its_certificate(
    tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("FINETUNE_JOB", "{}")
    monkeypatch.setenv("FINETUNE_REPORT_CA", "pem")
    monkeypatch.setenv("FINETUNE_DATA_TICKETS_PASSWORD", "canary")
    monkeypatch.setenv("FINETUNE_DATA_PYTHONPATH", "/nowhere")
    source = f"import os, json; json.dump(sorted(os.environ), open({str(tmp_path / 'seen')!r}, 'w'))"
    do(job_with(source, tmp_path, tiny_model))
    seen = json.loads((tmp_path / "seen").read_text())
    assert {"FINETUNE_CONTEXT", "TICKETS_PASSWORD", "TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"} <= set(seen)
    assert not {"FINETUNE_JOB", "FINETUNE_REPORT_CA"} & set(seen)


def test_rows_reach_the_code_in_one_form():
    system, user, answer = Turn("system", "s"), Turn("user", "u"), Turn("assistant", "a")
    assert canonical(Row(Position(1), (user, answer))) == {"prompt": "u", "completion": "a"}
    assert canonical(Row(Position(1), (system, user, answer))) == {"system": "s", "prompt": "u", "completion": "a"}
    long = canonical(Row(Position(1), (user, answer, user, answer)))
    assert [message["role"] for message in long["messages"]] == ["user", "assistant", "user", "assistant"]
    partly = Row(Position(), (user, answer, user, answer), unlearnt=(1,))
    assert recipe._as_row(canonical(partly)) == partly


# What the code leaves.


def test_run_needs_the_file_that_the_job_names(tiny_model, tmp_path, capsys):
    from finetune_trainer.__main__ import main

    job = make_job(tmp_path, tiny_model, splits=("train",), code=REFERENCE)
    manifest = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "x"}}
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({**manifest, "spec": job.spec.wire()}))
    flags = ["run", "-f", str(path), "--output", str(tmp_path / "out"), "--model-cache", str(tiny_model)]
    assert main(flags) == ExitCode.SPEC_INVALID
    assert "Name the file with --code train.py." in capsys.readouterr().err
    assert main([*flags, "--code", str(tmp_path / "absent.py")]) == ExitCode.SPEC_INVALID
    (tmp_path / "code.py").write_text("raise SystemExit(7)")
    assert main([*flags, "--code", str(tmp_path / "code.py")]) == ExitCode.CODE_FAILED
    assert "run the same command again" in capsys.readouterr().err


def test_reports_that_come_quickly_end_with_the_last_of_them(tiny_model, tmp_path):
    job = job_with("", tmp_path, tiny_model)
    Path(job.output).mkdir(parents=True, exist_ok=True)
    reporter = Reporter(job, interval=60)
    heard = hearing(job, reporter)
    for step in (1, 2, 3):
        heard.line(json.dumps({"step": step, "totalSteps": 3, "loss": 1.0}))
    assert heard.result().steps == 3
    assert (reporter.report.progress.step, reporter.report.progress.percent) == (3, 100)


def test_code_may_count_as_it_likes_and_need_not_know_the_end(tiny_model, tmp_path):
    job = job_with("", tmp_path, tiny_model)
    Path(job.output).mkdir(parents=True, exist_ok=True)
    reporter = Reporter(job, interval=0)
    heard = hearing(job, reporter)
    heard.line(json.dumps({"step": 7}))
    progress = reporter.report.progress
    assert (progress.step, progress.percent, progress.eta_seconds) == (7, 0, None)
    heard.line(json.dumps({"step": 6, "totalSteps": 12}))
    assert (reporter.report.progress.step, reporter.report.progress.percent) == (6, 50)
    heard.line(json.dumps({"step": 8}))
    heard.result()
    assert (reporter.report.progress.step, reporter.report.progress.percent) == (8, 100)


def test_steps_and_tokens_count_where_a_loss_is_told_every_few_steps_alone(tiny_model, tmp_path):
    job = job_with("", tmp_path, tiny_model)
    Path(job.output).mkdir(parents=True, exist_ok=True)
    heard = hearing(job, Reporter(job, interval=0))
    for step in range(1, 8):
        heard.line(json.dumps({"step": step, "tokens": 10, **({"loss": 2.0} if step % 3 == 0 else {})}))
    result = heard.result()
    assert (result.steps, result.tokens, result.train_loss) == (7, 70, 2.0)
    again = hearing(job, Reporter(job, interval=0))
    again.line(json.dumps({"step": 5, "tokens": 10}))
    assert (again.result().steps, again.result().tokens) == (5, 50), "what is done again counts once"


def test_code_that_reports_nothing_does_not_report_what_an_earlier_attempt_did(tiny_model, tmp_path):
    job = job_with("", tmp_path, tiny_model)
    Path(job.output).mkdir(parents=True, exist_ok=True)
    hearing(job, Reporter(job)).line(json.dumps({"step": 3, "loss": 1.0, "tokens": 5}))
    reporter = Reporter(job)
    result = hearing(job, reporter).result()
    assert (result.steps, result.tokens, result.train_loss) == (0, None, None)
    assert reporter.report.loss.train == []


def test_a_signal_while_the_code_is_started_leaves_no_process(tiny_model, tmp_path, monkeypatch):
    job = job_with("", tmp_path, tiny_model)
    interruption, started = Interruption(), []

    def start(*_):
        started.append(subprocess.Popen(["sleep", "600"], start_new_session=True))
        interruption.request()
        return started[0]

    monkeypatch.setattr(own_code, "_start", start)
    where = {"base_model": "", "data": {}, "output": "", "checkpoints": "", "reports": str(tmp_path)}
    told = own_code.CodeContext(job=job, trainer=os.getpid(), **where)
    assert own_code._run(Path("train.py"), told, tmp_path, hearing(job, Reporter(job)), interruption) == -signal.SIGTERM
    assert interruption.is_requested


def hearing(job, reporter):
    return own_code._ChildReports(job, DatasetVerdict(valid=True, reason="Valid", message=""), reporter)
