"""Validates a base model's config.json before any library uses it: the same in `check`, `train` and `serve`.

First what the file alone shows (`config_values.py`), then what contradicts the headers of its weights. Needs neither
torch nor transformers, which `check` does not have. What these report better themselves is left to them, and so are
models with their own code: their fields are unknown.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_api.job import FineTuneJobSpec
from finetune_trainer.data.tokenizer.tokenizer_config import STEP
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_refusals, kinds
from finetune_trainer.models.kinds import KNOWN
from finetune_trainer.models.validation import target_names
from finetune_trainer.models.validation.config_shapes import wrong_count, wrong_shapes
from finetune_trainer.models.validation.config_values import Fields, Invalid, shown, wrong_values
from finetune_trainer.models.validation.experts import wrong_experts
from finetune_trainer.models.validation.generation_file import wrong_generation
from finetune_trainer.models.validation.optional_tensors import surplus_tensors
from finetune_trainer.models.validation.required_tensors import first_missing, unwrapped, wrapped
from finetune_trainer.models.validation.tensor_names import placed
from finetune_trainer.models.weight_files import (
    FLOATS,
    UNREADABLE,
    entries_in,
    file_of,
    index_names_others,
    indexed_file,
)

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_EMBEDDINGS = re.compile(r"(.+\.)?(embed_tokens|wte|word_embeddings|embed_in|shared)\.weight")


def require(folder: Path, *, tuned: bool = True) -> None:
    """Raise unless config.json is valid and matches the model's other files.

    A folder without one passes: loading it will report that. Unless `tuned`, the model type is left to the server.

    Raises:
        TrainerError: ModelUnusable, with file and field.
    """
    if not (folder / _CONFIG).is_file():
        return
    config = _read(folder / _CONFIG)
    if config.get("auto_map", {}) != {}:
        if not isinstance(config["auto_map"], dict):
            raise _refusal(folder / _CONFIG, Invalid("auto_map", "is not an object"))
        return
    _require_config(folder, config, tuned=tuned)
    generation = folder / _GENERATION
    if generation.is_file():
        for wrong in wrong_generation(_read(generation)):
            raise _refusal(generation, wrong)


def _require_config(folder: Path, config: dict[str, Any], *, tuned: bool) -> None:
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    for wrong in wrong_values(config, text):
        raise _refusal(folder / _CONFIG, wrong)
    if tuned and (refused := kinds.why_not_by(config)):
        raise base_refusals.unusable(folder, *refused)
    for wrong in _contradictions(folder, text):
        raise _refusal(folder / _CONFIG, wrong)


def require_for(spec: FineTuneJobSpec, folder: Path) -> None:
    """The same for a job, including its target modules; a job's own code may treat such a file as it likes.

    Raises:
        TrainerError: ModelUnusable, or SpecInvalid.
    """
    if spec.code is None:
        require(folder)
        target_names.require(spec, folder)


def require_numbers(folder: Path, *, four_bits: bool) -> None:
    """Refuse weights whose dtypes would certainly be refused once they are loaded.

    Models with their own code are exempt.

    Raises:
        TrainerError: ModelUnusable.
    """
    config = _read(folder / _CONFIG)
    if config.get("auto_map", {}) == {}:
        base_refusals.require_tunable_numbers(folder, config.get("quantization_config"), four_bits=four_bits)


def require_for_own_code(folder: Path) -> None:
    """The same for a job's own code, which may start from weights stored in 4 bits; also checks the model type.

    Raises:
        TrainerError: ModelUnusable.
    """
    config = _read(folder / _CONFIG)
    classes = config.get("architectures") or []
    are_names = isinstance(classes, list) and all(isinstance(one, str) for one in classes)
    is_told = are_names and config.get("auto_map", {}) == {}
    if is_told and (refused := kinds.why_not_by(config)):
        raise base_refusals.unusable(folder, *refused)
    if isinstance(config.get("quantization_config"), dict):
        require_numbers(folder, four_bits=base_refusals.in_four_bits(folder))


def kind_of_its_own(folder: Path) -> str | None:
    """The type of a model that only its own code can load; None if transformers has it."""
    if not (folder / _CONFIG).is_file():
        return None
    config = _read(folder / _CONFIG)
    known = config["model_type"] in kinds.CAUSAL | kinds.ENCODER_DECODERS
    return config["model_type"] if config.get("auto_map") and not known else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        at = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise _unusable(path, f"is not JSON in UTF-8{at}") from None
    if not isinstance(found, dict):
        raise _unusable(path, "is not a JSON object")
    if path.name == _CONFIG and not isinstance(found.get("model_type"), str):
        raise _refusal(path, Invalid("model_type", "is missing" if "model_type" not in found else "is not text"))
    return found


def _refusal(path: Path, wrong: Invalid) -> TrainerError:
    return _unusable(path, f"{wrong.field} {wrong.why}")


def _unusable(path: Path, why: str) -> TrainerError:
    return base_refusals.unusable(path.parent, f"{path.name}: {why}", STEP)


def _contradictions(folder: Path, text: Fields) -> Iterator[Invalid]:
    """Contradictions with the files: each layer must have tensors, and each token an embedding.

    Damaged or missing files are ignored: loading them will report it.
    """
    try:
        entries = entries_in(folder)
        shapes = {name: entry["shape"] for name, entry in entries.items()}
        are_plain = all(entry["dtype"] in FLOATS for entry in entries.values())
    except UNREADABLE:
        return
    if index_names_others(folder, shapes):
        return
    yield from wrong_count(text, shapes, folder)
    known = text.get("model_type") in KNOWN and len({placed(name).layers for name in shapes} - {""}) == 1
    vocabulary, table = text.get("vocab_size"), next(filter(_EMBEDDINGS.fullmatch, shapes), None)
    if known and table and shapes[table] and vocabulary != shapes[table][0]:
        where = f"{table} in {file_of(folder, table)}"
        yield Invalid("vocab_size", f"is {vocabulary}, and {where} has {shapes[table][0]} rows")
    if are_plain and text.get("quantization_config") is None:
        yield from _missing_weights(folder, text, shapes)
        yield from wrong_experts(text, shapes, folder)
        yield from surplus_tensors(text, shapes, folder)
        yield from wrong_shapes(text, shapes, folder)


_UNWRAP = (
    "Save the model that is within the wrapper (model.module of a parallel one, model._orig_mod of torch.compile) by "
    "save_pretrained, or rename the tensors. Then apply the job under a new name, or have the cache filled again."
)


def _missing_weights(folder: Path, text: Fields, shapes: Mapping[str, Any]) -> Iterator[Invalid]:
    """Weights that every model of this type has, and that no file contains.

    Raises:
        TrainerError: ModelUnusable, only some layers lack it, or it has another name: then a file is wrong, not the
            config.
    """
    if name := wrapped(text, shapes):
        why = (f"{name} in {file_of(folder, name)} should be {unwrapped(name)}: the weights were saved with a wrapper "
               "that the model was trained in")  # fmt: skip
        raise base_refusals.unusable(folder, why, _UNWRAP)
    missing = first_missing(text, shapes)
    if missing is None:
        return
    if not missing.everywhere:
        why = f"its weights are incomplete: {missing.name} cannot be found in {indexed_file(folder, missing.name)}"
        raise base_refusals.unusable(folder, why, base_refusals.PUT_THERE_AGAIN)
    kind = text["model_type"]
    yield Invalid("model_type", f"is {shown(kind)}, and the files of weights have no {missing.name}, which every "
                f"{kind} has: they are those of another kind, or incomplete")  # fmt: skip
