"""`finetune-trainer prune FOLDER... --root DIR`: deletes output folders that are no longer used.

Folders are paths on a volume, or URIs of a store. The operator knows what is used; here each folder only has to be
inside the root.
"""

import argparse
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_api.trainer import StoreRef
from finetune_trainer.attempt import outcome
from finetune_trainer.errors import TrainerError
from finetune_trainer.fetch import require_store
from finetune_trainer.storage.durable import write_errors
from finetune_trainer.storage.store import Store


def main(args: argparse.Namespace) -> int:
    """Delete the folders, or none of them if one is outside the root."""
    try:
        deletions = [_deletion(str(folder), str(args.root), args.endpoint) for folder in args.folders]
        for folder, delete_one in zip(args.folders, deletions, strict=True):
            outcome.say(f"{folder} {'was deleted' if delete_one() else 'was not there'}")
    except TrainerError as error:
        return outcome.complain(error)
    return ExitCode.OK


def _deletion(folder: str, root: str, endpoint: str | None) -> Callable[[], bool]:
    if "://" not in folder:
        return partial(delete, inside(Path(folder), Path(root)))
    uri = inside_store(folder, root)
    return partial(delete_in_store, StoreRef(uri=uri, endpoint=endpoint))


def inside(folder: Path, root: Path) -> Path:
    """The folder's path without symbolic links, after a check that it is below the root.

    Raises:
        TrainerError: SpecInvalid.
    """
    real, real_root = folder.parent.resolve() / folder.name, root.resolve()
    if folder.name in ("", ".", "..") or real_root not in real.parents:
        raise _outside(str(folder), str(root))
    return real


def inside_store(folder: str, root: str) -> str:
    """The URI of a store's folder, after a check that it is below the root.

    Raises:
        TrainerError: SpecInvalid.
    """
    found = require_store(folder)
    if not found.startswith(f"{require_store(root)}/"):
        raise _outside(folder, root)
    return found


def delete(folder: Path) -> bool:
    """Delete a folder, a file, or a link (never its target). Returns False if it does not exist.

    Raises:
        TrainerError: ArtifactFailed.
    """
    with write_errors(folder):
        if folder.is_symlink() or folder.is_file():
            folder.unlink(missing_ok=True)
        elif folder.exists():
            shutil.rmtree(folder)
        else:
            return False
    return True


def delete_in_store(folder: StoreRef) -> bool:
    """Delete all objects below a folder. Returns False if there are none.

    Raises:
        TrainerError: as `Store` raises it.
    """
    store = Store(folder)
    objects = list(store.objects())
    store.remove(objects)
    return bool(objects)


def _outside(folder: str, root: str) -> TrainerError:
    return TrainerError(
        Reason.SPEC_INVALID, f"{folder} is not inside {root}", "Nothing was deleted. Name folders inside --root."
    )
