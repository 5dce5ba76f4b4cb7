"""`finetune-trainer run`: runs a FineTuneJob manifest without a cluster, with the same code as the pod.

Datasets may be file:// here. A run that was stopped resumes from its checkpoint when it is started again.
"""

import argparse
import fcntl
import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from finetune_api.evaluation import Compared, EvaluationResult, Metric
from finetune_api.exit_codes import ExitCode
from finetune_api.job import FineTuneJobManifest, FineTuneJobSpec
from finetune_api.job_status import TrainingResult
from finetune_api.names import ARTIFACT_FOLDER
from finetune_api.reasons import Reason
from finetune_api.trackers import TrackerState
from finetune_api.trainer import Report, TrainerJob
from finetune_api.words import counted
from finetune_trainer.attempt import fence, outcome
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.mlflow_run import LOCAL_UID
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.manifest import read_job
from finetune_trainer.models.model_cache import is_air_gapped
from finetune_trainer.output import artifact
from finetune_trainer.output.snapshots import KEPT
from finetune_trainer.storage.durable import require_file, write_errors
from finetune_trainer.train import execute

_LOCK = ".running"
_MARKS = (_LOCK, fence.FILE)
"""Files that an output folder has from the start of a run, here or on a cluster."""

_LONGEST_URI = 1024
"""Limit of an artifact URI in a job's status: checked first, since the run would fail only at its very end."""

_PATIENCE = (
    "Stopping as soon as a checkpoint is written. Ctrl-C again stops at once and loses what came after the last one."
)
_AGAIN = "run the same command again: it resumes from the last checkpoint."
_NEXT_STEP_HERE = {
    Reason.SPEC_INVALID: "Correct the manifest and run the same command again.",
    Reason.DATASET_INVALID: "Correct the rows, or map the columns with spec.dataset.columns.",
    Reason.DATASET_NOT_FOUND: "Check the uri; a file of this machine is file:///FOLDER/FILE.",
    Reason.ACCESS_DENIED: "Check the credentials in this shell's environment (AWS_…, HF_TOKEN) and the file's rights.",
    Reason.STORE_UNAVAILABLE: "Check the network (without one, `finetune-trainer cache` takes a model from a folder, "
    "an archive or a GGUF file), then " + _AGAIN,
    Reason.MODEL_NOT_IN_CACHE: "Put the model into the folder of --model-cache with `finetune-trainer cache`, or check "
    "the spelling of spec.baseModel.",
    Reason.INSUFFICIENT_MEMORY: "Use a machine with more memory, or change the manifest.",
    Reason.OUT_OF_MEMORY: "Lower hyperparameters.microBatchSize or maxSequenceLength.",
    Reason.GPU_UNAVAILABLE: "Look at the GPU and its driver (nvidia-smi), then " + _AGAIN,
    Reason.TRAINING_DIVERGED: "Lower hyperparameters.learningRate and choose another output folder.",
    Reason.CODE_FAILED: "Read the code's output above, correct it and run the same command again.",
    Reason.ARTIFACT_FAILED: "Make room on the disk, or name a folder that you may write to with --output; then "
    + _AGAIN,
}
"""Next steps without a cluster, where the reason's own next step assumes one."""


def main(args: argparse.Namespace) -> int:
    """Run the job and print where the model is; the exit code is that of `train`."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        job = local_job(read_job(args.file), args.output, args.model_cache, args.code)
    except TrainerError as error:
        return outcome.complain(error)
    if job.spec.resources.ranks > 1:
        outcome.say("resources: one process trains here; nodes and gpusPerNode count on a cluster alone.")
    display, interruption = Display(), Interruption(_PATIENCE)
    reporter = Reporter(job, listener=display.show, interval=0.2)
    code = outcome.run_to_end(lambda: _execute_here(job, reporter, interruption, display), reporter, interruption)
    if code == ExitCode.OK:
        return _print_next_steps(job)
    if code == ExitCode.INTERRUPTED:
        outcome.say(f"Run the same command again to continue in {args.output}.")
    return code


def _execute_here(job: TrainerJob, reporter: Reporter, interruption: Interruption, display: "Display") -> None:
    try:
        with _locked(Path(job.output)) as short_of_memory:
            informed = job.model_copy(update={"short_of_memory": short_of_memory})
            execute(informed, reporter, interruption, allow_local=True)
    except TrainerError as error:
        raise outcome.with_next_step(error, _NEXT_STEP_HERE) from error
    finally:
        display.close()  # before any other output: the bar's line has no newline


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock the output folder against a second run. The kernel drops the lock when the process ends, however it ends.

    Yields whether the previous run was killed for lack of memory: a run leaves the kernel's OOM-kill count in the lock
    file until it ends, and that count has grown since.

    Raises:
        TrainerError: ArtifactFailed, another run has the folder, or it cannot be written.
    """
    with write_errors(folder):
        _require_no_other_files(folder)
        folder.mkdir(parents=True, exist_ok=True)
    with write_errors(folder / _LOCK):
        if (folder / _LOCK).exists():
            require_file(folder / _LOCK)
        lock = (folder / _LOCK).open("a+")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{folder} is being written by another run"
            raise TrainerError(Reason.ARTIFACT_FAILED, message, "Wait for its end, or name another folder.") from None
        lock.seek(0)
        before, now = lock.read().strip(), _oom_kills()
        with write_errors(folder):
            _overwrite(lock, str(now))
        try:
            yield before.isdecimal() and now > int(before)
        finally:
            with suppress(OSError):
                _overwrite(lock, "")


def _overwrite(lock: TextIO, text: str) -> None:
    lock.truncate(0)
    lock.write(text)
    lock.flush()


def _oom_kills() -> int:
    """How many processes the kernel has OOM-killed since this machine started; 0 if it does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _require_no_other_files(folder: Path) -> None:
    """Refuse a folder that holds foreign files under names that a run writes, or deletes at its end.

    Raises:
        TrainerError: ArtifactFailed.
    """
    if any((folder / mark).exists() for mark in _MARKS):
        return
    taken = next((name for name in (ARTIFACT_FOLDER, *KEPT) if (folder / name).exists()), None)
    if taken is not None:
        message = f"{folder} has something called {taken} that no run has left there: it would be lost"
        raise TrainerError(Reason.ARTIFACT_FAILED, message, "Name a new or an empty folder with --output.")


def local_job(manifest: FineTuneJobManifest, output: Path, model_cache: Path | None, code: Path | None) -> TrainerJob:
    """The job as the operator would give it to a pod, with folders of this machine.

    Raises:
        TrainerError: SpecInvalid, spec.code and --code do not go together, or libraries cannot open a folder.
    """
    folder = output.resolve()
    _require_utf8(folder, *([model_cache.resolve()] if model_cache else []))
    _require_code(manifest, code)
    _require_effective(manifest.spec)
    return TrainerJob(
        namespace=manifest.metadata.namespace or "local",
        name=manifest.metadata.name,
        uid=LOCAL_UID,
        attempt=1,
        spec=manifest.spec,
        output=str(folder),
        artifact_uri=_uri_of(folder / ARTIFACT_FOLDER),
        model_cache=str(model_cache.resolve()) if model_cache else None,
        air_gapped=is_air_gapped(),
        code=str(code.resolve()) if code else None,
    )


def _require_utf8(*folders: Path) -> None:
    """Refuse names that Python can open but libraries cannot: the last file they write would fail after hours."""
    for folder in folders:
        if os.fsencode(folder) == str(folder).encode(errors="replace"):
            continue
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{ascii(str(folder))[1:-1]} is not a name in UTF-8, as tokenizers need it",
            "Name another folder, or, if its name looks right in a terminal, set LANG=C.UTF-8.",
        )


def _uri_of(artifact_folder: Path) -> str:
    """The URI in the result, in which every byte of a non-ASCII character takes three characters."""
    address = artifact_folder.as_uri()
    if len(address) > _LONGEST_URI:
        message = f"--output: as an address it has {len(address):,} characters, of at most {_LONGEST_URI:,}"
        raise TrainerError(Reason.SPEC_INVALID, message, "Name a folder with a shorter path.")
    return address


def _require_effective(spec: FineTuneJobSpec) -> None:
    """Refuse fields that would silently have no effect: a provider's learning rate, or an adopted job."""
    named = ["spec.adopt"] if spec.adopt is not None else []
    if spec.hyperparameters.learning_rate_multiplier is not None:
        named.append("spec.hyperparameters.learningRateMultiplier")
    if named:
        message = f"{' and '.join(named)}: only providers use it, and `run` trains on this machine"
        raise TrainerError(Reason.SPEC_INVALID, message, "Remove it, and set hyperparameters.learningRate.")


def _require_code(manifest: FineTuneJobManifest, code: Path | None) -> None:
    if manifest.spec.code is not None and code is None:
        key = manifest.spec.code.config_map_ref.key
        raise TrainerError(
            Reason.SPEC_INVALID, "spec.code: its ConfigMap is not available here", f"Name the file with --code {key}."
        )
    if manifest.spec.code is None and code is not None:
        raise TrainerError(
            Reason.SPEC_INVALID,
            "--code: the job has no spec.code",
            "Add code: {configMapRef: {name: …, key: …}} to its spec, or leave --code out.",
        )
    if code is not None and not code.is_file():
        raise TrainerError(Reason.SPEC_INVALID, f"--code: {code} is not a file", "Name a Python file.")


class Display:
    """Terminal output: a line when a new phase begins, and a progress bar during training."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._printed: set[str] = set()
        self._ran = False

    def show(self, report: Report) -> None:
        """Print what is new in the report."""
        if report.dataset and report.dataset.train:
            self._once(f"Data: {report.dataset.message}", *(f"  warning: {text}" for text in report.dataset.warnings))
        if report.phase == "Validating":
            self._once("Looking at the job and its data.")
        elif report.phase == "Running":
            self._ran = True
            self._advance(report)
        elif report.phase == "Succeeded" and report.progress is None and not self._ran:  # own code need not report
            self._once("It was finished before: nothing is trained again.")
        elif report.phase == "Evaluating":
            self._once("Asking the tuned model and its baselines the test set.")
            self._count_answers(report)
        self._once(*map(_tracker_line, report.trackers or ()))
        if report.evaluation:
            self._once(*_scores(report.evaluation))
        if report.result:
            self._once(*(f"warning: {text}" for text in report.result.warnings or ()), *_not_evaluated(report.result))

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _advance(self, report: Report) -> None:
        if report.progress is None:
            return
        if self._bar is None:
            from tqdm import tqdm  # type: ignore[import-untyped]

            self._bar = tqdm(total=report.progress.total_steps, initial=report.progress.step, unit="step")
        bar = self._bar
        losses = {
            "loss": report.loss and report.loss.last_train,
            "validation": report.loss and report.loss.last_validation,
        }
        shown = {name: f"{value:.3f}" for name, value in losses.items() if value is not None}
        speed = report.progress.tokens_per_second
        bar.set_postfix(shown | ({"tokens/s": f"{speed:.0f}"} if speed else {}), refresh=False)
        bar.update(report.progress.step - bar.n)

    def _count_answers(self, report: Report) -> None:
        if report.progress is None or report.progress.answers is None:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=report.progress.total_answers, unit="answer")
        self._bar.update(report.progress.answers - self._bar.n)

    def _once(self, *lines: str) -> None:
        for line in lines:
            if line not in self._printed:
                self._printed.add(line)
                self.close()
                outcome.say(line)


def _tracker_line(one: TrackerState) -> str:
    if one.problem:
        return f"warning: spec.trackers.{one.name}: {one.problem}"
    return f"{one.name} has the run: {one.url or 'its server does not say where'}"


def _not_evaluated(result: TrainingResult) -> list[str]:
    failure = result.evaluation_failure
    return [f"warning: the tuned model is not evaluated: {failure.sentences}"] if failure else []


def _scores(found: EvaluationResult) -> list[str]:
    """The deciding metric of every model, and the verdicts."""
    baselines = found.baselines
    named: list[tuple[str, Compared | None]] = [
        ("base model", baselines.zero_shot),
        ("base model with examples", baselines.few_shot),
        ("active version", baselines.active_version),
        *((one.name, one) for one in baselines.endpoints or ()),
    ]
    head = f"{found.metric} on {counted(found.rows, 'row')}: {_number(found.tuned.of(found.metric))} tuned model"
    return [
        head,
        *(_baseline_line(name, one, found.metric) for name, one in named if one and (one.verdict or one.problem)),
    ]


def _baseline_line(name: str, one: Compared, metric: Metric) -> str:
    parts = [one.verdict and f"the tuned model is: {one.verdict}", one.problem]
    return f"  {_number(one.of(metric))} {name}; " + "; ".join(part for part in parts if part)


def _number(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _print_next_steps(job: TrainerJob) -> int:
    folder = artifact.folder_of(job)
    serve = ["finetune-trainer", "serve", "--model", str(folder)]
    if job.model_cache:
        serve += ["--model-cache", job.model_cache]
    where = f"The tuned model is in {folder} (report: {folder / 'report.html'})."
    try:
        outcome.print_result(f"{where}\nServe it with: {shlex.join(serve)}")
    except TrainerError as error:
        return outcome.complain(error)
    return ExitCode.OK
