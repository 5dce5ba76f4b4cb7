"""Corrects what transformers gets wrong in a loaded model, and that would matter when it is saved."""

from typing import Any

from finetune_trainer.models.base_refusals import AS_NUMBERS


def correct_tied(model: Any) -> None:
    """Correct a config that says the output head is tied to the embeddings, if the file contains a separate head.

    Transformers follows the file, vLLM the config: for a saved whole model it would ignore the trained head. The
    forward pass of encoder-decoders depends on the field, so theirs is unchanged.
    """
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if not (model.config.is_encoder_decoder or head is None or getattr(head, "weight", None) is table.weight):
        set_untied(model.config)


def says_tied(model: Any) -> bool:
    """The current value in the config."""
    return bool(getattr(model.config.get_text_config(), "tie_word_embeddings", True))


def set_untied(whole: Any) -> None:
    """Set the field to false in a config and in its text part."""
    for config in (whole, whole.get_text_config()):
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False


def attention_of(config: Any) -> dict[str, Any]:
    """Loader arguments that override kernels named in a config, which suited the machine on which it was written.

    Kernels for attention and experts are chosen by what is available here: a missing one must not make the model
    unusable.
    """
    everywhere = {"attn_implementation": (None, "eager", "sdpa"), "experts_implementation": (None, "eager")}
    return {name: None for name, known in everywhere.items() if getattr(config, f"_{name}", None) not in known}


def as_numbers(config: Any) -> bool:
    """Have FP8 or MXFP4 weights dequantized when loaded, whatever kernels there are. Returns whether they are such."""
    quantization = getattr(config, "quantization_config", None)
    if quantization is None or quantization.get("quant_method") not in AS_NUMBERS:
        return False
    quantization["dequantize"] = True
    return True


def in_one_dtype(model: Any, dtype: Any) -> None:
    """Convert weights that were stored unquantized next to quantized ones: they load in their stored dtype.

    Matrix products need a single dtype, and full tuning would lose its small updates to rounding in 16 bits.
    """
    import torch

    attributes = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    exact = {name for field in attributes for name in getattr(model, field, None) or ()}
    for name, value in model.named_parameters():
        if isinstance(dtype, torch.dtype) and exact.isdisjoint(name.split(".")):
            value.data = value.data.to(dtype)


def without_quantization(model: Any, dtype: Any) -> Any:
    """The same weights in a model of the same type that was not loaded from quantized files (FP8, MXFP4).

    The loaded one would save them under the names of the quantized tensors, which nobody could load.
    """
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    in_one_dtype(model, dtype)
    with init_empty_weights(include_buffers=False):
        plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config, plain.name_or_path = model.generation_config, model.name_or_path
    return plain.eval()
