"""Pushes an artifact to a Hugging Face hub, in one commit. Files that quote the data are left out."""

import contextlib
from pathlib import Path

from finetune_api.push import PushToHub
from finetune_trainer.output.model_pack import pack
from finetune_trainer.output.registry import PushError
from finetune_trainer.storage.store_errors import status_of, why_unreachable

_REFUSALS = {
    401: "it does not accept the token, or there is none",
    403: "the token may not write to {repository}: it needs the right to write, and its owner a place in that account",
    413: "it is larger than the account may hold",
    429: "it has had too many requests: push later",
}


def push_to_hub(asked: PushToHub, token: str | None, folder: Path) -> str:
    """Push the complete artifact in `folder`; returns the commit. An identical repository is left unchanged.

    Raises:
        PushError: the hub refuses it, or the repository is public although it must be private.
    """
    try:
        return _commit(asked, token, folder)
    except PushError:
        raise
    except Exception as error:
        status = status_of(error)
        known = _REFUSALS.get(status or 0, type(error).__name__).format(repository=asked.repository)
        message = f"{known}, status {status}" if status else why_unreachable(error)
        raise PushError(f"the hub does not take it ({message})") from error


def _commit(asked: PushToHub, token: str | None, folder: Path) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=asked.endpoint_url, token=token)
    api.create_repo(asked.repository, private=asked.private, exist_ok=True)
    if asked.private and not api.model_info(asked.repository).private:
        raise PushError("the repository is public; set private: false to push to it all the same")
    with contextlib.ExitStack() as opened:
        # As open files, not paths: they go by LFS over HTTP, which every hub supports, not by the Xet client.
        files = [
            CommitOperationAdd(
                layer.name,
                layer.content if isinstance(layer.content, bytes) else opened.enter_context(layer.content.open("rb")),
            )
            for layer in pack(folder).layers
        ]
        return str(api.create_commit(asked.repository, files, commit_message="A tuned model").oid)
