"""Low-rank adapters put on a base model with peft. It neither trains nor saves them."""

from typing import Any

from finetune_api.job import LoRA
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError

_NAMED = 24
"""Module names that a message lists at most."""


def with_adapters(model: Any, lora: LoRA, base_model: str) -> Any:
    """The model with trainable adapters and everything else frozen. `base_model` is written into their configuration.

    Raises:
        TrainerError: SpecInvalid, spec.lora.targetModules names no module or one that takes no adapter.
    """
    from peft import LoraConfig, get_peft_model

    targets, step = lora.targets, _next_step(model)
    if isinstance(targets, list):
        _require_modules(model, targets)
    model.name_or_path = base_model  # peft takes the adapter's base model from here: a name, not this machine's path
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        target_modules=targets,
    )
    if isinstance(targets, str):
        config.target_modules = _all_linear(model, config) or targets
    try:
        tuned = get_peft_model(model, config)
    except ValueError as error:
        raise TrainerError(
            Reason.SPEC_INVALID, f"spec.lora.targetModules: {str(error).splitlines()[0][:400]}", step
        ) from error
    adapters: Any = tuned.peft_config["default"]
    adapters.target_modules = _short(tuned, adapters.target_modules)
    return tuned


def _all_linear(model: Any, config: Any) -> list[str] | None:
    """Paths of the linear layers that text goes through and that take adapters; None where these are all of them.

    A model that sees has more: nothing would be learnt there, and servers take no adapters on them. Some of Mamba's are
    computed past their module, which peft refuses.
    """
    import torch
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
    from transformers.pytorch_utils import Conv1D

    def takes(name: str) -> bool:
        try:
            _check_lora_target_modules_mamba(config, model, name)
        except ValueError:
            return False
        return True

    several = model.config.get_text_config() is not model.config and not model.config.is_encoder_decoder
    reads = set(model.get_decoder().modules() if several else model.modules())
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not model.get_output_embeddings()
    }
    found = [name for name, module in linear.items() if module in reads and takes(name.rpartition(".")[2])]
    return found if len(found) < len(linear) else None


def linear_names(model: Any) -> list[str]:
    """Last names of the modules that take adapters, in the model's order."""
    import torch

    names = (name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return list(dict.fromkeys(names))


def _short(tuned: Any, targets: Any) -> Any:
    """The targets by their last names, sorted, where these mean the same modules: so servers and people know them."""
    names = {target.rsplit(".", 1)[-1] for target in targets}
    meant = {path for path, module in tuned.base_model.model.named_modules() if hasattr(module, "lora_A")}
    matched = {path for path, _ in tuned.base_model.model.named_modules() if path.rsplit(".", 1)[-1] in names}
    return sorted(names) if meant == matched else targets


def _require_modules(model: Any, targets: list[str]) -> None:
    paths = [name for name, _ in model.named_modules()]
    unknown = [target for target in targets if not any(f".{path}".endswith(f".{target}") for path in paths)]
    if unknown or not targets:
        what = f"the model has no module {', '.join(unknown)}" if unknown else "it names no module"
        raise TrainerError(Reason.SPEC_INVALID, f"spec.lora.targetModules: {what}", _next_step(model))


def _next_step(model: Any) -> str:
    return (
        f"Write all-linear, or some of {', '.join(linear_names(model)[:_NAMED])}, and apply the job under a new name."
    )
