"""`finetune-trainer fetch URI --to FOLDER`: downloads a tuned model from an object store and verifies its checksums.

Credentials come from the environment: FINETUNE_ARTIFACTS_AWS_ACCESS_KEY_ID and so on, otherwise from where the
provider's own tools look for them.
"""

import argparse
import logging
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from finetune_api.reasons import Reason
from finetune_api.trainer import StoreRef
from finetune_api.uris import UriError, parse_artifact_uri
from finetune_trainer.attempt import outcome
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage import artifact_store
from finetune_trainer.storage.durable import read_manifest, remove_unfinished
from finetune_trainer.storage.store import Store


def main(args: argparse.Namespace) -> int:
    """Download the model; afterwards the folder is complete or does not exist."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        store = Store(StoreRef(uri=require_store(args.uri), endpoint=args.endpoint))
        into = args.to.absolute()
        _require_replaceable(into)
        remove_unfinished(into.parent, into.name)
        artifact_store.fetch(store, "", into, sha256=args.sha256)
    except TrainerError as error:
        return outcome.complain(error)
    return ExitCode.OK


def _require_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that is not a model, whose files would be lost.

    Raises:
        TrainerError: SpecInvalid.
    """
    if folder.is_dir() and any(folder.iterdir()) and read_manifest(folder, verify=False) is None:
        message = f"--to {folder}: it holds other files, which would be lost"
        raise TrainerError(Reason.SPEC_INVALID, message, "Name a new or an empty folder.")


def require_store(uri: str) -> str:
    """The URI without its trailing slash, after a check that it is an object store's.

    Raises:
        TrainerError: SpecInvalid.
    """
    step = "Write s3://BUCKET/PATH, gs://BUCKET/PATH or abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH."
    try:
        found = parse_artifact_uri(uri)
    except UriError as error:
        raise TrainerError(Reason.SPEC_INVALID, f"{uri!r}: {error}", step) from error
    if found.is_claim or not found.path:
        raise TrainerError(Reason.SPEC_INVALID, f"{uri!r} is not a folder of an object store", step)
    return f"{found.scheme}://{found.root}/{found.path}"
