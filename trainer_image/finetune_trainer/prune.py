"""`finetune-trainer prune FOLDER... --root DIR`: deletes output folders that nothing uses any more.

What is used is the operator's knowledge; here each folder only has to lie inside the root.
"""

import argparse
import shutil
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_trainer import outcome
from finetune_trainer.durable import write_errors
from finetune_trainer.errors import TrainerError


def main(args: argparse.Namespace) -> int:
    """Delete the folders, or none of them where one lies outside the root."""
    try:
        doomed = [inside(folder, args.root) for folder in args.folders]
        for folder in doomed:
            delete(folder)
    except TrainerError as error:
        outcome.complain(error)
        return int(error.exit_code)
    return int(ExitCode.OK)


def inside(folder: Path, root: Path) -> Path:
    """The folder without symbolic links on its way, once it is known to lie inside the root, and not to be it.

    Raises:
        TrainerError: SpecInvalid.
    """
    real, real_root = folder.parent.resolve() / folder.name, root.resolve()
    if folder.name in ("", ".", "..") or real_root not in real.parents:
        raise TrainerError(
            Reason.SPEC_INVALID, f"{folder} is not inside {root}", "Nothing was deleted. Name folders inside --root."
        )
    return real


def delete(folder: Path) -> None:
    """Delete a folder, a file, or a link (never what it leads to). One that is gone already is fine.

    Raises:
        TrainerError: ArtifactFailed.
    """
    with write_errors(folder):
        if folder.is_symlink() or folder.is_file():
            folder.unlink(missing_ok=True)
        elif folder.exists():
            shutil.rmtree(folder)
