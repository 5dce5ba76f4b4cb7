"""`finetune-trainer cache MODEL`: puts a base model into a model cache, from hub, folder, archive or GGUF file.

The model ends up as DIR/ORG/NAME/: safetensors, configuration, tokenizer, and a manifest that is written last. A model
that is already complete is left alone. Looking models up is in `model_cache.py`.
"""

import argparse
import fcntl
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer.attempt import outcome, pod_log
from finetune_trainer.data import ChatTokenizer
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_fetch, base_model
from finetune_trainer.models.model_cache import model_path
from finetune_trainer.storage.archive import unpack
from finetune_trainer.storage.durable import UNFINISHED, read_manifest, remove_unfinished, whole_folder, write_errors

_WANTED = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py", "LICENSE*", "NOTICE*")
"""What is copied from a folder: never pickled weights (.bin, .pt, .pth, .ckpt)."""

_NEXT_STEP = {
    Reason.ACCESS_DENIED: "Set HF_TOKEN to a token that may read the model.",
    Reason.STORE_UNAVAILABLE: "Check the network and HF_ENDPOINT, or carry the model in: --from-folder, --from-archive "
    "or --from-gguf.",
    Reason.ARTIFACT_FAILED: "Make room there, or name a folder that you may write to with --model-cache.",
}
"""Next steps for a shell, where the reason's own next step assumes a job."""


def main(args: argparse.Namespace) -> int:
    """Cache one model; the exit code says why that failed."""
    os.environ.update(pod_log.without_bars())
    try:
        folder = cache(args)
    except TrainerError as error:
        return outcome.complain(outcome.with_next_step(error, _NEXT_STEP))
    outcome.say(f"{args.model} is in the model cache: {folder}")
    return ExitCode.OK


def cache(args: argparse.Namespace) -> Path:
    """Put the model into the cache unless it is complete there; returns its folder.

    Raises:
        TrainerError: SpecInvalid (the name), ModelUnusable, ModelNotInCache (not on the hub), AccessDenied,
            StoreUnavailable, ArtifactFailed (the cache cannot be written).
    """
    final = model_path(args.model_cache, args.model)
    if read_manifest(final) is not None:  # before any write: the cache may be read-only here
        return final
    with _exclusively(final, args.model):
        remove_unfinished(final.parent, final.name)  # of this model only: others of the owner may be in progress
        return final if read_manifest(final) is not None else _fetch_into_cache(args, final)


def _fetch_into_cache(args: argparse.Namespace, final: Path) -> Path:
    with _source(args, final) as (source, origin), whole_folder(final, model=args.model, **origin) as folder:
        if args.from_gguf:
            _convert_gguf(source, folder)
        else:
            _copy(_model_folder(source, given=args.from_folder or args.from_archive or source), folder)
        with _errors_named(args.model, folder):
            _require_usable(folder)
    return final


@contextmanager
def _exclusively(final: Path, model: str) -> Iterator[None]:
    """Serialise writers of the same model: later ones wait and then find it there. Volumes without locks do not wait.

    The kernel drops the lock when the process ends, however it ends.
    """
    path = final.parent / f".{final.name}.lock"
    with ExitStack() as stack:
        with write_errors(final, _NEXT_STEP[Reason.ARTIFACT_FAILED]):
            final.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = stack.enter_context(path.open("w"))
                _lock(file, model)
                if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    break  # otherwise the previous holder has unlinked the file
        stack.callback(path.unlink, missing_ok=True)
        yield


def _lock(file: IO[str], model: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        outcome.say(f"{model} is on its way into the model cache already: waiting for it.")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        outcome.say(f"The model cache has no locks ({error.strerror}): let nothing else bring {model} meanwhile.")


@contextmanager
def _errors_named(model: str, folder: Path) -> Iterator[None]:
    """Replace the folder by the model's name in errors: the temporary folder is deleted with them."""
    try:
        yield
    except TrainerError as error:
        message = error.message.replace(f"the model in {folder}", model)
        raise TrainerError(error.reason, message, error.next_step) from error


@contextmanager
def _source(args: argparse.Namespace, final: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder or file to take the model from, and what the manifest records about its origin.

    Downloaded and unpacked files are kept beside the target: a pod's /tmp is too small for a model.
    """
    given = args.from_folder or args.from_gguf or args.from_archive
    if given is not None:
        _require_source(given, folder=args.from_folder is not None)
    if args.from_folder or args.from_gguf:
        yield given, {"source": "gguf" if args.from_gguf else "folder"}
        return
    with write_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch_folder = tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}{final.name}-", dir=final.parent)
    with scratch_folder as scratch, write_errors(final):
        if args.from_archive:
            unpack(args.from_archive, Path(scratch))
            yield Path(scratch), {"source": "archive"}
        else:
            base_fetch.fetch(args.model, revision=args.revision, into=Path(scratch))
            yield Path(scratch), {"source": "hub", "revision": args.revision}


def _require_source(given: Path, *, folder: bool) -> None:
    if not given.exists():
        raise TrainerError(Reason.MODEL_NOT_IN_CACHE, f"{given} does not exist", "Name a file or folder that exists.")
    if not (given.is_dir() if folder else given.is_file()):
        step = "a file with --from-archive" if folder else "a file: a pipe can be read only once"
        if given.is_dir():
            step = "a folder with --from-folder"
        raise TrainerError(Reason.MODEL_UNUSABLE, f"{given} is not a {'folder' if folder else 'file'}", f"Give {step}.")
    if not os.access(given, os.R_OK):
        raise TrainerError(
            Reason.MODEL_UNUSABLE, f"{given} may not be read by this user", "Correct the rights of the file or folder."
        )


def _model_folder(source: Path, given: Path) -> Path:
    """The folder with config.json: the source itself, or the one folder in it that has it, up to three deep."""
    depths = (sorted(source.glob("*/" * depth + "config.json")) for depth in range(4))
    found = [path.parent for path in next(filter(None, depths), [])]
    if len(found) != 1:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{given.name} has {'no' if not found else 'more than one'} folder with a config.json",
            "Give the folder that from_pretrained would take, or an archive of it.",
        )
    return found[0]


def _copy(source: Path, target: Path) -> None:
    """Copy the files that a model needs. Follows links, which a hub cache consists of."""
    for pattern in _WANTED:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)
            elif not path.is_dir():
                is_what = "a pipe or a device" if path.exists() else "a link that leads nowhere"
                raise TrainerError(
                    Reason.MODEL_UNUSABLE,
                    f"{path.name} of the model is {is_what}, not a file",
                    "Put the file itself there, or remove what is there if it is not part of the model.",
                )


def _convert_gguf(source: Path, target: Path) -> None:
    """Convert a GGUF file to an ordinary folder: dequantised float32 weights, tokenizer, chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base_model.quiet_libraries()
    where, name = str(source.resolve().parent), source.name
    try:
        with _read_once():
            tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
            quantised = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype="float32")
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
        raise TrainerError(Reason.MODEL_UNUSABLE, f"{name} cannot be converted: {line}") from error
    config = quantised.config
    # Otherwise the folder would claim to be quantised.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=quantised.dtype)  # type: ignore[no-untyped-call]
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = quantised.generation_config
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


@contextmanager
def _read_once() -> Iterator[None]:
    """Read the GGUF file once, and build the table of its tensors' names once.

    transformers reads the whole vocabulary again for tokenizer, configuration and weights, and builds the table again
    for each module: together half of the time of a conversion.
    """
    import gguf

    before = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, make in before.items():
            setattr(gguf, name, functools.cache(make))
        yield
    finally:
        for name, make in before.items():
            setattr(gguf, name, make)


def _require_usable(folder: Path) -> None:
    """Keep models out of the cache that jobs could not use."""
    base_model.require_language_model(folder)
    ChatTokenizer.from_folder(folder)
    base_model.load_tokenizer(folder)
    _require_all_shards(folder)
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as tensors:
                tensors.keys()
        except Exception as error:
            raise TrainerError(
                Reason.MODEL_UNUSABLE,
                f"{path.name} is damaged: {type(error).__name__}",
                "Copy or fetch the model again.",
            ) from error


def _require_all_shards(folder: Path) -> None:
    """Check for missing shards by the index: an interrupted copy may consist of complete files."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return
    try:
        wanted = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = next((name for name in wanted if not (folder / Path(name).name).is_file()), None)
    except FileNotFoundError:
        missing = "model.safetensors, or its index,"
    except (ValueError, KeyError, TypeError, AttributeError):
        missing = f"what {index.name} should list"
    if missing is not None:
        raise TrainerError(
            Reason.MODEL_UNUSABLE, f"the model is incomplete: {missing} is missing", "Copy or fetch the model again."
        )
