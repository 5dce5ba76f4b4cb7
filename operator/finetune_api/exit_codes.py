"""Exit codes of `finetune-trainer`. The code alone tells the reason if no message was received."""

from enum import IntEnum

from finetune_api.reasons import Reason


class ExitCode(IntEnum):
    """64 to 78 follow sysexits.h; the shell's own codes (1, 2, 126 and up) are not used."""

    OK = 0
    CRASHED = 1
    """An unexpected exception: a bug."""
    USAGE = 2
    """argparse's own: a wrong flag."""
    DATASET_INVALID = 65
    """Rows that cannot be used."""
    DATASET_NOT_FOUND = 66
    MODEL_NOT_FOUND = 67
    """Neither in the cache nor on the hub, if that may be used."""
    SERVICE_UNAVAILABLE = 69
    """A store or a hub did not answer: worth another attempt."""
    ARTIFACT_FAILED = 73
    """The artifact or a checkpoint could not be written completely."""
    INTERRUPTED = 75
    """SIGTERM: a checkpoint was written, from which the next attempt resumes."""
    ACCESS_DENIED = 77
    SPEC_INVALID = 78
    OUT_OF_MEMORY = 79
    """The accelerator's memory; the kernel's OOM killer gives 137."""
    TRAINING_DIVERGED = 80
    """The loss is not a finite number."""
    MODEL_UNUSABLE = 81
    """The base model exists but cannot be tuned or served by this image."""
    CODE_FAILED = 82
    """The user's own code failed, or produced no model that can be served."""
    INSUFFICIENT_MEMORY = 84
    """The job does not fit into this device's memory: it was not started, or the optimizer found no room."""
    GPU_UNAVAILABLE = 85
    """The pod requests GPUs and cannot use any, or one failed during the training."""
    BUDGET_EXCEEDED = 90
    PRICE_UNKNOWN = 91
    PROVIDER_REFUSED = 92
    """The provider does not accept the files; the message says why."""


REASON_OF_EXIT_CODE = {
    ExitCode.DATASET_INVALID: Reason.DATASET_INVALID,
    ExitCode.DATASET_NOT_FOUND: Reason.DATASET_NOT_FOUND,
    ExitCode.MODEL_NOT_FOUND: Reason.MODEL_NOT_IN_CACHE,
    ExitCode.SERVICE_UNAVAILABLE: Reason.STORE_UNAVAILABLE,
    ExitCode.ARTIFACT_FAILED: Reason.ARTIFACT_FAILED,
    ExitCode.INTERRUPTED: Reason.INTERRUPTED,
    ExitCode.ACCESS_DENIED: Reason.ACCESS_DENIED,
    ExitCode.SPEC_INVALID: Reason.SPEC_INVALID,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.TRAINING_DIVERGED: Reason.TRAINING_DIVERGED,
    ExitCode.MODEL_UNUSABLE: Reason.MODEL_UNUSABLE,
    ExitCode.CODE_FAILED: Reason.CODE_FAILED,
    ExitCode.INSUFFICIENT_MEMORY: Reason.INSUFFICIENT_MEMORY,
    ExitCode.GPU_UNAVAILABLE: Reason.GPU_UNAVAILABLE,
    ExitCode.BUDGET_EXCEEDED: Reason.BUDGET_EXCEEDED,
    ExitCode.PRICE_UNKNOWN: Reason.PRICE_UNKNOWN,
    ExitCode.PROVIDER_REFUSED: Reason.PROVIDER_REFUSED,
}
