"""spec.artifact.push: pushes a complete artifact to a registry or a hub. A failed push loses nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

from finetune_api.names import HUB_TOKEN_VARIABLE, REGISTRY_KEYS_VARIABLE
from finetune_api.push import Push, Pushed, PushToRegistry
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.output.hub import push_to_hub
from finetune_trainer.output.registry import PushError, Reference, Registry, entries_of, keys_for

_SAID = 300  # characters: two of them must fit into a termination message


def require_keys(push: Push | None) -> None:
    """Refuse, before the training, credentials that cannot work after it. Only pods have the Secret's text.

    Raises:
        TrainerError: SpecInvalid.
    """
    if push and push.oci and push.oci.secret_ref and REGISTRY_KEYS_VARIABLE in os.environ:
        _require_entry(push.oci, push.oci.secret_ref.name, os.environ[REGISTRY_KEYS_VARIABLE])
    if push and push.hugging_face and not os.environ.get(HUB_TOKEN_VARIABLE, "-").strip():
        key = push.hugging_face.token_secret_ref
        message = f"spec.artifact.push.huggingFace.tokenSecretRef: the key {key.key} of Secret {key.name} is empty"
        raise TrainerError(
            Reason.SPEC_INVALID,
            message,
            "Put a token into it that may write, and try again (in a cluster by spec.retryNonce).",
        )


def _require_entry(asked: PushToRegistry, secret: str, config: str) -> None:
    host = Reference.parse(asked.uri).host
    try:
        if keys_for(host, config) is not None:
            return
        others = ", ".join(sorted(entries_of(config))) or "no registry"
        message = f"Secret {secret} has credentials for {others}, and none for {host}"
    except PushError as error:
        message = f"Secret {secret}: {error}"
    step = (
        f"Delete it and create it again: kubectl create secret docker-registry {secret} --docker-server={host} "
        "--docker-username=… --docker-password=…; then try again (in a cluster by spec.retryNonce). A registry that "
        "asks for no keys needs no secretRef."
    )
    raise TrainerError(Reason.SPEC_INVALID, f"spec.artifact.push.oci.secretRef: {message}", step)


def push_all(push: Push | None, folder: Path) -> list[Pushed]:
    """Push the complete artifact in `folder` to each target; a target that already has it is left unchanged."""
    return [*_pushed(push, folder)] if push else []


def _pushed(push: Push, folder: Path) -> Iterator[Pushed]:
    if push.oci is not None:
        try:
            yield Pushed(target=push.oci.uri, revision=_to_registry(push.oci, folder))
        except PushError as error:
            step = "Check artifact.push.oci: uri, Secret, egress; then push it with `finetune-trainer push`."
            yield _failed(push.oci.uri, error, step)
    if push.hugging_face is not None:
        target = f"hf://{push.hugging_face.repository}"
        try:
            token = os.environ.get(HUB_TOKEN_VARIABLE, "").strip() or None
            yield Pushed(target=target, revision=push_to_hub(push.hugging_face, token, folder))
        except PushError as error:
            step = "Check artifact.push.huggingFace: repository, token, egress; then `finetune-trainer push`."
            yield _failed(target, error, step)


def _failed(target: str, error: PushError, step: str) -> Pushed:
    return Pushed(target=target, message=str(error)[:_SAID], next_step=step)


def _to_registry(asked: PushToRegistry, folder: Path) -> str:
    reference = Reference.parse(asked.uri)
    keys = keys_for(reference.host, os.environ.get(REGISTRY_KEYS_VARIABLE) or _own_docker_config())
    with Registry(reference, keys, plain_http=asked.plain_http) as registry:
        return registry.push(folder)


def _own_docker_config() -> str | None:
    """The config written by `docker login` on this machine; a pod has none."""
    folder = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
    path = Path(folder) / "config.json"
    return path.read_text(encoding="utf-8") if path.is_file() else None
