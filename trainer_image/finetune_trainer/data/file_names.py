"""What the name of a dataset file reveals before it is read: whether it can be a file of rows at all.

Reports what reading would report about the name. Does not check whether the file exists or what is in it.
"""

import re

from finetune_api.dataset import DataFile
from finetune_api.reasons import Reason
from finetune_api.verdict import SplitName
from finetune_trainer.data.files.formats import data_format
from finetune_trainer.data.read import dataset_uri
from finetune_trainer.errors import TrainerError

_PATTERN = re.compile(r"[*]|\{[^{}]*,[^{}]*\}|\[[0-9A-Za-z]-[0-9A-Za-z]\]")
_ON_A_DISK = ("pvc", "file")
"""Schemes where a trailing slash means a folder; object stores drop it."""

_IN_A_FOLDER = "Name one file of rows in the uri, not the folder that it is in."


def require_rows(data: DataFile, split: SplitName) -> list[str]:
    """Refuse a name that cannot be read, whatever the file holds; returns warnings about names that look like patterns.

    Raises:
        TrainerError: SpecInvalid, with the field and what to write.
    """
    uri, field = dataset_uri(data, split, allow_local=True), f"spec.dataset.{split}"
    if uri.scheme in _ON_A_DISK and uri.path.endswith("/"):
        message = f"{field}.uri: {uri.file_name}/ is a folder, not a file"
        raise TrainerError(Reason.SPEC_INVALID, message, _IN_A_FOLDER)
    try:
        data_format(uri.file_name, data.format, field)
    except TrainerError as error:
        if "." in uri.file_name:
            raise
        step = f"{_IN_A_FOLDER} If it is a file without an ending: {error.next_step}"
        raise TrainerError(error.reason, error.message, step) from error
    if not _PATTERN.search(uri.path):
        return []
    return [f"{field}.uri: {uri.file_name} is read as the name of one file, and patterns are not read as such"]
