"""`spec.code` on its way to a provider that runs our trainer: a ConfigMap's files packed into one file, and back.

ConfigMap ─▶ pod of the check ─▶ operator ─▶ the provider's store ─▶ training container
pack, named by its hash                                 unpack
"""

import base64
import binascii
import hashlib
import shutil
from pathlib import Path

import orjson
from pydantic import ValidationError

from finetune_api.job import FineTuneJobSpec
from finetune_api.names import CONFIG_MAPS_PATH
from finetune_api.reasons import Reason
from finetune_api.sagemaker import OwnCode
from finetune_trainer.data.provider.file import ConvertedFile
from finetune_trainer.errors import TrainerError


def no_key(config_map: str, key: str, folder: Path) -> TrainerError:
    """SpecInvalid: the ConfigMap mounted at the folder lacks the key; names the keys that it has."""
    there = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    others = f"; it has {', '.join(there[:8])}" if there else ""
    message = f"spec.code: ConfigMap {config_map} has no key {key}{others}"
    step = "Put the code into the ConfigMap under that key and set spec.retryNonce, or name another key in a new job."
    return TrainerError(Reason.SPEC_INVALID, message, step)


def pack(spec: FineTuneJobSpec, scratch: Path, mounted: Path = Path(CONFIG_MAPS_PATH)) -> ConvertedFile:
    """All keys of the ConfigMap with the job's code, in a file whose bytes depend on them alone.

    Raises:
        TrainerError: SpecInvalid, the ConfigMap lacks the key to run, or has one that cannot be a file name.
    """
    if spec.code is None:
        raise ValueError("only a job with code has some to pack")
    name, key = spec.code.config_map_ref.name, spec.code.config_map_ref.key
    folder = mounted / name
    # The kubelet keeps the actual files in folders whose names begin with two dots.
    keys = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if key not in {path.name for path in keys}:
        raise no_key(name, key, folder)
    try:
        code = OwnCode(files={path.name: base64.b64encode(path.read_bytes()).decode() for path in keys})
    except ValidationError as error:
        wrong = ", ".join(sorted({str(one["loc"][1]) for one in error.errors()}))
        step = "Rename it: keys of code begin with a letter, a digit or an underscore."
        raise TrainerError(Reason.SPEC_INVALID, f"spec.code: ConfigMap {name}: {wrong} is not a name", step) from None
    content = orjson.dumps(code.wire(), option=orjson.OPT_SORT_KEYS) + b"\n"
    path = scratch / "code.json"
    path.write_bytes(content)
    return ConvertedFile("code", path, len(content), hashlib.sha256(content).hexdigest(), tokens=0)


def unpack(file: Path, folder: Path) -> None:
    """Write the files into `folder`, replacing its contents.

    Raises:
        TrainerError: SpecInvalid, the file contains no code.
    """
    try:
        code = OwnCode.model_validate_json(file.read_bytes())
        contents = {name: base64.b64decode(text, validate=True) for name, text in code.files.items()}
    except (ValidationError, binascii.Error) as error:
        step = "Start the job by the operator, which fills the channels."
        raise TrainerError(Reason.SPEC_INVALID, f"{file.name} holds no code", step) from error
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
