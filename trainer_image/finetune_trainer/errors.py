"""The trainer's one error type: what a person can cause and mend. Whatever else is raised is a bug (TrainerCrashed).

It does not print, report or exit: the commands do, with `failure()` and `exit_code`.
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
"""The next step where a folder holds what another job, or other data, left there."""

_SHORT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: can't allocate memory|shared object.*: Cannot allocate memory"
    r"|failed to map segment from shared object"
)
_SHORT_OF_DEVICE_MEMORY = re.compile(
    r"(CUDA|HIP) error: out of memory|Triton Error \[\w+\]: out of memory|STATUS_ALLOC_FAILED"
)

_ANOTHER_JOB, _AGAIN = "pply the job under a new name", "un the same command again"
"""Without their first letters, which may begin a sentence."""
_EXIT_CODE_OF_REASON = {reason: code for code, reason in REASON_OF_EXIT_CODE.items()}
_MESSAGE_LIMIT, _STEP_LIMIT = 4096, 1024  # of Failure's fields


class TrainerError(Exception):
    """A run that cannot go on, for a reason that the person who reads it can act on.

    `reason` has to be one that an exit code stands for (see REASON_OF_EXIT_CODE). `message` says what is wrong and
    where (field, file, line), never with text of the dataset. `next_step` is only given where this place knows better
    than the reason's own next step.
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
    """A next step for a shell: that of `steps` where the reason's own is all of it, or its beginning.

    Nothing was applied there: what a place says of its own for jobs, another name, is the same command once more.
    """
    general = NEXT_STEP.get(reason)
    if general and step and step.startswith(general):
        step = steps.get(reason, general) + step.removeprefix(general)
    if not step or "in a cluster" in step:
        return step
    return step.replace(f"a{_ANOTHER_JOB}", f"r{_AGAIN}").replace(f"A{_ANOTHER_JOB}", f"R{_AGAIN}")


def is_short_of_memory(error: BaseException) -> bool:
    """Whether the machine's own memory was not enough: by Python, the system, its loader or torch's allocator.

    A thread that does not start may lack room for its stack, or be one too many: the former only where room is limited.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    said = str(error)
    if isinstance(error, RuntimeError) and "can't start new thread" in said:
        return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    return isinstance(error, RuntimeError | ImportError) and _SHORT_OF_MEMORY.search(said) is not None


def is_short_of_device_memory(error: BaseException) -> bool:
    """Whether a GPU's memory was not enough: in the words of torch's allocator, or in those of what stands beside it.

    The driver, its libraries and Triton take memory of their own, and find none where torch or a neighbour has it all:
    for them it is one error of many. By name and by words, so that nobody need import torch who has not.
    """
    names = {kind.__name__ for kind in type(error).mro() if kind.__module__.startswith("torch")}
    if "OutOfMemoryError" in names:
        return True
    return isinstance(error, RuntimeError) and _SHORT_OF_DEVICE_MEMORY.search(str(error)) is not None


def places(error: ValidationError) -> str:
    """Where something does not fit its model: fields alone, for their values may be anybody's."""
    return ", ".join(".".join(map(str, one["loc"])) or "all of it" for one in error.errors())
