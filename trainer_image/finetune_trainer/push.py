"""`finetune-trainer push FOLDER --to URI`: pushes a complete artifact to a registry or a hub.

    finetune-trainer push FOLDER --to oci://REGISTRY/REPOSITORY:TAG | hf://OWNER/NAME

after a failed push, or for a version that was not pushed by its job.
"""

import argparse
import logging
from pathlib import Path

from finetune_api.base import SecretKeyRef
from finetune_api.exit_codes import ExitCode
from finetune_api.push import Push, Pushed, PushToHub, PushToRegistry
from finetune_api.reasons import Reason
from finetune_trainer.attempt import outcome
from finetune_trainer.errors import TrainerError
from finetune_trainer.output.pushes import push_all
from finetune_trainer.storage.durable import read_manifest

_KEYS = ("what `docker login` has left here", "HF_TOKEN or `hf auth login`")
"""Credentials for a registry and for the hub: there is no Secret here as for a job."""

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Push a folder and print its revision there."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        done = _push_one(_asked(args), args.folder)
        outcome.print_result(f"{done.target} is {done.revision}")
    except TrainerError as error:
        return outcome.complain(error)
    return ExitCode.OK


def _push_one(push: Push, folder: Path) -> Pushed:
    if read_manifest(folder) is None:
        message = f"{folder} is not a whole artifact"
        raise TrainerError(Reason.MODEL_UNUSABLE, message, "Name a folder that `finetune-trainer` wrote.")
    (done,) = push_all(push, folder)
    if done.message:
        step = f"Check the place behind --to, {_KEYS[push.oci is None]}, and the way there; then push again."
        raise TrainerError(Reason.STORE_UNAVAILABLE, f"{done.target}: {done.message}", step)
    return done


def _asked(args: argparse.Namespace) -> Push:
    """The flags as fields of a job's spec.

    Raises:
        TrainerError: SpecInvalid.
    """
    scheme, _, place = args.to.partition("://")
    try:
        if scheme == "oci":
            return Push(oci=PushToRegistry(uri=args.to, plain_http=args.plain_http))
        if scheme == "hf":
            unused = SecretKeyRef(name="unused", key="unused")  # the token is in the environment
            return Push(hugging_face=PushToHub(repository=place, private=not args.public, token_secret_ref=unused))
    except ValueError:
        logger.debug("--to has the wrong shape")
    raise TrainerError(
        Reason.SPEC_INVALID, f"--to {args.to}", "Write oci://REGISTRY/REPOSITORY:TAG or hf://OWNER/NAME."
    )
