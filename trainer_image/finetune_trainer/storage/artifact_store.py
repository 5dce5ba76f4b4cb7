"""Finished artifacts in an object store: a folder of plain objects, of which the manifest was written last.

    …/JOB-UID/model-2/adapter_model.safetensors …, manifest.json      of attempt 2

Each attempt has its own folder, so that one that was given up but still writes cannot damage another one's.
Downloaded files are verified against the manifest.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from finetune_api.names import ARTIFACT_FOLDER, MANIFEST, artifact_folder
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.durable import is_within, move_away, read_manifest, sha256_of, unfinished, write_errors
from finetune_trainer.storage.store import Store

_DAMAGED_STEP = "Restore the objects from a backup or an older version of them, or run the job under a new name."
_ATTEMPT = re.compile(re.escape(ARTIFACT_FOLDER) + "-([0-9]+)")


def newest(store: Store) -> str | None:
    """The complete artifact of the newest attempt that has one, in a job's folder."""
    newest = max((_attempt_of(name) for name in store.objects() if name.endswith(f"/{MANIFEST}")), default=-1)
    return None if newest < 0 else artifact_folder(newest)


def keep(folder: Path, store: Store, name: str) -> None:
    """Upload a complete folder; it counts once its manifest is uploaded.

    Raises:
        TrainerError: as `Store` raises it.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for file in manifest["files"]:
        store.put(folder / file, f"{name}/{file}")
    store.put_last((folder / MANIFEST).read_bytes(), f"{name}/{MANIFEST}")


def forget_before(store: Store, name: str) -> None:
    """Delete the artifacts of attempts before that of artifact `name`."""
    for other in store.objects():
        if -1 < _attempt_of(other) < _attempt_of(name):
            store.remove([other])


def fetch(store: Store, name: str, into: Path, *, sha256: str | None = None) -> None:
    """Download an artifact to the folder `into`, atomically. Does nothing if it is already there.

    Args:
        store: the store.
        name: its folder in the store; "" for the store's root.
        into: the new folder.
        sha256: of its manifest, if known: another artifact is refused.

    Raises:
        TrainerError: ModelUnusable, it is missing, incomplete, damaged or a different one; ArtifactFailed, `into`
            cannot be written; as `Store` raises it.
    """
    prefix = f"{name}/" if name else ""
    text = store.get_bytes(f"{prefix}{MANIFEST}")
    files = _files(text, sha256)
    if into.is_dir() and read_manifest(into) is not None and (into / MANIFEST).read_bytes() == text:
        return
    staging = unfinished(into)
    with write_errors(into, "Ask for more scratch space."):
        try:
            for file, entry in files.items():
                (staging / file).parent.mkdir(parents=True, exist_ok=True)
                if not store.get(f"{prefix}{file}", staging / file):
                    raise _damaged(f"{file} is missing")
                if sha256_of(staging / file) != entry["sha256"]:
                    raise _damaged(f"{file} differs from its checksum")
            (staging / MANIFEST).write_bytes(text or b"")
            move_away(into)
            staging.rename(into)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _attempt_of(name: str) -> int:
    """The attempt of an artifact or of one of its objects; -1 for other objects."""
    found = _ATTEMPT.fullmatch(name.partition("/")[0])
    return int(found[1]) if found else -1


def _files(text: bytes | None, sha256: str | None) -> dict[str, dict[str, Any]]:
    if text is None:
        raise _damaged(f"it has no {MANIFEST}")
    if sha256 is not None and hashlib.sha256(text).hexdigest() != sha256:
        raise _damaged(f"its {MANIFEST} is not the one that the training left")
    try:
        files: dict[str, dict[str, Any]] = json.loads(text)["files"]
        safe = all(is_within(name) and {"bytes", "sha256"} <= set(entry) for name, entry in files.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        safe = False
    if not safe:
        raise _damaged(f"its {MANIFEST} cannot be read")
    return files


def _damaged(what: str) -> TrainerError:
    message = f"the tuned model in the store is incomplete or damaged: {what}"
    return TrainerError(Reason.MODEL_UNUSABLE, message, _DAMAGED_STEP)
