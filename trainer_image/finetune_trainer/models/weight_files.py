"""A base model's files of weights, by their headers and index alone: which there are, and what is wrong with them.

But for `floats_of` no weights are read, and no torch. What the tensors mean is `model_shape.py`.
"""

import json
import re
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from finetune_trainer.storage import lfs

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"

_SOMEWHERE = "its safetensors"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of weights that are stored as they are, as safetensors names them."""
_BYTES = frozenset({"I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"})
_NO_REALS = frozenset({"BOOL", "I16", "U16", "I32", "U32", "I64", "U64", "C64"})
_HEADER_LIMIT = 100 * 2**20  # of safetensors itself

_STATE = re.compile(r"(.+\.weight)\.quant_state\.bitsandbytes__\w+")
_SCALES = re.compile(r"(weight|_proj)_scales?(_inv)?$|\.weight\.(nested_)?(absmax|quant_map)$")

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error)
"""What reading them raises where they are not what they should be."""


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load."""
    single, index = folder / _SINGLE, folder / _INDEX
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    return [folder / name for name in sorted(set(_index(folder).values()))]


def is_named(folder: Path) -> bool:
    """Whether there is a file that transformers would begin with."""
    return (folder / _SINGLE).is_file() or (folder / _INDEX).is_file()


def _index(folder: Path) -> dict[str, str]:
    """Which file has which tensor."""
    said = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    if not isinstance(said["metadata"], dict):  # transformers reads that first
        raise TypeError
    found: dict[str, str] = said["weight_map"]
    return found


def header(path: Path) -> dict[str, Any]:
    """Dtype and shape of each tensor of a file, by its name.

    Raises:
        OSError, ValueError, struct.error: it cannot be read, or has no header of safetensors.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _HEADER_LIMIT:
            raise ValueError(f"{path.name} has no header of safetensors")
        found: dict[str, Any] = json.loads(file.read(length))
    found.pop("__metadata__", None)
    return found


def entries_in(folder: Path) -> dict[str, Any]:
    """The same of all files that transformers would load.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, struct.error: they are not what they should be.
    """
    return {name: entry for path in weight_files(folder) for name, entry in header(path).items()}


def shapes_as_loaded(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of what the tensors of a file stand for: scales for none, and numbers that share a byte for each of them.

    bitsandbytes writes the shape of what it packs beside it; MXFP4's blocks are 32 numbers of 4 bits, outputs first.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, entry in sorted(header(path).items()):  # what is beside a matrix comes behind it
        shape = tuple(entry["shape"])
        if state := _STATE.fullmatch(name):
            found[state[1]] = tuple(json.loads(_content(path, entry))["shape"])
        elif name.endswith("_blocks") and len(shape) == 4:
            found[name.removesuffix("_blocks")] = shape[0], 2 * shape[2] * shape[3], shape[1]
        elif not _SCALES.search(name):
            found[name] = shape
    return found


def _content(path: Path, entry: dict[str, Any]) -> bytes:
    start, end = entry["data_offsets"]
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + length + start)
        return file.read(min(end - start, _HEADER_LIMIT))


def stored_in_bytes(folder: Path) -> str | None:
    """A matrix of weights whose numbers are stored in a byte each, or several in one; None where none is found."""
    return _stored_as(folder, _BYTES)


def stored_as_no_reals(folder: Path) -> str | None:
    """The same of whole numbers, truth values and complex numbers."""
    return _stored_as(folder, _NO_REALS)


def _stored_as(folder: Path, kinds: frozenset[str]) -> str | None:
    try:
        entries = entries_in(folder).items()
        return next((name for name, entry in entries if name.endswith("weight") and entry["dtype"] in kinds), None)
    except UNREADABLE:
        return None


def floats_of(folder: Path, but: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    """Each tensor of floats in the files, by its name, but those that are named; only one is in memory at a time."""
    from safetensors import safe_open

    for path in weight_files(folder):
        names = [name for name, entry in header(path).items() if entry["dtype"] in FLOATS and name not in but]
        with safe_open(path, framework="pt") as file:
            yield from ((name, file.get_tensor(name)) for name in names)


def file_of(folder: Path, tensor: str) -> str:
    """The file that has this tensor, for people."""
    try:
        return next((path.name for path in weight_files(folder) if tensor in header(path)), _SOMEWHERE)
    except UNREADABLE:
        return _SOMEWHERE


def promised_in(folder: Path, tensor: str) -> str:
    """The file that has this tensor by the index, for people."""
    try:
        return _index(folder).get(tensor, _SOMEWHERE)
    except UNREADABLE:
        return _SOMEWHERE


def unwritten(folder: Path, tensors: Collection[str]) -> bool:
    """Whether the index promises other tensors than these, which the files have.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: it is no index.
    """
    indexed = not (folder / _SINGLE).is_file() and (folder / _INDEX).is_file()
    return indexed and not _index(folder).keys() <= set(tensors)


def damaged(folder: Path) -> str | None:
    """The first file that is missing or not whole, in words; None where all are as their headers say."""
    try:
        files = weight_files(folder)
    except UNREADABLE:
        return f"{_INDEX} is not an index of files of weights"
    return next((wrong for path in files if (wrong := _wrong_with(path))), None)


def _wrong_with(path: Path) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    try:
        length = max((entry["data_offsets"][1] for entry in header(path).values()), default=0)
        with path.open("rb") as file:
            length += 8 + struct.unpack("<Q", file.read(8))[0]
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    except UNREADABLE:
        return lfs.problem(path) if lfs.is_pointer(path) else f"{path.name} has no header of safetensors"
    size = path.stat().st_size
    return None if size == length else f"{path.name} has {size} bytes, its header speaks of {length}"
