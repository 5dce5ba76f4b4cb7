"""Checks that the GPUs requested for the pod are usable: on a CPU the job would take weeks while holding them.

Also frees their memory.
"""

import gc
import os
import warnings

from finetune_api.names import GPUS_VARIABLE
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError


def require() -> None:
    """Require a usable GPU if any were requested.

    Raises:
        TrainerError: GPUUnavailable, with the driver's message if there is one.
    """
    asked = os.environ.get(GPUS_VARIABLE)
    if not asked:
        return
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    why = "the image's torch is one for CPUs" if not _is_for_gpus() else "no driver is seen in the container"
    words = next((str(one.message).partition("\n")[0] for one in said), why)
    raise TrainerError(Reason.GPU_UNAVAILABLE, f"the pod has asked for {asked} GPUs and can use none: {words}"[:1000])


def empty_cache() -> None:
    """Free unused cached memory for allocations of other sizes; what an exception still references is not freed."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_for_gpus() -> bool:
    import torch

    return torch.version.cuda is not None or torch.version.hip is not None
