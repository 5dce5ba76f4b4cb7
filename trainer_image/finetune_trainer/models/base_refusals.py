"""Refusals of base models that cannot be used at all, or not as the job asks, with next steps."""

import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_api.job import Hyperparameters
from finetune_api.reasons import Reason
from finetune_trainer.computing.ranks import is_lost_rank
from finetune_trainer.data.row_limit import row_limit
from finetune_trainer.data.tokenizer.chat_tokenizer import is_encoder_decoder, positions_in
from finetune_trainer.errors import TrainerError, is_short_of_device_memory, is_short_of_memory
from finetune_trainer.models.weight_files import damaged, file_of, is_named, stored_as_non_reals, stored_in_bytes

logger = logging.getLogger(__name__)

PUT_THERE_AGAIN = (
    "A file of weights is missing, damaged or not whole: have the model put into the cache again (finetune-trainer "
    "cache), and try again (in a cluster by spec.retryNonce)."
)

_NO_SAFETENSORS = (
    "it has no weights in safetensors; pickled ones (.bin, .pt) are not loaded: they can run code",
    "Name another revision or model with safetensors; whoever trusts the file has transformers write them: "
    "AutoModelForCausalLM.from_pretrained('FOLDER').save_pretrained('FOLDER'). Then apply the job under a new name.",
)
"""The reason, and the next step."""

PLAIN_WEIGHTS = "Name the model with weights of 16 or 32 bits, and apply the job under a new name."

_LORA = f"Set method: LoRA, which tunes it as numbers of 16 bits. Or: {PLAIN_WEIGHTS}"

_ROW_LIMIT = "hyperparameters.maxSequenceLength"
_BITSANDBYTES = "bitsandbytes"
_BITS = {"load_in_4bit": "4 bits", "load_in_8bit": "8 bits"}
AS_NUMBERS = frozenset({"fp8", "mxfp4", "mxfp8"})
"""Quantization methods whose weights are dequantized when loaded."""
NEVER_TUNED = frozenset({
    "aqlm", "auto-round", "awq", "bitnet", "compressed-tensors", "eetq", "fbgemm_fp8", "fouroversix", "fp_quant",
    "gemma", "gguf", "gptq", "higgs", "hqq", "metal", "nvfp4", "quanto", "quark", "sinq", "spqr", "torchao", "vptq",
})  # fmt: skip
"""Quantization methods whose weights stay quantized when loaded."""
_PICKLED = ("*.bin", "*.pt", "*.pth")
_GGUF = "*.gguf"

OTHER_NUMBERS = (
    "Set hyperparameters.precision: Float32, have the model put into the cache again (finetune-trainer cache), or name "
    "another one, and apply the job under a new name."
)

_OTHER_MODEL_STEP = (
    "Name another base model, or use a trainer image in which that one works, and apply the job under a new name."
)


def unusable(folder: Path, why: str, next_step: str | None = None) -> TrainerError:
    """The error for a base model that cannot be used."""
    return TrainerError(Reason.MODEL_UNUSABLE, f"the model in {folder} cannot be used: {why}", next_step)


def no_safetensors(folder: Path) -> TrainerError:
    """The error for a model whose weights are in other formats, or missing."""
    written = next(iter(sorted(folder.glob(_GGUF))), None)
    if written is None:
        return unusable(folder, *_NO_SAFETENSORS)
    step = (
        f"Have it written from that file: finetune-trainer cache NAME --from-gguf {written.name}. Then try again (in a "
        "cluster by spec.retryNonce)."
    )
    return unusable(folder, f"it has no weights in safetensors, but {written.name}", step)


@contextmanager
def in_words(folder: Path, what: str) -> Iterator[None]:
    """Convert errors of the model's own code, or of a library below it, while doing `what`. Never shows rows.

    Nobody knows all model types, nor what their next version will need: whether one works is found out by trying.

    Raises:
        TrainerError: ModelUnusable. Errors of memory, devices and other ranks are not the model's fault and pass.
    """
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:
        if is_of_the_device(error) or is_lost_rank(error):
            raise
        logger.warning("%s failed", what, exc_info=error)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        raise unusable(
            folder, f"{what} fails in its own code ({where}: {first_line(error)})", _OTHER_MODEL_STEP
        ) from error


def is_of_the_device(error: Exception) -> bool:
    """Whether it is due to lack of memory or a failed GPU. By name: some callers run without torch."""
    short = is_short_of_device_memory(error) or is_short_of_memory(error)
    return short or any(kind.__name__ == "AcceleratorError" for kind in type(error).mro())


def first_line(error: Exception) -> str:
    """The first line of a library's message; the exception's name if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines or isinstance(error, KeyError):  # whose message is only the key
        return " ".join([type(error).__name__, *lines])[:400]
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])[:400]


def require_whole_files(folder: Path) -> None:
    """Refuse missing or truncated weight files by their headers, without reading weights.

    A folder without any passes: the tokenizer alone is enough for counting tokens.

    Raises:
        TrainerError: ModelUnusable.
    """
    if not any(folder.glob("*.safetensors")):
        if any(found for pattern in (*_PICKLED, _GGUF) for found in folder.glob(pattern)):
            raise no_safetensors(folder)
        return
    if not is_named(folder):
        why = "its weights are damaged: neither model.safetensors nor an index of its parts is there"
        raise unusable(folder, why, PUT_THERE_AGAIN)
    if wrong := damaged(folder):
        raise unusable(folder, f"its weights are damaged: {wrong}", PUT_THERE_AGAIN)


def require_no_adapter(folder: Path) -> None:
    """Refuse an adapter alone, and one next to weights, which transformers would load although nobody asked for it.

    Raises:
        TrainerError: ModelUnusable.
    """
    try:
        adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        adapter = {}
    named = adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
    with_weights = (folder / "config.json").is_file()
    what = "there is an adapter next to its weights" if with_weights else "it is an adapter, and no model"
    first = "Take the adapter out of the folder, or name" if with_weights else "Name"
    step = f"{first} what it is on{f' ({str(named)[:100]})' if named else ''}, or a model that it is merged into"
    raise unusable(folder, f"{what} (adapter_config.json)", f"{step}; apply the job under a new name.")


def require_plain_numbers(folder: Path) -> None:
    """Refuse weights in 8 bits or fewer without a description of their encoding: they would be read as plain numbers.

    Raises:
        TrainerError: ModelUnusable.
    """
    if name := stored_as_non_reals(folder):
        raise unusable(
            folder, f"{name} in {file_of(folder, name)} is stored as numbers that are not weights", PLAIN_WEIGHTS
        )
    if name := stored_in_bytes(folder):
        why = f"{name} is stored in 8 bits or fewer, and config.json has no quantization_config that says how"
        raise unusable(folder, why, PLAIN_WEIGHTS)


def require_tunable_numbers(folder: Path, quantization: Mapping[str, Any] | None, *, four_bits: bool) -> None:
    """Refuse weights that cannot be tuned in their stored form; `quantization` is config.json's quantization_config.

    `four_bits`: the job trains in 4 bits, so the model may be stored in 4 bits, but in no other quantized form. Unknown
    methods are ignored by transformers, which then reads the weights as plain numbers.

    Raises:
        TrainerError: ModelUnusable.
    """
    quantization = quantization or {}
    how = quantization.get("quant_method", _BITSANDBYTES if quantization else None)
    in_bits = {name for name in _BITS if quantization.get(name) is True} if how == _BITSANDBYTES else set()
    if how in NEVER_TUNED or in_bits - ({"load_in_4bit"} if four_bits else set()):
        raise quantized_refusal(folder, quantization)
    if how in AS_NUMBERS and four_bits:
        raise quantized_refusal(folder, quantization, _LORA)
    if how not in {*AS_NUMBERS, _BITSANDBYTES}:
        require_plain_numbers(folder)


def quantized_refusal(folder: Path, quantization: Mapping[str, Any], next_step: str = PLAIN_WEIGHTS) -> TrainerError:
    """The error for weights that cannot be tuned in their stored form."""
    bits = next((f" in {words}" for field, words in _BITS.items() if quantization.get(field)), "")
    how = f"{quantization.get('quant_method', 'nobody says how')}{bits}"
    return unusable(folder, f"its weights are stored quantised ({how}), in a way that cannot be tuned here", next_step)


def require_tokens(model: Any, folder: Path, largest_id: int) -> None:
    """Refuse a tokenizer that does not fit the model: a token without an embedding would fail the first step.

    Raises:
        TrainerError: ModelUnusable.
    """
    require_known(folder, largest_id, len(model.get_input_embeddings().weight))  # an adapter knows no num_embeddings


def require_known(folder: Path, largest_id: int, known: int) -> None:
    """The same for a model with `known` tokens.

    Raises:
        TrainerError: ModelUnusable.
    """
    if largest_id >= known:
        raise unusable(folder, f"its tokenizer gives token {largest_id}, but it knows only {known} tokens")


def require_positions(folder: Path, model: Any, length: int, what: str = _ROW_LIMIT) -> None:
    """Refuse rows longer than the model's table of positions: it would fail at the first such row.

    `what` names the origin of the length.

    Raises:
        TrainerError: SpecInvalid.
    """
    _require_room(folder, position_table_size(model), length, what)


def require_room_for(hyper: Hyperparameters, folder: Path) -> None:
    """The same for an encoder-decoder's files, without loading it. A causal model's rows may all be shorter anyway.

    Raises:
        TrainerError: SpecInvalid.
    """
    if is_encoder_decoder(folder):
        _require_room(folder, known := positions_in(folder), row_limit(hyper, known), _ROW_LIMIT)


def _require_room(folder: Path, known: int | None, length: int, what: str) -> None:
    if known is not None and length > known:
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"{what}: {length} is more than the {known} tokens that the model in {folder} can hold",
            f"Set maxSequenceLength to {known} or less and apply the job under a new name.",
        )


def position_table_size(model: Any) -> int | None:
    """Size of the model's table of positions; None if it computes positions, so that any number will do."""
    known: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    sizes = {value.shape[0] for name, value in model.named_buffers() if name.endswith("embed_positions")}
    for name, module in model.named_modules():
        if "position" in name or name.endswith("wpe"):
            sizes.add(getattr(module, "num_embeddings", 0) - getattr(module, "offset", 0))
    return known if known in sizes else None


def require_plain_weights(folder: Path) -> None:
    """Refuse to merge adapters into quantized weights: QLoRA can train on them, but adding to them loses precision.

    Raises:
        TrainerError: SpecInvalid.
    """
    if _is_quantised(json.loads((folder / "config.json").read_text(encoding="utf-8"))):
        raise TrainerError(
            Reason.SPEC_INVALID,
            f"artifact.merge: the weights in {folder} are stored quantised, and nothing is merged into such",
            "Leave artifact.merge out, or name the model with weights of 16 bits, and apply the job under a new name.",
        )


def in_four_bits(folder: Path) -> bool:
    """Whether bitsandbytes stored the weights in 4 bits, which then stay so when loaded."""
    quantization = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
    return quantization.get("quant_method") == _BITSANDBYTES and quantization.get("load_in_4bit") is True


def _is_quantised(config: Mapping[str, Any]) -> bool:
    """Whether the config, or a part of it, describes quantized weights; null means that they are not."""
    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    return any(part.get("quantization_config") is not None for part in parts)
