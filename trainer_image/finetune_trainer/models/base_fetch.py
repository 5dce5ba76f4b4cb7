"""Fetches a base model from a hub, into the hub's own cache or a folder, with retries for a while."""

import errno
import os
import re
from functools import partial
from http import HTTPStatus
from pathlib import Path

from finetune_api.base_models import is_safe_name
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.model_cache import no_name
from finetune_trainer.storage.patience import PATIENCE_SECONDS, retried
from finetune_trainer.storage.store_errors import TRUST_STEP, UNTRUSTED, status_of, why_unreachable

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)

_MORE_ROOM = (
    "Have the model put into the model cache (finetune-trainer cache), or make room for it (in a cluster on the pod's "
    "own disk, by a job with more spec.resources.ephemeralStorage)."
)

_ANOTHER_KEY = (
    "Put a token that may read the model into the Secret that spec.hubTokenSecretRef names (at a shell: HF_TOKEN), and "
    "try again (in a cluster by spec.retryNonce)."
)

_XET = (
    "Open the way to it as well (at huggingface.co: *.hf.co and *.xethub.hf.co), or put the model into the "
    "model cache (finetune-trainer cache); then try again (in a cluster by spec.retryNonce)."
)

_OS_ERROR = re.compile(r"\(os error (\d+)\)")

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]
"""Files to fetch from a hub: weights without pickle, config, tokenizer."""


def fetch(name: str, revision: str | None = None, into: Path | None = None) -> Path:
    """Fetch a model from the hub, into the hub's own cache or a folder. Uses HF_TOKEN and HF_ENDPOINT.

    Raises:
        TrainerError: ModelNotInCache (the hub has none of that name), AccessDenied, StoreUnavailable, ArtifactFailed
            (disk full), SpecInvalid.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    if not is_safe_name(name):
        raise no_name(name)
    place = into or Path(HF_HUB_CACHE)
    attempt = partial(_fetched, name, revision, into, place)
    return retried(attempt, PATIENCE_SECONDS, progress=lambda: _complete_files(place))


def _fetched(name: str, revision: str | None, into: Path | None, place: Path) -> Path:
    """One attempt. Complete files are kept for the next one."""
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        if into and any(into.iterdir()):
            # If the hub is down, snapshot_download would take the files left by an earlier attempt for all of them.
            HfApi().model_info(name, revision=revision)
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES, local_dir=into))
    except HFValidationError as error:  # a cache may have a model with such a name, a hub cannot
        raise no_name(name) from error
    except GatedRepoError as error:
        raise TrainerError(
            Reason.ACCESS_DENIED,
            f"{name} is gated: the hub wants a token of somebody who accepted its terms",
            "Put such a token into a Secret and name it in spec.hubTokenSecretRef.",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise TrainerError(
            Reason.MODEL_NOT_IN_CACHE,
            f"{name} is neither in the model cache nor on the hub",
            "Check the spelling of spec.baseModel; a private model needs spec.hubTokenSecretRef.",
        ) from error
    except (OSError, httpx.HTTPError, RuntimeError) as error:  # RuntimeError is from the Xet client
        if why := _disk_error(error):
            message = f"{name} could not be stored in {place}: {why}"
            raise TrainerError(Reason.ARTIFACT_FAILED, message, None if into else _MORE_ROOM) from error
        raise _network_error(name, error) from error


def _disk_error(error: Exception) -> str | None:
    """What is wrong with this machine's disk, if anything. Xet's client mentions it only in its message."""
    numbers = (getattr(error, "errno", None), *map(int, _OS_ERROR.findall(str(error))))
    return next((os.strerror(number) for number in numbers if number in _DISK_ERRORS), None)


def _complete_files(folder: Path) -> int:
    """Number of complete files."""
    return sum(not path.name.endswith((".incomplete", ".lock")) for path in folder.rglob("*"))


def in_hub_cache(name: str) -> Path | None:
    """What the hub's client fetched to this machine earlier. Makes no network call."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):  # the latter: an invalid name for a hub
        return None


def _network_error(name: str, error: Exception) -> TrainerError:
    status = status_of(error)
    if status in _DENIED:
        message = f"{name}: the hub does not let it be read (status {status})"
        return TrainerError(Reason.ACCESS_DENIED, message, _ANOTHER_KEY)
    if isinstance(error, RuntimeError):
        message = f"{name} could not be fetched: the hub's storage of large files (Xet) did not answer"
        return TrainerError(Reason.STORE_UNAVAILABLE, message, _XET)
    why = f"status {status}" if status else why_unreachable(error)
    message = f"{name} could not be fetched: the hub did not answer ({why})"
    return TrainerError(Reason.STORE_UNAVAILABLE, message, TRUST_STEP if why == UNTRUSTED else None)
