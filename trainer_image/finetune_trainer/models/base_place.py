"""Where the base model is: in the cache, or fetched from its hub where the job may ask that."""

import os
from pathlib import Path

from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_fetch import fetch, in_hub_cache
from finetune_trainer.models.model_cache import find_model, is_safe_name, not_in_cache
from finetune_trainer.storage.durable import damage
from finetune_trainer.storage.store_errors import TRUST_STEP, UNTRUSTED


def locate(job: TrainerJob) -> Path:
    """The folder of the job's base model: in the cache, else fetched from the hub where the job may ask it.

    Must come before the first import of transformers: it decides whether that may reach a hub.

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
        if error.reason != Reason.STORE_UNAVAILABLE or not job.model_cache:
            raise
        why = error.message.removeprefix(f"{name} ")
        message = f"{not_in_cache(job.model_cache, name).message}; and it {why}"
        step = (
            TRUST_STEP
            if UNTRUSTED in why
            else (
                "Put the model into the model cache with `finetune-trainer cache` (where there is no network from a "
                "folder, an archive or a GGUF file), or open the way to the hub; then try again."
            )
        )
        raise TrainerError(error.reason, message, step) from error


def cached(cache: Path | str, name: str) -> Path | None:
    """The folder of a model in the cache, None where it has none of that name.

    Raises:
        TrainerError: ModelUnusable, it is there and not whole by its own manifest; SpecInvalid.
    """
    folder = find_model(cache, name)
    problem = damage(folder) if folder is not None else None
    if problem is None:
        return folder
    message = f"{problem}: {name} is incomplete or damaged in the model cache"
    step = f"Have it put there again (finetune-trainer cache {name}), and try again (in a cluster by spec.retryNonce)."
    raise TrainerError(Reason.MODEL_UNUSABLE, message, step)


def stay_offline() -> None:
    """From here on no library may reach a hub: all that the run needs is in folders."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
