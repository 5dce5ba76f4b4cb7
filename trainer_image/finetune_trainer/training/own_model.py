"""The model that a user's code wrote: loaded as any server would, and refused unless it is what the job promised.

    safetensors · loads completely · a LoRA adapter on the base, or all weights in the base's shape · all finite

The artifact is then written from the loaded weights: other files in the folder, such as pickles, are left out.
"""

import json
from pathlib import Path
from typing import Any

from finetune_api.peft_only import changes_the_base
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model
from finetune_trainer.models.base_refusals import in_four_bits
from finetune_trainer.models.loaded_weights import ZeroMatrices, first_not_finite
from finetune_trainer.models.validation import config_file
from finetune_trainer.models.weight_files import damaged, is_named, stored_as_non_reals, stored_in_bytes
from finetune_trainer.storage.durable import special_file_in
from finetune_trainer.training.unchanged import plain_name

_ADAPTER, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SAVE = "Let the code save the tuned model or adapter with save_pretrained into the context's output folder"
_ONE_OF_BOTH = "Let the code leave one of them alone in the context's output folder"
_MERGE = "Let the code merge the adapter (merge_and_unload), save the whole model instead of it with save_pretrained"
_CONVERT = (
    "Let the code save the adapter with save_pretrained and its path_initial_model_for_weight_conversion, or merge it "
    "(merge_and_unload) and save the whole model"
)
_BY_LORA = (
    "Let the code train a LoRA adapter (peft's LoraConfig), as learnt prompts cannot be merged, save it with "
    "save_pretrained into the context's output folder"
)
_FROM_BASE = (
    "Let the code begin with the model in the context's base_model folder, save what it has tuned with save_pretrained "
    "into the context's output folder"
)
_UNROUNDED = "Let the code load the base model without quantization_config, save what it has tuned with save_pretrained"
_AS_NUMBERS = (
    "Let the code load the base model with load_model of finetune_trainer.recipe (transformers itself saves weights "
    "that it has read from 8 or 4 bits by names that nobody loads), save what it has tuned with save_pretrained"
)
_IN_FLOATS = "Let the code save the weights as floats of 16 or 32 bits, with save_pretrained"
_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads")


def require_base(job: TrainerJob, base: Path) -> None:
    """Refuse, before the code runs, a base for which any resulting model would be refused.

    Raises:
        TrainerError: ModelUnusable.
    """
    base_model.require_known_kind(base, trust_remote_code=job.trust_remote_code)
    config_file.require_for_own_code(base)


def load(job: TrainerJob, base: Path, folder: Path, dtype: Any) -> Any:
    """The checked model in `folder`: a peft model on the base in `dtype`, or a whole model as it was saved.

    Raises:
        TrainerError: CodeFailed.
    """
    if folder.is_dir() and (other := special_file_in(folder)) is not None:
        raise _refused(f"{other.name} is a pipe or a device, not a file")
    if (folder / _ADAPTER).is_file() and is_named(folder):
        raise _refused("it is both an adapter and a whole model, and nobody knows which is meant", _ONE_OF_BOTH)
    if (folder / _ADAPTER).is_file():
        model = _adapter(job, base, folder, dtype)
    elif (folder / "config.json").is_file():
        model = _whole(job, base, folder)
    else:
        raise _refused(f"it has neither {_ADAPTER} nor config.json{_below(folder)}")
    _require_sound(model)
    return model


def _below(folder: Path) -> str:
    """Names a subfolder with the model: libraries may save into a checkpoint's folder or one named like the adapter."""
    found = (path.parent for name in (_ADAPTER, "config.json") for path in sorted(folder.glob(f"*/{name}")))
    where = next(found, None)
    return f"; the folder {where.name} in it has" if where else ""


def _adapter(job: TrainerJob, base: Path, folder: Path, dtype: Any) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    if not (folder / _WEIGHTS).is_file():
        raise _refused(f"it has no {_WEIGHTS}; pickled weights are not loaded")
    _require_plain_numbers(folder)
    config = _adapter_config(job, base, folder)
    model = base_model.load_model(
        base, dtype=dtype, trust_remote_code=job.trust_remote_code, four_bits=in_four_bits(base)
    )
    model.name_or_path = job.spec.base_model
    try:
        saved = _without_tables(load_file(folder / _WEIGHTS), model)
        tuned = PeftModel.from_pretrained(model, folder, config=config, is_trainable=False)
    except TrainerError:
        raise
    except Exception as error:
        raise _refused(f"it cannot be loaded: {damaged(folder) or _words(error)}") from error
    expected = {
        name: value.shape for name, value in get_peft_model_state_dict(tuned, save_embedding_layers=False).items()
    }
    _require_same("adapter", {name: value.shape for name, value in saved.items()}, expected)
    return tuned


def _without_tables(saved: dict[str, Any], base: Any) -> dict[str, Any]:
    """Remove the embedding tables that peft saves with an adapter on them, or with added tokens.

    Raises:
        TrainerError: CodeFailed, one differs from the base's.
    """
    tables = [one for one in (base.get_input_embeddings(), base.get_output_embeddings()) if one is not None]
    of_words = {id(value) for table in tables for value in table.parameters()}
    own = {name: value for name, value in base.named_parameters(remove_duplicate=False) if id(value) in of_words}
    for name in [name for name in saved if plain_name(name) in own]:
        value, was = saved.pop(name), own[plain_name(name)]
        if value.shape != was.shape or not value.to(was.dtype).equal(was.cpu()):
            raise _refused(f"its {plain_name(name)} is a whole layer, which servers of adapters do not load", _MERGE)
    return saved


def _adapter_config(job: TrainerJob, base: Path, folder: Path) -> Any:
    """The adapter's configuration, with the base's name instead of a path of this machine."""
    from peft import PeftConfig

    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        raise _refused(f"{_ADAPTER} cannot be read: {_words(error)}") from error
    if config.peft_type != "LORA":
        step = _BY_LORA if config.is_prompt_learning else _MERGE
        kind = getattr(config.peft_type, "value", config.peft_type)  # None if the file does not say
        raise _refused(f"it is an adapter of type {kind}; only LoRA is served", step)
    named = str(config.base_model_name_or_path)
    if named not in (job.spec.base_model, str(base), str(base.resolve())):
        raise _refused(f"it is an adapter for {Path(named).name}, not for {job.spec.base_model}", _FROM_BASE)
    if config.modules_to_save:
        raise _refused("its modules_to_save are whole layers, which servers of adapters do not load", _MERGE)
    if changes_the_base({"init_lora_weights": config.init_lora_weights}):
        raise _refused(f"its init_lora_weights, {config.init_lora_weights}, has changed the base model", _CONVERT)
    config.base_model_name_or_path = job.spec.base_model
    return config


def _whole(job: TrainerJob, base: Path, folder: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if not is_named(folder):
        raise _refused("it has no model.safetensors; pickled weights are not loaded")
    try:
        before = AutoConfig.from_pretrained(base, trust_remote_code=job.trust_remote_code)
        after = AutoConfig.from_pretrained(folder, trust_remote_code=job.trust_remote_code)
        _require_shape(job, folder, before, after)
        kind: Any = AutoModelForSeq2SeqLM if before.is_encoder_decoder else AutoModelForCausalLM
        model, found = kind.from_pretrained(
            folder,
            dtype="auto",
            use_safetensors=True,
            trust_remote_code=job.trust_remote_code,
            output_loading_info=True,
        )
    except TrainerError:
        raise
    except Exception as error:
        raise _refused(f"it cannot be loaded: {damaged(folder) or _words(error)}") from error
    wrong = [*found["missing_keys"], *map(str, found["mismatched_keys"]), *found["unexpected_keys"]]
    if wrong:
        step = _SAVE if _quantised(before) is None else _AS_NUMBERS
        raise _refused(f"its weights are not those of its configuration: {', '.join(sorted(wrong)[:3])}", step)
    with torch.device("meta"):
        like = kind.from_config(before, trust_remote_code=job.trust_remote_code)
    _require_sizes(job, _sizes(like), _sizes(model))
    if before.is_encoder_decoder and model.dtype is torch.float16:
        return model.float()  # a T5 overflows in float16, and no server computes in it
    return model


def _sizes(model: Any) -> dict[str, Any]:
    """Shape of each parameter; for embeddings that of a row, since code may add tokens.

    Packed (quantised) weights, as in the base model, have another shape than they stand for, and are left out.
    """
    tables = [table for table in (model.get_input_embeddings(), model.get_output_embeddings()) if table is not None]
    by_token = {id(value) for table in tables for value in table.parameters()}
    floats = [(name, value) for name, value in model.named_parameters() if value.is_floating_point()]
    return {name: value.shape[id(value) in by_token :] for name, value in floats}


def _require_sizes(job: TrainerJob, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Refuse a model that has some sizes of the base model but not all."""
    other = next((name for name, size in after.items() if before.get(name, size) != size), None)
    if other is not None:
        raise _refused(f"its {other} has another size than that of {job.spec.base_model}", _FROM_BASE)


def _require_plain_numbers(folder: Path) -> None:
    """Refuse integers, bits and 8-bit floats, which libraries would use as the weights themselves."""
    if name := stored_as_non_reals(folder) or stored_in_bytes(folder):
        raise _refused(f"{name} is stored as numbers that are not weights, or in 8 bits", _IN_FLOATS)


def _require_shape(job: TrainerJob, folder: Path, before: Any, after: Any) -> None:
    method, was = _quantised(after), _quantised(before)
    if method not in (None, was):
        raise _refused(f"its weights are rounded to fewer bits (quantization_config: {method})", _UNROUNDED)
    if method is None:
        _require_plain_numbers(folder)
    other = next((name for name in _SHAPE if getattr(before, name, None) != getattr(after, name, None)), None)
    if other is not None:
        raise _refused(f"its {other} is not that of {job.spec.base_model}", _FROM_BASE)


def _quantised(config: Any) -> str | None:
    found = getattr(config, "quantization_config", None)
    method = found.get("quant_method", "?") if isinstance(found, dict) else getattr(found, "quant_method", "?")
    return None if found is None else str(getattr(method, "value", method))


def _require_same(what: str, saved: dict[str, Any], expected: dict[str, Any]) -> None:
    wrong = [name for name in sorted(saved.keys() | expected.keys()) if saved.get(name) != expected.get(name)]
    if wrong:
        raise _refused(f"the {what} lacks weights, or has others than its configuration says: {', '.join(wrong[:3])}")


def _require_sound(model: Any) -> None:
    zeros = ZeroMatrices()
    if name := first_not_finite(zeros.watched(model.named_parameters())):
        raise _refused(f"{name} holds numbers that are not finite")
    if name := zeros.first_suspicious():
        raise _refused(f"{name} holds nothing but zeros")


def _refused(why: str, step: str = _SAVE) -> TrainerError:
    again = "and try again (in a cluster by spec.retryNonce)."
    return TrainerError(
        Reason.CODE_FAILED, f"the code of spec.code left no model that can be served: {why}", f"{step}, {again}"
    )


def _words(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return "no JSON"
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
