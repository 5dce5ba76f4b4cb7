"""Turns the end of the child that ran `spec.code` into the job's error: what happened, in which file and line."""

import signal
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from finetune_api.base import ApiModel
from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.durable import require_file
from finetune_trainer.training.code_start import RAISED

_MOST_BYTES = 4096
_FOR_MEMORY = ("MemoryError", "OutOfMemoryError")
"""Python's own error, and torch's for GPUs."""

_STOPPED = (
    "Let the code call run.stop() only where run.stop_requested says so, and just end where it is done, and try again "
    "(in a cluster by spec.retryNonce)."
)
_LOOK = "the end of its output says why"


class _Raised(ApiModel):
    """The error that ended the code, as the child recorded it. Untrusted: the code can write the file too."""

    type: Annotated[str, Field(pattern=r"^\w{1,100}$")]
    place: Annotated[str, Field(pattern=r"^[^/\n]{1,200} line \d{1,9}$")] | None = None
    reason: Reason | None = None
    """Of a TrainerError raised by the recipe's functions."""
    module: Annotated[str, Field(pattern=r"^[\w.]{1,100}$")] | None = None

    @property
    def for_memory(self) -> Reason | None:
        """The reason, if it ran out of memory: the recipe's functions know whether another attempt may help."""
        if self.reason in (Reason.OUT_OF_MEMORY, Reason.INSUFFICIENT_MEMORY):
            return self.reason
        return Reason.OUT_OF_MEMORY if self.type in _FOR_MEMORY else None

    @property
    def at(self) -> str:
        """The place, if known, as the end of a clause."""
        return f" at {self.place}" if self.place else ""


def failed(exit_code: int, scratch: Path) -> TrainerError:
    """Why the code ended with this exit code, using the error in its working folder, if any."""
    raised = _raised(scratch)
    if raised is not None and raised.for_memory is not None and exit_code > 0:
        message = f"the code of spec.code had too little memory: {raised.type}{raised.at}"
        return TrainerError(raised.for_memory, message)
    if (meant := _of_a_meaning(exit_code, raised)) is not None:
        return meant
    how = f"signal {_signal(-exit_code)}" if exit_code < 0 else f"exit code {exit_code}"
    if raised is None:
        return TrainerError(Reason.CODE_FAILED, f"the code of spec.code ended with {how}; {_LOOK}")
    if raised.module is not None:
        return _lacks(raised, how)
    what = raised.at if raised.type == "SystemExit" else f": {raised.type}{raised.at}"
    return TrainerError(Reason.CODE_FAILED, f"the code of spec.code ended with {how}{what}; {_LOOK}")


def _of_a_meaning(exit_code: int, raised: _Raised | None) -> TrainerError | None:
    """The error for an exit code that says enough by itself."""
    if exit_code == -signal.SIGKILL:
        return TrainerError(Reason.OUT_OF_MEMORY, "the code of spec.code was killed: probably over the memory limit")
    if exit_code == -signal.SIGBUS:
        why = "a file that it has mapped into memory was truncated, or its volume (/dev/shm?) is full"
        return TrainerError(Reason.CODE_FAILED, f"the code of spec.code ended with signal SIGBUS: {why}")
    if exit_code == ExitCode.INTERRUPTED:
        message = (
            f"the code of spec.code called run.stop(){raised.at if raised else ''}, and nobody has asked it to stop"
        )
        return TrainerError(Reason.CODE_FAILED, message, _STOPPED)
    return None


def _lacks(raised: _Raised, how: str) -> TrainerError:
    """The error for a module that is missing, or lacks an attribute."""
    name = (raised.module or "").partition(".")[0]
    step = (
        f"Import what is there: a package of the trainer's image, or another key of the same ConfigMap ({name}.py). "
        "Else ask an admin for a trainerImage that has the package. Then try again (in a cluster by spec.retryNonce)."
    )
    message = f"the code of spec.code ended with {how}: {raised.type}{raised.at}, of the module {raised.module}"
    return TrainerError(Reason.CODE_FAILED, f"{message}; {_LOOK}", step)


def _raised(scratch: Path) -> _Raised | None:
    try:
        require_file(scratch / RAISED)
        with (scratch / RAISED).open("rb") as file:
            return _Raised.model_validate_json(file.read(_MOST_BYTES))
    except (OSError, ValidationError):
        return None


def _signal(number: int) -> str:
    """The signal's name; most real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
