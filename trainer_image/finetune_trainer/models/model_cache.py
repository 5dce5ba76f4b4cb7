"""Base models in a model cache: DIR/ORG/NAME/, a plain folder whose manifest is written last.

Does not fill the cache (`cache.py` does) and imports no torch: `check`, `train` and `serve` use it to find models.
"""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from finetune_api.base_models import is_safe_name, step_for
from finetune_api.reasons import Reason
from finetune_api.words import counted
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.durable import special_file_in


def model_path(cache: Path, name: str) -> Path:
    """The folder for `name` in the cache, whether or not it exists.

    Raises:
        TrainerError: SpecInvalid, the name could point outside the cache.
    """
    if not is_safe_name(name):
        raise no_name(name)
    return cache / name


def no_name(name: str) -> TrainerError:
    """The error for an invalid model name."""
    return TrainerError(Reason.SPEC_INVALID, f"spec.baseModel: {name!r} is not a name of a model", step_for(name))


def is_air_gapped() -> bool:
    """Whether HF_HUB_OFFLINE keeps Hugging Face's libraries off the hub; accepts the same values as they do."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def find_model(cache: Path | str, name: str) -> Path | None:
    """The folder of a cached model, or None if the cache has no model of that name.

    A folder without a manifest counts if it has a config.json: admins may mount caches that they filled by hand. So
    does the folder of an adapter: the code that loads it will report that it is not a model.

    Raises:
        TrainerError: AccessDenied, the user may not read all of it; ModelUnusable, one of its files is a dangling
            link, a pipe or a device; SpecInvalid.
    """
    folder = model_path(Path(cache), name)
    _require_readable(folder, name)
    if folder.is_dir():
        require_files(folder)
    return folder if any((folder / file).is_file() for file in ("config.json", "adapter_config.json")) else None


_FILE_STEP = (
    "Put the file itself there, or remove what is there if it is not part of the model. Try again then (in a "
    "cluster by spec.retryNonce)."
)
_WHOLE = (
    "Have it put there whole: finetune-trainer cache, or cp -rL of a snapshot of Hugging Face's cache, whose files are "
    "links into its folder blobs; or mount the cache with that folder. Try again then (in a cluster by retryNonce)."
)


def _require_readable(folder: Path, name: str) -> None:
    """Fails early, because libraries report an unreadable file as missing, or crash."""
    try:
        closed = next((path for path in (folder, *folder.iterdir()) if not os.access(path, os.R_OK)), None)
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        closed = folder
    if closed is not None and closed.is_symlink() and not closed.exists():
        message = f"{name}: {closed} in the model cache is a link to {closed.readlink()}, which is not there"
        raise TrainerError(Reason.MODEL_UNUSABLE, message, _WHOLE)
    if closed is not None:
        step = f"Ask an admin to let everybody read the model cache, or user {os.geteuid()} (chmod -R a+rX)."
        message = f"{name}: {closed} in the model cache does not let it be read (Permission denied)"
        raise TrainerError(Reason.ACCESS_DENIED, message, f"{step} Then try again (in a cluster by spec.retryNonce).")


def require_files(folder: Path) -> None:
    """Refuse a folder with a pipe, a socket or a device: some libraries block on it, others ignore it.

    Raises:
        TrainerError: ModelUnusable.
    """
    if (other := special_file_in(folder)) is not None:
        message = f"the model in {folder} cannot be used: {other.name} is a pipe or a device, not a file"
        raise TrainerError(Reason.MODEL_UNUSABLE, message, _FILE_STEP)


def models_in(cache: Path | str) -> list[str]:
    """Names of all models in the cache, sorted."""
    return sorted(_names(Path(cache), depth=3)) if Path(cache).is_dir() else []


def not_in_cache(cache: Path | str | None, name: str) -> TrainerError:
    """The error for a missing model, with the most similar names in the cache."""
    if cache is None:
        return TrainerError(Reason.MODEL_NOT_IN_CACHE, f"{name} is not available: there is no model cache and no hub")
    there = models_in(cache)
    near = _nearest(name, there)
    hint = f"it has {counted(len(there), 'model')}, none with a name like that" if there else "the cache is empty"
    if near:
        hint = f"it has {', '.join(near)}"
    return TrainerError(Reason.MODEL_NOT_IN_CACHE, f"{name} is not in the model cache; {hint}")


def _nearest(name: str, there: list[str]) -> list[str]:
    by_lower = {other.lower(): other for other in there}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    last = name.rsplit("/", 1)[-1].lower()
    same_last = [other for other in by_lower if other.rsplit("/", 1)[-1] == last]
    return [by_lower[other] for other in dict.fromkeys([*same_last, *close])][:3]


def _names(folder: Path, depth: int, prefix: str = "") -> Iterator[str]:
    for child in folder.iterdir():
        if child.name.startswith(".") or not child.is_dir() or not os.access(child, os.R_OK | os.X_OK):
            continue
        if (child / "config.json").is_file():
            yield prefix + child.name
        elif depth > 1:
            yield from _names(child, depth - 1, f"{prefix}{child.name}/")
