"""config.json of a base model, looked at before any library makes a model of it: `check`, `train` and `serve` alike.

Libraries take numbers that no model can have for what they are: a billion layers are made, one by one, and a padding
token outside of the vocabulary ends in an assertion. No torch, no transformers: `check` has neither. What they say
better by themselves is left to them, and so are models that bring their own code: nobody knows their fields.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_api.job import FineTuneJobSpec
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_refusals, kinds, target_names
from finetune_trainer.models.config_shapes import wrong_count, wrong_shapes
from finetune_trainer.models.config_types import wrong_parts, wrong_types
from finetune_trainer.models.config_words import Fields, Wrong, is_whole, shown, wrong_words
from finetune_trainer.models.experts import wrong_experts
from finetune_trainer.models.generation_file import wrong_generation
from finetune_trainer.models.kind_options import left_out
from finetune_trainer.models.kind_parts import first_missing, unwrapped, wrapped
from finetune_trainer.models.kinds import KNOWN
from finetune_trainer.models.tensor_names import placed
from finetune_trainer.models.weight_files import (
    FLOATS,
    UNREADABLE,
    file_of,
    header,
    promised_in,
    unwritten,
    weight_files,
)

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_STEP = (
    "Correct it there, or have the model put into the cache again (finetune-trainer cache), and try again (in a "
    "cluster by spec.retryNonce)."
)

_SIZES = frozenset({
    "hidden_size", "d_model", "n_embd", "vocab_size", "num_hidden_layers", "num_layers", "n_layer", "n_layers",
    "num_decoder_layers", "decoder_layers", "encoder_layers", "num_attention_heads", "num_heads", "n_head", "n_heads",
    "decoder_attention_heads", "encoder_attention_heads",
})  # fmt: skip
"""Fields of which there is no model without at least one; some kinds have a list of them, one for each layer."""
_NEEDED = frozenset({"hidden_size", "vocab_size", "num_hidden_layers"})
"""Of these what nothing else can say, where the name is there."""
_COUNTS = frozenset({"num_key_value_heads", "intermediate_size", "d_ff", "d_kv", "head_dim", "n_inner"})
"""Fields that a kind without such a part has as nothing, or as 0."""
_HEADS_OF: dict[str, tuple[tuple[str, str], ...]] = {
    **dict.fromkeys(("gpt2", "gptj"), (("n_embd", "n_head"),)),
    **dict.fromkeys(
        ("bart", "blenderbot", "pegasus"),
        (("d_model", "encoder_attention_heads"), ("d_model", "decoder_attention_heads")),
    ),
    "bloom": (("hidden_size", "n_head"),),
    "gpt_neo": (("hidden_size", "num_heads"),),
}
"""Fields of kinds whose heads part the width of the model, where these are not those of Llama."""
_TOKENS = ("eos_token_id", "pad_token_id", "decoder_start_token_id")
_UNPADDED = frozenset({
    "bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "longt5", "mpt", "mt5", "t5",
    "umt5",
})  # fmt: skip
_PADDED = KNOWN - _UNPADDED
"""Kinds whose table of embeddings knows its padding token, and is not made where it has none such."""
_NUMBERS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "initializer_range")
_PARTS = ("attention_dropout", "attn_pdrop", "dropout", "dropout_rate", "embd_pdrop", "hidden_dropout", "resid_pdrop")
_TRUTHS = (
    "attention_bias", "is_encoder_decoder", "mlp_bias", "output_attentions", "output_hidden_states", "return_dict",
    "tie_word_embeddings", "use_cache",
)  # fmt: skip
_OBJECTS = ("text_config", "quantization_config", "rope_scaling", "rope_parameters", "id2label")

_OF_ROPE: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "proportional": (),
    "mrope": (),
    "su": (),
}
"""What each kind of rotary positions needs, as transformers has them and the names that they had."""
_ABOVE_NOTHING = ("factor", "rope_theta", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

_EMBEDDINGS = re.compile(r"(.+\.)?(embed_tokens|wte|word_embeddings|embed_in|shared)\.weight")


def require(folder: Path, *, tuned: bool = True) -> None:
    """Go on only with a base model whose config.json says what a model can be, and what its own files are.

    A folder without one is left to those who load it. Which kinds are served, where it is not `tuned`, is told there.

    Raises:
        TrainerError: ModelUnusable, with file and field.
    """
    if not (folder / _CONFIG).is_file():
        return
    config = _read(folder / _CONFIG)
    if config.get("auto_map", {}) != {}:
        if not isinstance(config["auto_map"], dict):
            raise _refusal(folder / _CONFIG, Wrong("auto_map", "is no object"))
        return
    _require_config(folder, config, tuned=tuned)
    generation = folder / _GENERATION
    if generation.is_file():
        said = _read(generation)
        for found in (_wrong_tokens(said), wrong_sampling(said), wrong_generation(said)):
            for wrong in found:
                raise _refusal(generation, wrong)


def _require_config(folder: Path, config: dict[str, Any], *, tuned: bool) -> None:
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    alone = (_wrong_value(config), _wrong_value(text), wrong_parts(config))
    for found in (*alone, _wrong_rope(text), _wrong_size(text)):
        for wrong in found:
            raise _refusal(folder / _CONFIG, wrong)
    if tuned and (refused := kinds.why_not_by(config)):
        raise base_refusals.unusable(folder, *refused)
    for wrong in _other_than(folder, text):
        raise _refusal(folder / _CONFIG, wrong)


def require_for(spec: FineTuneJobSpec, folder: Path) -> None:
    """The same for a job, with what it says of the model's layers; code of one's own may read such a file as it likes.

    Raises:
        TrainerError: ModelUnusable, or SpecInvalid.
    """
    if spec.code is None:
        require(folder)
        target_names.require(spec, folder)


def require_numbers(folder: Path, *, four_bits: bool) -> None:
    """Refuse weights that are sure to be refused once they are loaded, for the numbers that they are stored in.

    Models that bring their own code are left to it.

    Raises:
        TrainerError: ModelUnusable.
    """
    config = _read(folder / _CONFIG)
    if config.get("auto_map", {}) == {}:
        base_refusals.require_tunable_numbers(folder, config.get("quantization_config"), four_bits=four_bits)


def kind_of_its_own(folder: Path) -> str | None:
    """The kind of a model that only the code which it brings can load; None where transformers has it."""
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
        raise _unusable(path, f"is no JSON in UTF-8{at}") from None
    if not isinstance(found, dict):
        raise _unusable(path, "is no JSON object")
    if path.name == _CONFIG and not isinstance(found.get("model_type"), str):
        raise _refusal(path, Wrong("model_type", "is missing" if "model_type" not in found else "is no text"))
    return found


def _refusal(path: Path, wrong: Wrong) -> TrainerError:
    return _unusable(path, f"{wrong.field} {wrong.why}")


def _unusable(path: Path, why: str) -> TrainerError:
    said = f"the model in {path.parent} cannot be used: {path.name}: {why}"
    return TrainerError(Reason.MODEL_UNUSABLE, said, _STEP)


def _wrong_value(fields: Fields) -> Iterator[Wrong]:
    """Values that are none of their field's, whatever kind of model it is."""
    yield from (Wrong(name, "is no object") for name in _OBJECTS if not _is(fields.get(name), dict))
    yield from (Wrong(name, f"is {shown(fields[name])}, neither true nor false") for name in _TRUTHS
                if not _is(fields.get(name), bool))  # fmt: skip
    if not _is(fields.get("model_type"), str):
        yield Wrong("model_type", "is no text")
    yield from wrong_words(fields)
    quantised = fields.get("quantization_config")
    if quantised is not None and not _is(quantised.get("quant_method"), str):
        yield Wrong("quantization_config.quant_method", "is no text")
    elif quantised is not None and not {"quant_method", "load_in_4bit", "load_in_8bit"} & quantised.keys():
        yield Wrong("quantization_config.quant_method", "is missing: nobody knows how to read the weights")
    named = fields.get("architectures")
    if not (_is(named, list) and all(isinstance(one, str) for one in named or ())):
        yield Wrong("architectures", "is no list of names")
    yield from _wrong_numbers(fields)
    yield from _wrong_tokens(fields)
    yield from wrong_types(fields)


def _is(value: Any, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def _wrong_numbers(fields: Fields) -> Iterator[Wrong]:
    kind = fields.get("model_type")
    for name in sorted((_SIZES | _COUNTS) & fields.keys()):
        value = fields[name]
        least = 1 if name in _SIZES or (kind in KNOWN and value is not None) else 0
        if (value is None and name not in _NEEDED) or (isinstance(value, list) and kind not in KNOWN):
            continue
        if not is_whole(value) or value < least:
            yield Wrong(name, f"is {shown(value)}, and no whole number from {least} on")
    positions = fields.get("max_position_embeddings")
    if not (positions is None or (is_whole(positions) and (positions > 0 or positions == -1))):
        yield Wrong("max_position_embeddings", f"is {shown(positions)}, and no whole number above 0")
    window = fields.get("sliding_window")
    if not (window is None or is_whole(window) or isinstance(window, list)):
        yield Wrong("sliding_window", f"is {shown(window)}, and no whole number")
    for name in (*_NUMBERS, *_PARTS):
        value = fields.get(name)
        if value is not None and not (_is_number(value) and value >= 0 and (name in _NUMBERS or value <= 1)):
            yield Wrong(name, f"is {shown(value)}, and no number from 0 {'on' if name in _NUMBERS else 'to 1'}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong_tokens(fields: Fields) -> Iterator[Wrong]:
    """What is no token at all, and tokens without a row of the embeddings of models that look it up.

    The end of a text is not looked up: the tokenizer says it too, and many a configuration has that of another one.
    """
    kind, vocabulary = fields.get("model_type"), fields.get("vocab_size")
    for name in _TOKENS:
        value = fields.get(name)
        looked_up = name == "decoder_start_token_id" or (name == "pad_token_id" and kind in _PADDED)
        for token in value if isinstance(value, list) else [] if value is None else [value]:
            if not is_whole(token):
                yield Wrong(name, f"is {shown(value)}, and no token's number")
            elif looked_up and is_whole(vocabulary) and not -1 <= token < vocabulary:
                yield Wrong(name, f"is {token}, and vocab_size is {vocabulary}: tokens are counted from 0 on")


def wrong_sampling(fields: Fields) -> Iterator[Wrong]:
    """What a model's own recommendation says that nobody can draw tokens by; 0 leaves top_p and top_k out."""
    for name, (meant, is_right) in _DRAWN_BY.items():
        value = fields.get(name)
        if (value or name == "temperature") and value is not None and not is_right(value):
            yield Wrong(name, f"is {str(value)[:40]!r}, and no {meant}")


_DRAWN_BY: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "temperature": ("number from 0 on", lambda value: _is_number(value) and value >= 0),
    "top_p": ("number above 0, up to 1", lambda value: _is_number(value) and 0 < value <= 1),
    "top_k": ("whole number", lambda value: _is_number(value) and value == int(value)),
}


def _wrong_rope(text: Fields) -> Iterator[Wrong]:
    for name in ("rope_scaling", "rope_parameters"):
        said = text.get(name) or {}
        layers = [one for one in said.values() if isinstance(one, dict)]
        for rope in layers or [said]:
            yield from _wrong_with_rope(name, rope, kind=text.get("model_type"))
    theta = text.get("rope_theta")
    if not (theta is None or (_is_number(theta) and theta > 0)):
        yield Wrong("rope_theta", f"is {shown(theta)}, and no number above 0")


def _wrong_with_rope(name: str, rope: Fields, *, kind: Any) -> Iterator[Wrong]:
    form = rope.get("rope_type", rope.get("type", "default"))
    for part in _ABOVE_NOTHING:
        value = rope.get(part)
        if not (value is None or (_is_number(value) and value > 0)):
            yield Wrong(f"{name}.{part}", f"is {shown(value)}, and no number above 0")
    if not rope or kind not in KNOWN:
        return
    if not (isinstance(form, str) and form in _OF_ROPE):
        yield Wrong(f"{name}.rope_type", f"is {shown(form)}, and none of {', '.join(_OF_ROPE)}")
        return
    missing = [part for part in _OF_ROPE[form] if part not in rope]
    if missing:
        yield Wrong(f"{name}.{missing[0]}", f"is missing: rotary positions of the kind {form} need it")


def _wrong_size(text: Fields) -> Iterator[Wrong]:
    """Sizes that do not go together, of kinds whose fields are known."""
    kind = text.get("model_type")
    if kind not in KNOWN:
        return
    for width, count in _HEADS_OF.get(kind, ()):
        wide: Any = text.get(width)
        parts: Any = text.get(count)
        if is_whole(wide) and is_whole(parts) and wide % parts:
            yield Wrong(count, f"is {parts}, and {width}, {wide}, is no multiple of it")
    hidden: Any = text.get("hidden_size")
    heads: Any = text.get("num_attention_heads")
    groups = text.get("num_key_value_heads")
    if not (is_whole(hidden) and is_whole(heads)):
        return
    if text.get("head_dim") is None and hidden % heads:
        yield Wrong("hidden_size", f"is {hidden}, which num_attention_heads, {heads}, do not divide")
    if is_whole(groups) and heads % groups:
        yield Wrong("num_key_value_heads", f"is {groups}, and num_attention_heads, {heads}, is no multiple of it")


def _other_than(folder: Path, text: Fields) -> Iterator[Wrong]:
    """What the files say otherwise: each layer has a tensor of its own, and each token its row of the embeddings.

    Of files that are damaged or not all there nothing is said: those who load them say which.
    """
    try:
        entries = {name: entry for path in weight_files(folder) for name, entry in header(path).items()}
        shapes = {name: entry["shape"] for name, entry in entries.items()}
        are_plain = all(entry["dtype"] in FLOATS for entry in entries.values())
    except UNREADABLE:
        return
    if unwritten(folder, shapes):
        return
    yield from wrong_count(text, shapes, folder)
    known = text.get("model_type") in KNOWN and len({placed(name).layers for name in shapes} - {""}) == 1
    vocabulary, table = text.get("vocab_size"), next(filter(_EMBEDDINGS.fullmatch, shapes), None)
    if known and table and shapes[table] and vocabulary != shapes[table][0]:
        where = f"{table} in {file_of(folder, table)}"
        yield Wrong("vocab_size", f"is {vocabulary}, and {where} has {shapes[table][0]} rows")
    if are_plain and text.get("quantization_config") is None:
        yield from _lacking(folder, text, shapes)
        yield from wrong_experts(text, shapes, folder)
        yield from left_out(text, shapes, folder)
        yield from wrong_shapes(text, shapes, folder)


_UNWRAP = (
    "Save the model that is within the wrapper (model.module of a parallel one, model._orig_mod of torch.compile) by "
    "save_pretrained, or rename the tensors. Then apply the job under a new name, or have the cache filled again."
)


def _lacking(folder: Path, text: Fields, shapes: Mapping[str, Any]) -> Iterator[Wrong]:
    """Weights that every model of this kind has, and that are in no file.

    Raises:
        TrainerError: ModelUnusable, only some layers lack it, or it has another name: then a file is wrong, and not
            the configuration.
    """
    if name := wrapped(text, shapes):
        why = (f"{name} in {file_of(folder, name)} should be {unwrapped(name)}: the weights were saved with a wrapper "
               "that the model was trained in")  # fmt: skip
        raise base_refusals.unusable(folder, why, _UNWRAP)
    missing = first_missing(text, shapes)
    if missing is None:
        return
    if not missing.everywhere:
        why = f"its weights are incomplete: {missing.name} cannot be found in {promised_in(folder, missing.name)}"
        raise base_refusals.unusable(folder, why, base_refusals.PUT_THERE_AGAIN)
    kind = text["model_type"]
    yield Wrong("model_type", f"is {shown(kind)}, and the files of weights have no {missing.name}, which every {kind} "
                "has: they are those of another kind, or incomplete")  # fmt: skip
