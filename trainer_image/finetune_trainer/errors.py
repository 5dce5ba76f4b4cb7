"""The trainer's one error type, for problems that a user can fix. Any other exception is a bug (TrainerCrashed).

Raising it prints and reports nothing and does not exit: the commands do, using `failure()` and `exit_code`.
"""

import errno
import re
import resource
from collections.abc import Mapping

from pydantic import ValidationError

from finetune_api.exit_codes import REASON_OF_EXIT_CODE, ExitCode
from finetune_api.job_status import Failure
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.words import cut

ANOTHER_OUTPUT = (
    "Choose another output folder, or delete that one; in a cluster bring the data back as they were and set "
    "spec.retryNonce, or apply the job under a new name."
)
"""The next step if a folder holds files of another job, or of other data."""

_SHORT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: can't allocate memory|shared object.*: Cannot allocate memory"
    r"|failed to map segment from shared object"
)
_SHORT_OF_DEVICE_MEMORY = re.compile(
    r"(CUDA|HIP) error: out of memory|Triton Error \[\w+\]: out of memory|STATUS_ALLOC_FAILED"
)

_ANOTHER_JOB, _AGAIN = "pply the job under a new name", "un the same command again"
"""Without their first letters, which may start a sentence."""
_EXIT_CODE_OF_REASON = {reason: code for code, reason in REASON_OF_EXIT_CODE.items()}
_MESSAGE_LIMIT, _STEP_LIMIT = 4096, 1024  # of Failure's fields


class TrainerError(Exception):
    """A run cannot continue, for a reason that its reader can act on.

    `reason` must have an exit code (see REASON_OF_EXIT_CODE). `message` says what is wrong and where (field, file,
    line), never with text of the dataset. Pass `next_step` only if the code knows better than the reason's own.
    """

    def __init__(self, reason: Reason, message: str, next_step: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = cut(message, _MESSAGE_LIMIT)
        self.next_step = cut(next_step, _STEP_LIMIT) if next_step else NEXT_STEP.get(reason)
        self.exit_code = _EXIT_CODE_OF_REASON.get(reason, ExitCode.CRASHED)

    def failure(self, *, attempt: int | None = None) -> Failure:
        """The error as status.failure shows it."""
        return Failure(
            reason=self.reason,
            message=self.message,
            next_step=self.next_step,
            exit_code=int(self.exit_code),
            attempt=attempt,
        )


def step_by(steps: Mapping[Reason, str], reason: Reason, step: str | None) -> str | None:
    """A next step for a shell: replaces the reason's own next step, alone or at the beginning, by that of `steps`.

    Nothing was applied there, so the advice to use another job name becomes: run the same command again.
    """
    general = NEXT_STEP.get(reason)
    if general and step and step.startswith(general):
        step = steps.get(reason, general) + step.removeprefix(general)
    if not step or "in a cluster" in step:
        return step
    return step.replace(f"a{_ANOTHER_JOB}", f"r{_AGAIN}").replace(f"A{_ANOTHER_JOB}", f"R{_AGAIN}")


def is_short_of_memory(error: BaseException) -> bool:
    """Whether the host's memory was not enough, as Python, the system, its loader or torch's allocator report it.

    A thread may fail to start because its stack has no room, or because there are too many: the former only if the
    address space is limited.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    said = str(error)
    if isinstance(error, RuntimeError) and "can't start new thread" in said:
        return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    return isinstance(error, RuntimeError | ImportError) and _SHORT_OF_MEMORY.search(said) is not None


def is_short_of_device_memory(error: BaseException) -> bool:
    """Whether a GPU's memory was not enough, as torch's allocator or the libraries beside it report it.

    The driver, its libraries and Triton allocate memory of their own, and raise generic errors if torch or another
    process has it all. Matched by name and text, so that torch need not be imported.
    """
    names = {kind.__name__ for kind in type(error).mro() if kind.__module__.startswith("torch")}
    if "OutOfMemoryError" in names:
        return True
    return isinstance(error, RuntimeError) and _SHORT_OF_DEVICE_MEMORY.search(str(error)) is not None


def places(error: ValidationError) -> str:
    """Which fields do not match the model. Without their values, which may be confidential."""
    return ", ".join(".".join(map(str, one["loc"])) or "all of it" for one in error.errors())
