"""What transformers leaves wrong in a model that it has just loaded, and that would show when it is saved."""

from typing import Any

from finetune_trainer.models.base_refusals import AS_NUMBERS


def say_what_is_tied(model: Any) -> None:
    """Correct a configuration that calls the output head tied to the embeddings where the file has one of its own.

    Transformers goes by the file, vLLM by the configuration: of a whole model that is saved with it, it would pass over
    the head that was trained. The forward pass of encoder-decoders depends on that word, so theirs stays.
    """
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if not (model.config.is_encoder_decoder or head is None or getattr(head, "weight", None) is table.weight):
        say_that_nothing_is_tied(model.config)


def says_tied(model: Any) -> bool:
    """What the configuration says of it by now."""
    return bool(getattr(model.config.get_text_config(), "tie_word_embeddings", True))


def say_that_nothing_is_tied(whole: Any) -> None:
    """Correct that word in a configuration and the part of it that is about text."""
    for config in (whole, whole.get_text_config()):
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False


def attention_of(config: Any) -> dict[str, Any]:
    """What a loader is told where a configuration names kernels of the machine on which it was written.

    By which a model attends, and computes its experts, is chosen by what is here: one that is not must not make the
    model unusable.
    """
    everywhere = {"attn_implementation": (None, "eager", "sdpa"), "experts_implementation": (None, "eager")}
    return {name: None for name, known in everywhere.items() if getattr(config, f"_{name}", None) not in known}


def as_numbers(config: Any) -> bool:
    """Have weights in FP8 or MXFP4 loaded as what they stand for, whatever kernels are here; whether they are such."""
    said = getattr(config, "quantization_config", None)
    if said is None or said.get("quant_method") not in AS_NUMBERS:
        return False
    said["dequantize"] = True
    return True


def in_one_dtype(model: Any, dtype: Any) -> None:
    """Correct weights that were not quantised, beside such that were: they are as stored, and not as they were wanted.

    Layers do not multiply two kinds of numbers, and full tuning would round its steps away in those of 16 bits.
    """
    import torch

    told = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    exact = {name for field in told for name in getattr(model, field, None) or ()}
    for name, value in model.named_parameters():
        if isinstance(dtype, torch.dtype) and exact.isdisjoint(name.split(".")):
            value.data = value.data.to(dtype)


def as_if_never_quantised(model: Any, dtype: Any) -> Any:
    """The same weights in a model of its kind that was not read from quantised ones, as FP8 and MXFP4 are.

    The one that was would save them by the names of what they were made of, and nobody could load that.
    """
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    in_one_dtype(model, dtype)
    with init_empty_weights(include_buffers=False):
        plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config, plain.name_or_path = model.generation_config, model.name_or_path
    return plain.eval()
