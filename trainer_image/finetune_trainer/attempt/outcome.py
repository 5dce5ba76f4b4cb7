"""How a run ends: whatever happened becomes one clear line, the last report and an exit code.

Only bugs get a stack trace, in the log.
"""

import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from finetune_api.exit_codes import ExitCode
from finetune_api.job_status import Failure
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.trainer import DONE
from finetune_trainer.attempt.interruption import Interrupted, Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.errors import TrainerError, is_short_of_device_memory, is_short_of_memory, step_by

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MORE_ROOM = (
    "Make room there, and try again (in a cluster by spec.retryNonce; where the pod's own disk is full, by a job with "
    "more spec.resources.ephemeralStorage, or with ephemeral-storage in the connection's podTemplate)."
)
_GPU_BROKEN = re.compile(
    r"uncorrectable (ECC|NVLink) error|hardware stack error|CUDA-capable device\(s\) is/are busy or unavailable"
    r"|over nvlink or a hardware error|GPU is lost|no CUDA-capable device is detected|system not yet initialized",
    re.IGNORECASE,
)
"""CUDA's error messages about the hardware. Errors that may also be a bug in a kernel count as crashes."""


def run_to_end(work: Callable[[], None], reporter: Reporter, interruption: Interruption) -> int:
    """Do `work` with signals going to `interruption`; always closes the report, and returns the exit code."""
    with interruption.install():
        try:
            code = _outcome(work, reporter, interruption)
            interruption.ignore_from_now_on()
        except Interrupted:  # also if it arrives while another end is being reported
            interruption.ignore_from_now_on()
            code = _interrupted(reporter)
        reporter.close()
    return int(code)


def _interrupted(reporter: Reporter) -> ExitCode:
    """If the result was already reported it stands: only clean-up was interrupted."""
    if reporter.report.phase in DONE:
        reporter.update()  # sending it may have been interrupted
        return ExitCode.OK
    say("Interrupted. The next attempt resumes from the last checkpoint, where there is one.")
    reporter.update(phase="Interrupted")
    return ExitCode.INTERRUPTED


def _outcome(work: Callable[[], None], reporter: Reporter, interruption: Interruption) -> ExitCode:
    try:
        work()
    except TrainerError as error:
        return fail(reporter, error)
    except Exception as error:  # outermost handler: a bug must be reported too
        code = _fail_of_known(reporter, error)
        if code is not None:
            return code
        if interruption.is_requested:  # transformers' imports turn what a signal's handler raises into an ImportError
            logger.info("Stopped by a signal.", exc_info=error)
            raise Interrupted from error
        return _crash(reporter, error)
    return ExitCode.OK


def fail(reporter: Reporter, error: TrainerError) -> ExitCode:
    """Print and report an error that the user can fix."""
    complain(error)
    reporter.update(phase="Failed", failure=error.failure(attempt=reporter.report.attempt))
    return error.exit_code


def complain(error: TrainerError) -> ExitCode:
    """Print one line to stderr, with problem and next step; returns the exit code."""
    say(sentence(error.reason, error.message, error.next_step))
    return error.exit_code


def with_next_step(error: TrainerError, steps: Mapping[Reason, str]) -> TrainerError:
    """Replace the reason's next step by that in `steps`, unless the error has its own."""
    step = step_by(steps, error.reason, error.next_step)
    return error if step == error.next_step else TrainerError(error.reason, error.message, step)


def sentence(reason: Reason, message: str, next_step: str | None) -> str:
    """A failure in one line: reason, message, next step."""
    end = "" if message.endswith((".", "?", "!")) else "."
    return f"{reason}: {message}{end} {next_step or ''}".rstrip().replace("\n", " ")


def say(line: str) -> None:
    """Print a line to stderr; results go to stdout. Ignores a closed or full stderr."""
    with suppress(OSError, AttributeError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def print_result(text: str) -> None:
    """Print a result to stdout, escaping characters that its encoding lacks. Ignores a closed pipe, as with `head`.

    Raises:
        TrainerError: ArtifactFailed, stdout is closed or its disk is full.
    """
    try:
        stdout = _stdout()
        encoding = stdout.encoding or "utf-8"  # none in a notebook
        stdout.write(text.encode(encoding, errors="backslashreplace").decode(encoding) + "\n")
        stdout.flush()
    except OSError as error:
        if sys.stdout is not None:  # otherwise Python fails again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            message = f"standard output could not be written: {error.strerror}"
            raise TrainerError(Reason.ARTIFACT_FAILED, message, "Name a place for it that can be written.") from error


def _stdout() -> TextIO:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdout


def _fail_of_known(reporter: Reporter, error: Exception) -> ExitCode | None:
    """Report an error whose reason is known; None for any other."""
    if isinstance(error, OSError) and error.errno in _FULL:
        where = error.filename or "a temporary file"
        return fail(reporter, TrainerError(Reason.ARTIFACT_FAILED, f"{where}: {os.strerror(error.errno)}", _MORE_ROOM))
    if is_short_of_memory(error):
        what = f"the machine's memory was not enough ({type(error).__name__} at {_place(error)})"
        return fail(reporter, TrainerError(Reason.OUT_OF_MEMORY, what))
    if isinstance(error, RuntimeError) and (broken := _GPU_BROKEN.search(str(error))):
        return fail(reporter, TrainerError(Reason.GPU_UNAVAILABLE, f"a GPU has failed: {broken[0]}"))
    if is_short_of_device_memory(error):
        return fail(reporter, TrainerError(Reason.OUT_OF_MEMORY, _shortage(error)))
    return None


def _crash(reporter: Reporter, error: Exception) -> ExitCode:
    logger.error("The trainer crashed.", exc_info=error)
    failure = Failure(
        reason=Reason.TRAINER_CRASHED,
        message=f"{type(error).__name__} at {_place(error)}: a bug of the trainer or of a library below it",
        next_step=NEXT_STEP[Reason.TRAINER_CRASHED],
        exit_code=int(ExitCode.CRASHED),
        attempt=reporter.report.attempt,
    )
    say(sentence(failure.reason, failure.message, "The trace above shows where; please report it."))
    reporter.update(phase="Failed", failure=failure)
    return ExitCode.CRASHED


def _shortage(error: Exception) -> str:
    """The text of such an error is about sizes, never about data."""
    words = str(error).partition("\n")[0].split(". ")[0]
    if type(error).__name__ == "OutOfMemoryError":
        return words
    return f"{words}, outside of what torch itself has taken: another process may hold the GPU's memory"


def _place(error: Exception) -> str:
    """File and line that raised. The message of an unknown error may quote data, and is only logged."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
