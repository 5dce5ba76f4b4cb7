"""spec.artifact.push: a whole artifact goes to a registry or a hub as well. What goes wrong there loses nothing.

    finetune-trainer push FOLDER --to oci://REGISTRY/REPOSITORY:TAG | hf://OWNER/NAME

pushes one that is there already: after a push that failed, or for a version that nobody wanted elsewhere at first.
"""

import argparse
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from finetune_api.base import SecretKeyRef
from finetune_api.exit_codes import ExitCode
from finetune_api.names import HUB_TOKEN_VARIABLE, REGISTRY_KEYS_VARIABLE
from finetune_api.push import Push, Pushed, PushToHub, PushToRegistry
from finetune_api.reasons import Reason
from finetune_trainer import outcome
from finetune_trainer.durable import read_manifest
from finetune_trainer.errors import TrainerError
from finetune_trainer.hub import push_to_hub
from finetune_trainer.registry import PushError, Reference, Registry, keys_for

_SAID = 300  # letters: two of them have to fit into a pod's termination message

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Push a folder and say what it is called there."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        done = _push_one(_asked(args), args.folder)
        outcome.print_result(f"{done.target} is {done.revision}")
    except TrainerError as error:
        outcome.complain(error)
        return int(error.exit_code)
    return int(ExitCode.OK)


def _push_one(push: Push, folder: Path) -> Pushed:
    if read_manifest(folder) is None:
        message = f"{folder} is no whole artifact"
        raise TrainerError(Reason.MODEL_UNUSABLE, message, "Name a folder that `finetune-trainer` wrote.")
    (done,) = push_all(push, folder)
    if done.message:
        raise TrainerError(Reason.STORE_UNAVAILABLE, f"{done.target}: {done.message}", done.next_step)
    return done


def push_all(push: Push | None, folder: Path) -> list[Pushed]:
    """Push the whole artifact in `folder` to each place; a place that has it already is left as it is."""
    return [*_pushed(push, folder)] if push else []


def _pushed(push: Push, folder: Path) -> Iterator[Pushed]:
    if push.oci is not None:
        try:
            yield Pushed(target=push.oci.uri, revision=_to_registry(push.oci, folder))
        except PushError as error:
            step = "Check artifact.push.oci: uri, Secret, the way out; then push it with `finetune-trainer push`."
            yield _failed(push.oci.uri, error, step)
    if push.hugging_face is not None:
        target = f"hf://{push.hugging_face.repository}"
        try:
            token = os.environ.get(HUB_TOKEN_VARIABLE, "").strip() or None
            yield Pushed(target=target, revision=push_to_hub(push.hugging_face, token, folder))
        except PushError as error:
            step = "Check artifact.push.huggingFace: repository, token, the way out; then `finetune-trainer push`."
            yield _failed(target, error, step)


def _failed(target: str, error: PushError, step: str) -> Pushed:
    logger.warning("%s: %s. The artifact itself is whole.", target, error)
    return Pushed(target=target, message=str(error)[:_SAID], next_step=step)


def _to_registry(asked: PushToRegistry, folder: Path) -> str:
    reference = Reference.parse(asked.uri)
    keys = keys_for(reference.host, os.environ.get(REGISTRY_KEYS_VARIABLE) or _own_docker_config())
    with Registry(reference, keys, plain_http=asked.plain_http) as registry:
        return registry.push(folder)


def _own_docker_config() -> str | None:
    """What `docker login` has left on this machine; a pod has none."""
    folder = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
    path = Path(folder) / "config.json"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _asked(args: argparse.Namespace) -> Push:
    """The flags as a job would spell them.

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
