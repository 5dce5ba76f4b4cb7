"""`spec.code`: the user's own Python instead of the built-in recipe, run as a child process of the trainer.

    checked data as JSON Lines ─▶ child (context: paths, spec, checkpoints, reports, stop) ─▶ a model folder
                                    │ progress by a pipe; SIGTERM requests a stop             │ checked by own_model.py
                                    ▼                                                         ▼
                                 the job's report                                     evaluated, written as the artifact

The code can use `recipe.py`. The child has the pod's permissions and no more; its output goes to the pod's log.
"""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from finetune_api.base import ApiModel
from finetune_api.exit_codes import ExitCode
from finetune_api.job_status import ArtifactRef, Progress, TrainingResult
from finetune_api.names import (
    ARTIFACTS_PREFIX,
    DATA_PREFIX,
    JOB_VARIABLE,
    PUSH_PREFIX,
    REPORT_CA_VARIABLE,
    TRACKERS_PREFIX,
)
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_api.verdict import SPLITS, DatasetVerdict
from finetune_trainer.attempt import pod_log
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.metrics import FILE, Metrics
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.data import Row, load_rows
from finetune_trainer.data.provider.rows import as_messages
from finetune_trainer.errors import TrainerError, places
from finetune_trainer.job import code_files
from finetune_trainer.job.given import data_keys
from finetune_trainer.storage.durable import require_file, sha256_of, text_in, whole_file, write_errors
from finetune_trainer.training import code_before, code_guard, code_reports, code_start
from finetune_trainer.training.attempt import Attempt
from finetune_trainer.training.code_end import failed
from finetune_trainer.training.code_reports import CodeReport
from finetune_trainer.training.tuning import checkpoints_of

CONTEXT_VARIABLE = "FINETUNE_CONTEXT"
MODEL_FOLDER = "code-model"
"""In the job's output folder: holds the code's model until the artifact is written."""

RESULT = "finetune-result.json"
"""Beside the model: the result, written once the model passed its checks. Later attempts then do not rerun the code."""

CHECK_SECONDS = 5.0
"""How often to check for a newer attempt, which ends the code without a checkpoint."""

STOP_SECONDS = 100
"""Time for the code to write a checkpoint after SIGTERM; the pod has 120."""

_MORE_SCRATCH = "Ask for more scratch space with spec.resources.ephemeralStorage."
_NOT_FOR_CODE = (
    JOB_VARIABLE,
    REPORT_CA_VARIABLE,
    DATA_PREFIX,
    ARTIFACTS_PREFIX,
    PUSH_PREFIX,
    TRACKERS_PREFIX,
)  # prefixes of variable names

_VERBOSE = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
"""Unbuffered output, and a traceback if a fault in a library kills the process."""

_PUT_BACK = (
    "Let the code write below the context's output and checkpoints folders only, put the base model back as it was, "
    "and try again (in a cluster by spec.retryNonce)."
)
_IDENTIFYING_FILES = ("config.json", "*.safetensors", "tokenizer*")
"""Files that identify a base model: if they change, it is a different one."""

_MARKED_BYTES = 1 << 16
"""Hashed at the beginning and the end of a file: covers a configuration, and the names and last of the weights."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Code:
    """The code as it was at its start: editing the ConfigMap changes the mounted files during the run."""

    file: Path
    sha256: str
    ran: list[str]
    """What was run on what: a hash of spec and data, then names and hashes of the code and the files beside it."""


class CodeContext(ApiModel):
    """What the child is given, as JSON in the file that CONTEXT_VARIABLE names."""

    job: TrainerJob
    base_model: str = Field(description="Folder of the base model.")
    data: dict[str, str] = Field(description="JSON Lines file of each split that the job has.")
    output: str = Field(description="Folder for the finished model.")
    checkpoints: str = Field(description="Folder that outlives the pod.")
    moment: datetime | None = Field(None, description="The time that chat templates write; None: the current time.")
    trainer: int = Field(description="Process that started the code and requests a stop by SIGTERM.")
    reports: str = Field(description="Folder with the pipe for CodeReport lines and the file that requests a stop.")


def train(attempt: Attempt, folder: Path, verdict: DatasetVerdict, *, trained_on: str) -> tuple[TrainingResult, Code]:
    """Run the code to its end; afterwards the model is in MODEL_FOLDER. `trained_on` is a hash of job and data.

    Code whose model passed its checks in an earlier attempt (`record_valid_model`) is not run again.

    Returns:
        The result, and the code that was run.

    Raises:
        TrainerError: CodeFailed, SpecInvalid (the file is missing), OutOfMemory.
        Interrupted: a stop was requested, and the code has ended.
    """
    job, reporter, interruption = attempt.job, attempt.reporter, attempt.interruption
    code = _code_of(job, trained_on)
    output, checkpoints = Path(job.output) / MODEL_FOLDER, checkpoints_of(job)
    if (known := _earlier_result(output, code.ran)) is not None:
        reporter.update(phase="Running", loss=Metrics(Path(job.output) / FILE).curves())
        return known, code
    with write_errors(output):
        _remove(output)
        output.mkdir(parents=True)
        checkpoints.mkdir(exist_ok=True)
    reported = _ChildReports(job, verdict, reporter, resumes=code_before.is_same(Path(job.output), code.ran))
    before = _fingerprints(folder)
    temporary = tempfile.TemporaryDirectory
    with temporary(prefix="own-code-") as scratch, temporary(prefix="own-code-reports-") as reports:
        given = CodeContext(
            job=job,
            base_model=str(folder),
            data=_write_data(job, verdict, Path(scratch), allow_local=attempt.allow_local),
            output=str(output),
            checkpoints=str(checkpoints),
            moment=attempt.moment,
            trainer=os.getpid(),
            reports=reports,
        )
        code = _code_of(job, trained_on)  # again: writing a large dataset takes a while
        code_before.note(Path(job.output), code.ran)
        exit_code = _run(code.file, given, Path(scratch), reported, interruption)
        failure = failed(exit_code, Path(scratch)) if exit_code else None
    if exit_code == ExitCode.INTERRUPTED:
        reported.stopped()
    interruption.check()
    _require_unchanged_base(folder, before)
    if failure is not None:
        raise failure
    return reported.result(), code


def record_valid_model(job: TrainerJob, code: Code, result: TrainingResult) -> None:
    """Record that the model in MODEL_FOLDER passed its checks, since later steps may be interrupted.

    Raises:
        TrainerError: ArtifactFailed.
    """
    note = {"ran": code.ran, "result": result.wire()}
    whole_file(Path(job.output) / MODEL_FOLDER / RESULT, json.dumps(note).encode())


def _remove(output: Path) -> None:
    """Remove what earlier code left in place of the model's folder, of whatever type."""
    if output.is_symlink() or output.is_file():
        output.unlink()
    shutil.rmtree(output, ignore_errors=True)


def _fingerprints(base: Path) -> dict[str, str]:
    """A fingerprint for each identifying file: hashing all weights again would take too long."""
    found = (path for pattern in _IDENTIFYING_FILES for path in sorted(base.glob(pattern)))
    return {path.name: _fingerprint(path) for path in found}


def _fingerprint(path: Path) -> str:
    """Size and hash of both ends. Not the modification time, which some file systems make up."""
    try:
        require_file(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            begin = file.read(_MARKED_BYTES)
            file.seek(max(0, size - _MARKED_BYTES))
            return hashlib.sha256(b"%d " % size + begin + file.read(_MARKED_BYTES)).hexdigest()
    except OSError:
        return ""


def _require_unchanged_base(base: Path, before: dict[str, str]) -> None:
    """Refuse the result if the base model changed during the run, for example because the code saved over it.

    Raises:
        TrainerError: CodeFailed.
    """
    changed = [name for name, mark in before.items() if _fingerprint(base / name) != mark]
    if changed:
        message = (
            f"{', '.join(changed)[:300]} of the base model in {base} changed, or went, while the code of spec.code ran"
        )
        raise TrainerError(Reason.CODE_FAILED, message, _PUT_BACK)


def _earlier_result(output: Path, ran: list[str]) -> TrainingResult | None:
    """The result of the same code, if its model passed the checks."""
    try:
        note = json.loads(text_in(output / RESULT))
        return TrainingResult.model_validate(note["result"]) if note["ran"] == ran else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _code_of(job: TrainerJob, trained_on: str) -> Code:
    """The job's code in its present state.

    Raises:
        TrainerError: SpecInvalid, the file is missing.
    """
    file = _require_file(job)
    beside = sorted(path for path in file.parent.iterdir() if path.is_file())
    return Code(
        file, sha256_of(file), [trained_on, *(part for path in beside for part in (path.name, sha256_of(path)))]
    )


def _require_file(job: TrainerJob) -> Path:
    reference = job.spec.code.config_map_ref if job.spec.code else None
    if job.code is None or reference is None or not Path(job.code).is_file():
        if job.code is not None and reference is not None:
            raise code_files.no_key(reference.name, reference.key, Path(job.code).parent)
        raise TrainerError(Reason.SPEC_INVALID, "spec.code: there is no code", "Name a ConfigMap with the code.")
    return Path(job.code)


def _write_data(job: TrainerJob, verdict: DatasetVerdict, scratch: Path, *, allow_local: bool) -> dict[str, str]:
    files: dict[str, str] = {}
    for split in SPLITS:
        found = getattr(verdict, split)
        if found is None:
            continue
        files[split] = str(scratch / f"{split}.jsonl")
        reading = {"allow_local": allow_local, "air_gapped": job.air_gapped}
        rows = load_rows(job.spec.dataset, split, expected_sha256=found.sha256, **reading)
        with write_errors(scratch, _MORE_SCRATCH), Path(files[split]).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(canonical(row), ensure_ascii=False) + "\n" for row in rows)
    return files


def canonical(row: Row) -> dict[str, Any]:
    """A row as the code reads it: prompt, completion and optionally system; longer conversations as OpenAI messages."""
    turns = {turn.role: turn.content for turn in row.turns}
    if [turn.role for turn in row.turns] not in (["user", "assistant"], ["system", "user", "assistant"]):
        return as_messages(row)
    system = {"system": turns["system"]} if "system" in turns else {}
    return {**system, "prompt": turns["user"], "completion": turns["assistant"]}


def _run(code: Path, given: CodeContext, scratch: Path, reported: "_ChildReports", interruption: Interruption) -> int:
    """Start the child, process its reports, forward stop requests; returns its exit code."""
    gone, folder = threading.Event(), Path(given.reports)
    with code_reports.opened(folder) as pipe, interruption.deferred():
        child = _start(code, given, scratch)

        def ask() -> None:
            code_reports.ask_to_stop(folder)
            child.send_signal(signal.SIGTERM)

        with _guarded(child.pid), _watched(child, interruption, gone, ask):
            for line in code_reports.lines(pipe, gone):
                reported.line(line.decode(errors="replace"))
        return child.wait()


def _start(code: Path, given: CodeContext, scratch: Path) -> "subprocess.Popen[bytes]":
    path = scratch / "context.json"
    path.write_text(given.model_dump_json(by_alias=True), encoding="utf-8")
    environment = data_keys(os.environ)
    environment |= pod_log.without_bars()
    environment |= {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_CODE)}
    return subprocess.Popen(  # noqa: S603 - an admin has allowed the user's own code on this connection
        [sys.executable, "-c", code_start.COMMAND, str(code)],
        cwd=scratch,
        env=environment | {CONTEXT_VARIABLE: str(path)} | _VERBOSE,
        start_new_session=True,
    )


@contextmanager
def _watched(
    child: "subprocess.Popen[bytes]", interruption: Interruption, gone: threading.Event, ask: Callable[[], None]
) -> Iterator[None]:
    """Forward stop requests to the child; once it has ended (`gone`), kill the processes that it left."""

    def watch() -> None:
        asked_at: float | None = None
        check_at = time.monotonic()
        while child.poll() is None:
            if time.monotonic() >= check_at:
                if _is_superseded(interruption):
                    break  # its checkpoint folder belongs to a newer attempt now
                check_at = time.monotonic() + CHECK_SECONDS
            if asked_at is None and interruption.wait(0.2):
                asked_at = time.monotonic()
                ask()
            if asked_at is not None and time.monotonic() - asked_at > STOP_SECONDS:
                break
        _end_group(child.pid)
        child.wait()
        gone.set()

    watcher = threading.Thread(target=watch, name="own-code", daemon=True)
    watcher.start()
    try:
        yield
    except BaseException:
        _end_group(child.pid)
        raise
    finally:
        watcher.join()


@contextmanager
def _guarded(leader: int) -> Iterator[None]:
    """Start a small guard process that ends the code if this process is killed: its input pipe then closes.

    In a pod everything ends with the first process, which is this one; at a shell the code would go on unnoticed.
    """
    command = [sys.executable, "-I", "-S", code_guard.__file__, str(leader)]
    with subprocess.Popen(  # noqa: S603 - nothing of the job is in it
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as guard:
        try:
            yield
        finally:
            guard.kill()


def _is_superseded(interruption: Interruption) -> bool:
    """Whether there is a newer attempt; False if the volume cannot tell, since it is checked again later."""
    try:
        return interruption.is_superseded()
    except TrainerError as error:
        logger.warning("whether there is a newer attempt is not known: %s", error.message)
        return False


def _end_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # all have exited


class _ChildReports:
    """Turns the child's reports into the record and the job's own report."""

    def __init__(self, job: TrainerJob, verdict: DatasetVerdict, reporter: Reporter, *, resumes: bool = False) -> None:
        self._metrics = Metrics(Path(job.output) / FILE)
        self._verdict, self._reporter, self._resumes = verdict, reporter, resumes
        self._started = time.monotonic()
        self._first: int | None = None
        self._last: CodeReport | None = None
        self._tokens = 0
        reporter.update(phase="Running")

    def line(self, text: str) -> None:
        """Process one line from the pipe.

        Raises:
            TrainerError: CodeFailed, it is not a report.
        """
        try:
            report = CodeReport.model_validate_json(text)
        except ValidationError as error:
            message = f"the code of spec.code reported what is not a report: {places(error)}"
            raise TrainerError(Reason.CODE_FAILED, message) from None
        if self._first is None:
            self._first = report.step
            self._metrics.keep_until(report.step - 1)
        self._last = report
        self._tokens += report.tokens
        self._record(report)
        if self._reporter.due() or report.validation_loss is not None:
            self._reporter.update(progress=self._progress(report, report.total_steps), loss=self._metrics.curves())

    def _record(self, report: CodeReport) -> None:
        about: dict[str, Any] = {"step": report.step, "epoch": report.epoch or 0.0}
        if report.loss is not None:
            self._metrics.add(**about, loss=report.loss, tokens=report.tokens, completionTokens=report.tokens or 1)
        elif report.tokens:  # code may report its loss only every few steps
            self._metrics.add(**about, tokens=report.tokens)
        if report.validation_loss is not None:
            self._metrics.add(**about, validationLoss=report.validation_loss)

    def _progress(self, report: CodeReport, of: int | None) -> Progress:
        """Progress after this report; without a number of steps (`of`) there is no percentage and no remaining time."""
        total, seconds = max(of or 0, report.step), time.monotonic() - self._started
        done = max(1, report.step - (self._first or 0) + 1)  # the code's step numbers may be anything
        return Progress(
            step=report.step,
            total_steps=total,
            epoch=round(report.epoch or 0.0, 3),
            percent=100 * report.step // max(total, 1) if of else 0,
            tokens_per_second=round(self._tokens / seconds, 1) if self._tokens and seconds > 0 else None,
            eta_seconds=round(seconds / done * (total - report.step)) if of else None,
            updated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def stopped(self) -> None:
        """The code called `stop`, so we trust that there is a checkpoint of its last step."""
        last = self._last
        if last is not None:
            progress = self._progress(last, last.total_steps).model_copy(update={"saved_step": last.step})
            self._reporter.update(progress=progress)

    def result(self) -> TrainingResult:
        """The result of the whole run."""
        if self._first is None and not self._resumes:
            self._metrics.keep_until(0)  # the record is that of other code
        curves = self._metrics.curves()
        steps = max((line["step"] for line in self._metrics.lines), default=0)
        steps = max(steps, self._last.step if self._last else 0)
        if self._last is not None:  # reports in quick succession were not forwarded
            self._reporter.update(progress=self._progress(self._last, self._last.total_steps or self._last.step))
        self._reporter.update(loss=curves)
        return TrainingResult(
            artifact=ArtifactRef(),
            steps=steps,
            tokens=self._metrics.tokens or None,
            train_loss=curves.last_train,
            eval_loss=curves.last_validation,
            runtime_seconds=round(time.monotonic() - self._started),
            dataset_sha256=self._verdict.train.sha256 if self._verdict.train else None,
        )
