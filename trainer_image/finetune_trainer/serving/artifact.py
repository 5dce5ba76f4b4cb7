"""What is in the folder to serve: an adapter or a whole model; checks that it is complete.

Reads names, sizes and checksums, and a few numbers of a base model, but loads no weights. Pickled weights are refused:
loading them runs code.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from finetune_api.base_models import is_safe_name
from finetune_api.names import ARTIFACT_FOLDER, MANIFEST
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_fetch import fetch, in_hub_cache
from finetune_trainer.models.base_place import cached
from finetune_trainer.models.base_probe import BASE_PROBE, differs, probe
from finetune_trainer.models.model_cache import not_in_cache, require_files
from finetune_trainer.storage.durable import damage, read_manifest

_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_STEP = "Point --model at a folder that `finetune-trainer` wrote."
_GATED_STEP = (
    "Servers on a cluster have no token of a hub: have the base model put into the model cache (finetune-trainer "
    "cache), or tune with artifact.merge: true, which needs none. At a shell set HF_TOKEN."
)
_BASE_STEP = "Name the folder of the model cache with --model-cache, or let the base be fetched with --allow-hub."


@dataclass(frozen=True)
class Artifact:
    """The folders of a served model."""

    folder: Path
    base: Path
    """The folder of the whole model: an adapter's base, otherwise `folder` itself."""

    @property
    def is_adapter(self) -> bool:
        """Whether `folder` contains only an adapter for the base."""
        return self.folder != self.base

    @property
    def tokenizer(self) -> Path:
        """The folder with the tokenizer: the tuned model's, otherwise the base's."""
        own = any((self.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
        return self.folder if own else self.base

    @property
    def generation(self) -> Path:
        """The folder with generation_config.json: the tuned model's, otherwise the base's."""
        return self.folder if (self.folder / "generation_config.json").is_file() else self.base


def open_artifact(
    folder: Path,
    model_cache: Path | None,
    *,
    base: Path | None = None,
    all_checksums: bool = False,
    allow_hub: bool = False,
) -> Artifact:
    """Find the parts of the model in `folder`, and check them against its manifest, if any.

    `base` is the folder of an adapter's base model, if it should not be looked up by name.

    Raises:
        TrainerError: ModelNotInCache, the adapter's base is missing (also on the hub, if allowed); AccessDenied,
            StoreUnavailable, from the hub; ModelUnusable, the folder is not a model, is incomplete or damaged, or has
            only pickled weights.
    """
    if not folder.is_dir():
        raise _unusable(f"{folder} is not a folder")
    require_files(folder)
    problem = damage(folder, all_checksums=all_checksums)
    if problem is not None:
        raise _damaged(problem)
    if (folder / _ADAPTER_CONFIG).is_file():
        if not (folder / _ADAPTER_WEIGHTS).is_file():
            raise _unusable(f"{folder} has no {_ADAPTER_WEIGHTS}; pickled weights are not loaded")
        base = _given(base) if base else _base_of(folder, model_cache, allow_hub=allow_hub)
    elif (folder / "config.json").is_file():
        base = folder
    else:
        inner = folder / ARTIFACT_FOLDER
        step = f"Serve {inner}: that is the tuned model." if (inner / MANIFEST).is_file() else None
        raise _unusable(f"{folder} has neither {_ADAPTER_CONFIG} nor config.json, so it is not a model", step)
    require_files(base)
    if not any(base.glob("*.safetensors")):
        raise _unusable(f"{base} has no *.safetensors; pickled weights are not loaded")
    if base != folder:
        _require_same_base(folder, base)
    return Artifact(folder, base)


def _require_same_base(folder: Path, base: Path) -> None:
    """Refuse a base other than the one the adapter was tuned on, if its manifest has a probe of that."""
    known = (read_manifest(folder, verify=False) or {}).get(BASE_PROBE) or {}
    name = differs(known, probe(base, known)) if known else None
    if name is not None:
        raise _unusable(
            f"{base} is another model than the one of this name that {folder} was tuned on: its {name} differs",
            "Put the base model back as it was (finetune-trainer cache), or tune on the one that is there now.",
        )


def unpacked(folder: Path) -> Path:
    """The model in a folder unpacked by SageMaker: in archives of our trainer's output it is one level deeper."""
    inner = folder / ARTIFACT_FOLDER
    at_top = any((folder / name).is_file() for name in (_ADAPTER_CONFIG, "config.json"))
    return inner if inner.is_dir() and not at_top else folder


def _given(base: Path) -> Path:
    if not (base / "config.json").is_file():
        raise _unusable(f"{base} has no config.json, so it is not a model", "Name the base model's folder with --base.")
    return base


def _base_of(folder: Path, model_cache: Path | None, *, allow_hub: bool) -> Path:
    name = _base_name(folder / _ADAPTER_CONFIG)
    if Path(name).is_absolute():
        found = Path(name) if (Path(name) / "config.json").is_file() else None
    elif not is_safe_name(name):
        raise _unusable(f"{folder / _ADAPTER_CONFIG}: base_model_name_or_path {name!r} is not a name of a model")
    else:
        found = cached(model_cache, name) if model_cache else in_hub_cache(name)
    if found is not None:
        return found
    if allow_hub and not Path(name).is_absolute():
        return _from_hub(name)
    error = not_in_cache(model_cache, name)
    raise error if model_cache else TrainerError(error.reason, error.message, _BASE_STEP)


def _from_hub(name: str) -> Path:
    """Download an adapter's base. The usual next steps for access errors concern jobs, so servers get their own."""
    try:
        return fetch(name)
    except TrainerError as error:
        if error.reason not in (Reason.ACCESS_DENIED, Reason.MODEL_NOT_IN_CACHE):
            raise
        raise TrainerError(error.reason, error.message, _GATED_STEP) from error


def _base_name(path: Path) -> str:
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(f"{path} does not name its base model") from error
    if not isinstance(name, str) or not name:
        raise _unusable(f"{path}: base_model_name_or_path is empty")
    return name


def _damaged(problem: str) -> TrainerError:
    message = f"{problem}: the tuned model is incomplete or damaged"
    return TrainerError(Reason.MODEL_UNUSABLE, message, "Restore the folder from a backup, or run the job again.")


def _unusable(message: str, next_step: str | None = None) -> TrainerError:
    return TrainerError(Reason.MODEL_UNUSABLE, message, next_step or _STEP)
