"""Loads a base model, causal or encoder-decoder, from its folder, or refuses it with a message and a next step.

Weights are loaded from safetensors only, and code only from transformers unless the job trusts the model's own.
Adapters, training and generation are elsewhere.
"""

import json
import logging
from pathlib import Path
from typing import Any

from finetune_trainer.computing import four_bit
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_refusals, kinds, loaded_weights
from finetune_trainer.models.base_refusals import (
    PUT_THERE_AGAIN,
    first_line,
    is_of_the_device,
    no_safetensors,
    unusable,
)
from finetune_trainer.models.corrected import (
    as_numbers,
    attention_of,
    correct_tied,
    set_untied,
    without_quantization,
)
from finetune_trainer.models.tokenizer_file import loaded
from finetune_trainer.models.validation import config_file
from finetune_trainer.models.weight_files import damaged

_FUSING_FAILED = "during automatic conversion of the weights"
"""Part of transformers' message for this error, which otherwise refers to a report that nobody sees."""
_CANNOT_FUSE = (
    "its weights cannot be put together as transformers has them: an expert, or a part of a matrix, is missing or has "
    "another shape than the others"
)

logger = logging.getLogger(__name__)


def quiet_libraries() -> None:
    """Disable progress bars for single files and warnings for developers: they clutter a run's log."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it complains about kernels that it would download
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|peft|accelerate|torch")


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The model's tokenizer; uses the EOS token for padding if it has none (rows are masked by length, never by id).

    Raises:
        TrainerError: ModelUnusable.
    """
    try:
        tokenizer = loaded(folder, trust_remote_code=trust_remote_code)
    except TrainerError:
        raise
    except Exception as error:
        raise unusable(folder, f"its tokenizer cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def empty_model(folder: Path, *, dtype: Any, tied: bool, trust_remote_code: bool = False) -> Any:
    """The language model in `folder` without its weights: they use no memory until they are filled in.

    `tied`: whether embeddings and output head are tied, on which files and config may disagree.

    Raises:
        TrainerError: ModelUnusable.
    """
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    config = require_language_model(folder, trust_remote_code=trust_remote_code)
    if not tied:
        set_untied(config)
    with init_empty_weights(include_buffers=False):
        model = _kind(config).from_config(
            config, dtype=dtype, trust_remote_code=trust_remote_code, **attention_of(config)
        )
    model.tie_weights()
    return model


def load_model(folder: Path, *, dtype: Any, trust_remote_code: bool = False, four_bits: bool = False) -> Any:
    """The language model in `folder`, in `dtype`, on the CPU; with `four_bits` quantized, on the training device.

    Raises:
        TrainerError: ModelUnusable: no language model, unknown architecture, no safetensors, damaged, inconsistent with
            its config, or with non-finite weights; SpecInvalid: it cannot be quantized here.
    """
    config = require_language_model(folder, trust_remote_code=trust_remote_code)
    quantization = getattr(config, "quantization_config", None)
    base_refusals.require_tunable_numbers(folder, quantization, four_bits=four_bits)
    as_numbers(config)
    extra = _quantised(dtype) if four_bits else {}
    try:
        model, found = _kind(config).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # transformers only logs them: `loaded_weights` reports them better
            **attention_of(config),
            **extra,
        )
    except Exception as error:
        if is_of_the_device(error):
            raise
        if getattr(config, "quantization_config", None):
            logger.warning("quantised weights could not be loaded: %s", first_line(error))
            raise _stored_quantised(folder, config) from error
        if damage := damaged(folder):
            raise unusable(folder, f"its weights are damaged: {damage}", PUT_THERE_AGAIN) from error
        if _FUSING_FAILED in str(error):
            raise unusable(folder, _CANNOT_FUSE, PUT_THERE_AGAIN) from error
        raise unusable(folder, f"it cannot be loaded: {first_line(error)}", _step_after(error)) from error
    loaded_weights.require_whole(folder, found)
    loaded_weights.require_no_rest(folder, model, found["unexpected_keys"])
    loaded_weights.require_sound(folder, model, found["unexpected_keys"], quantised=four_bits)
    correct_tied(model)
    if getattr(model, "is_quantized", False) and not (four_bits and getattr(model, "is_loaded_in_4bit", False)):
        raise _stored_quantised(folder, config)
    if four_bits:
        four_bit.prepare(model)
    elif getattr(config, "quantization_config", None):
        return without_quantization(model, dtype)
    return model


def _stored_quantised(folder: Path, config: Any) -> TrainerError:
    quantization = config.quantization_config
    return base_refusals.quantized_refusal(
        folder, quantization if isinstance(quantization, dict) else quantization.to_dict()
    )


def _step_after(error: Exception) -> str | None:
    files = isinstance(error, OSError | json.JSONDecodeError) or type(error).__name__ == "SafetensorError"
    return PUT_THERE_AGAIN if files else None


def _kind(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _quantised(dtype: Any) -> dict[str, Any]:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    four_bit.require_kernels(device)
    return {"quantization_config": four_bit.settings(dtype), "device_map": {"": device}}


def require_language_model(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Check config and file names, without loading weights. Returns transformers' config.

    Raises:
        TrainerError: ModelUnusable.
    """
    base_refusals.require_no_adapter(folder)
    config_file.require(folder)
    config = require_known_kind(folder, trust_remote_code=trust_remote_code)
    if not any(folder.glob("*.safetensors")):
        raise no_safetensors(folder)
    return config


def require_known_kind(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The config, of a model that can be evaluated and served. Does not check its files.

    Raises:
        TrainerError: ModelUnusable.
    """
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise unusable(
            folder, f"transformers {transformers.__version__} cannot read its configuration: {first_line(error)}"
        ) from error
    if refused := kinds.why_not(config, own_code=trust_remote_code):
        raise unusable(folder, *refused)
    return config
