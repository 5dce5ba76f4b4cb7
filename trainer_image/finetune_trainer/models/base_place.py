"""Locates the base model: in the cache, or fetched from its hub if the job may use one."""

import os
from pathlib import Path

from finetune_api.base_models import is_safe_name
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_api.trainer import TrainerJob
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_fetch import fetch, in_hub_cache
from finetune_trainer.models.model_cache import find_model, not_in_cache
from finetune_trainer.storage.durable import damage

_COMMAND = "with `finetune-trainer cache` (where there is no network from a folder, an archive or a GGUF file)"
_AGAIN = "or open the way to the hub; then try again (in a cluster by spec.retryNonce)."
_INTO_THE_CACHE = f"Put the model into the model cache {_COMMAND}, {_AGAIN}"
_INTO_A_CACHE = (
    f"Put the model into a model cache {_COMMAND} and name that: huggingFace.modelCache of the connection, at a shell "
    f"--model-cache; {_AGAIN}"
)


def locate(job: TrainerJob) -> Path:
    """The folder of the job's base model: in the cache, otherwise fetched from the hub if the job may use one.

    Must run before the first import of transformers, because it decides whether that may reach a hub.

    Raises:
        TrainerError: ModelNotInCache, AccessDenied, StoreUnavailable, SpecInvalid.
    """
    name = job.spec.base_model
    if job.model_cache:
        found = cached(job.model_cache, name)
    else:
        found = in_hub_cache(name) if job.air_gapped and is_safe_name(name) else None
    if found is None and job.air_gapped:
        raise not_in_cache(job.model_cache, name)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if job.air_gapped:
        stay_offline()
    if found is not None:
        return found
    try:
        return fetch(name)
    except TrainerError as error:
        if error.reason != Reason.STORE_UNAVAILABLE:
            raise
        raise _unreachable_hub(error, name, job.model_cache) from error


def _unreachable_hub(error: TrainerError, name: str, cache: str | None) -> TrainerError:
    """The error if the hub is unreachable and no cache has the model: a site without a hub needs one."""
    message = error.message
    if cache:
        message = f"{not_in_cache(cache, name).message}; and it {message.removeprefix(f'{name} ')}"
    if error.next_step != NEXT_STEP[error.reason]:
        return TrainerError(error.reason, message, error.next_step)
    return TrainerError(error.reason, message, _INTO_THE_CACHE if cache else _INTO_A_CACHE)


def cached(cache: Path | str, name: str) -> Path | None:
    """The folder of a model in the cache, None if it has no model of that name.

    Raises:
        TrainerError: ModelUnusable, it is incomplete by its own manifest; SpecInvalid.
    """
    folder = find_model(cache, name)
    problem = damage(folder) if folder is not None else None
    if problem is None:
        return folder
    message = f"{problem}: {name} is incomplete or damaged in the model cache"
    step = f"Have it put there again (finetune-trainer cache {name}), and try again (in a cluster by spec.retryNonce)."
    raise TrainerError(Reason.MODEL_UNUSABLE, message, step)


def stay_offline() -> None:
    """From now on no library may reach a hub: everything that the run needs is in folders."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
