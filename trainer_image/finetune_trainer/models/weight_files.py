"""A base model's weight files, by their headers and index alone: which there are, and what is wrong with them.

Reads neither weights nor needs torch, except for `floats_of`. The meaning of tensors is in `model_shape.py`.
"""

import json
import re
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from finetune_trainer.storage import lfs

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"

_UNKNOWN_FILE = "its safetensors"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of unquantized weights, as named by safetensors."""
_BYTE_DTYPES = frozenset({"I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"})
_NON_REAL_DTYPES = frozenset({"BOOL", "I16", "U16", "I32", "U32", "I64", "U64", "C64"})
_HEADER_LIMIT = 100 * 2**20  # the limit of safetensors itself

_STATE = re.compile(r"(.+\.weight)\.quant_state\.bitsandbytes__\w+")
_SCALES = re.compile(r"(weight|_proj)_scales?(_inv)?$|\.weight\.(nested_)?(absmax|quant_map)$")

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error)
"""Exceptions from reading malformed files."""


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load."""
    single, index = folder / _SINGLE, folder / _INDEX
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    return [folder / name for name in sorted(set(_index(folder).values()))]


def is_named(folder: Path) -> bool:
    """Whether there is a file that transformers would start with."""
    return (folder / _SINGLE).is_file() or (folder / _INDEX).is_file()


def _index(folder: Path) -> dict[str, str]:
    """The index: tensor name to file name."""
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    if not isinstance(index["metadata"], dict):  # transformers reads this first
        raise TypeError
    found: dict[str, str] = index["weight_map"]
    return found


def header(path: Path) -> dict[str, Any]:
    """Dtype and shape of each tensor of a file, by name.

    Raises:
        OSError, ValueError, struct.error: it cannot be read, or has no safetensors header.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _HEADER_LIMIT:
            raise ValueError(f"{path.name} has no header of safetensors")
        found: dict[str, Any] = json.loads(file.read(length))
    found.pop("__metadata__", None)
    return found


def entries_in(folder: Path) -> dict[str, Any]:
    """The same for all files that transformers would load.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, struct.error: they are malformed.
    """
    return {name: entry for path in weight_files(folder) for name, entry in header(path).items()}


def shapes_as_loaded(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a file's tensors after dequantization, without scales.

    bitsandbytes stores the original shape next to a packed tensor; MXFP4's blocks are 32 4-bit numbers, outputs first.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, entry in sorted(header(path).items()):  # a matrix comes before its quantization state
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
    """A weight matrix whose numbers are stored in a byte or less each; None if there is none."""
    return _stored_as(folder, _BYTE_DTYPES)


def stored_as_non_reals(folder: Path) -> str | None:
    """The same for integers, booleans and complex numbers."""
    return _stored_as(folder, _NON_REAL_DTYPES)


def _stored_as(folder: Path, dtypes: frozenset[str]) -> str | None:
    try:
        entries = entries_in(folder).items()
        return next((name for name, entry in entries if name.endswith("weight") and entry["dtype"] in dtypes), None)
    except UNREADABLE:
        return None


def floats_of(folder: Path, but: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    """All floating-point tensors in the files with their names, except `but`; only one is in memory at a time."""
    from safetensors import safe_open

    for path in weight_files(folder):
        names = [name for name, entry in header(path).items() if entry["dtype"] in FLOATS and name not in but]
        with safe_open(path, framework="pt") as file:
            yield from ((name, file.get_tensor(name)) for name in names)


def file_of(folder: Path, tensor: str) -> str:
    """The file that contains this tensor, for messages."""
    try:
        return next((path.name for path in weight_files(folder) if tensor in header(path)), _UNKNOWN_FILE)
    except UNREADABLE:
        return _UNKNOWN_FILE


def indexed_file(folder: Path, tensor: str) -> str:
    """The file that should contain this tensor according to the index, for messages."""
    try:
        return _index(folder).get(tensor, _UNKNOWN_FILE)
    except UNREADABLE:
        return _UNKNOWN_FILE


def index_names_others(folder: Path, tensors: Collection[str]) -> bool:
    """Whether the index names tensors that are not among these, which the files contain.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: the index is malformed.
    """
    indexed = not (folder / _SINGLE).is_file() and (folder / _INDEX).is_file()
    return indexed and not _index(folder).keys() <= set(tensors)


def damaged(folder: Path) -> str | None:
    """The first file that is missing or truncated, in words; None if all match their headers."""
    try:
        files = weight_files(folder)
    except UNREADABLE:
        return f"{_INDEX} is not an index of files of weights"
    return next((wrong for path in files if (wrong := _damage(path))), None)


def _damage(path: Path) -> str | None:
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
