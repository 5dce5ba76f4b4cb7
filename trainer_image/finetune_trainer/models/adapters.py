"""Adds low-rank adapters to a base model with peft. Neither trains nor saves them."""

import logging
from collections.abc import Iterator
from typing import Any

from finetune_api.job import LoRA
from finetune_api.job_status import EXPERTS_LEFT
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError

logger = logging.getLogger(__name__)

_MAX_NAMES = 24
"""Maximum number of module names in a message."""


def with_adapters(model: Any, lora: LoRA, base_model: str) -> Any:
    """The model with trainable adapters and everything else frozen. `base_model` is written into their config.

    Raises:
        TrainerError: SpecInvalid, spec.lora.targetModules names no module, or one that cannot have adapters.
    """
    from peft import LoraConfig, get_peft_model

    targets, step = lora.targets, _next_step(model)
    if isinstance(targets, list):
        _require_modules(model, targets)
    model.name_or_path = base_model  # peft writes this into the adapter's config: a name instead of a local path
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
        config.target_modules = _all_linear(model)
    try:
        tuned = get_peft_model(model, config)
    except ValueError as error:
        raise TrainerError(
            Reason.SPEC_INVALID, f"spec.lora.targetModules: {str(error).splitlines()[0][:400]}", step
        ) from error
    _require_directions(tuned)
    adapters: Any = tuned.peft_config["default"]
    adapters.target_modules = _short_names(tuned, adapters.target_modules)
    adapted = ", ".join(sorted(map(_last, adapters.target_modules)))
    logger.info("adapters are on %s", "; ".join([adapted, *beside_experts(tuned)]))
    return tuned


def beside_experts(model: Any) -> list[str]:
    """A warning about a model's experts, which adapters do not reach; none if the model has none."""
    if not hasattr(model, "peft_config"):
        return []
    experts = (one for one in model.modules() if type(one).__name__.endswith("Experts"))  # their names in transformers
    in_experts = sum(value.numel() for one in experts for value in one.parameters(recurse=False) if value.dim() == 3)
    part = in_experts / sum(value.numel() for value in model.parameters())
    remark = f"{EXPERTS_LEFT}, {part:.0%} of the model's weights: adapters do not reach them"
    return [f"{remark}. method: Full also tunes them"] if in_experts else []


def _all_linear(model: Any) -> list[str]:
    """Paths of the linear layers that process text and can have adapters.

    A vision model has others: nothing would be learnt there, and servers support no adapters on them. Some of Mamba's
    bypass their module's forward, so peft refuses them; some routers are linear layers that return a choice of experts.
    """
    is_composite = model.config.get_text_config() is not model.config and not model.config.is_encoder_decoder
    text_modules = set(model.get_decoder().modules() if is_composite else model.modules())
    return [
        path
        for path, module in _linear(model)
        if module in text_modules and _peft_accepts(model, _last(path)) and _is_linear(module)
    ]


def _peft_accepts(model: Any, name: str) -> bool:
    """Whether peft accepts modules of this name, and as the layers they are."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba

    try:
        _check_lora_target_modules_mamba(LoraConfig(), model, name)
    except ValueError:
        return False
    return name not in _names_of_experts(model)


def _names_of_experts(model: Any) -> frozenset[str]:
    """Names that peft takes for experts, because models of this type had them as linear layers before transformers 5.

    Experts are a single tensor now. Peft would adapt that tensor, and skip linear layers with such a name, even those
    of shared experts. Such adapters have products as large as all experts together, and are applied by patching the
    module during a pass, so that parallel passes would interfere. And a layer with such a name would be skipped by
    everyone who loads its adapter with peft.
    """
    from peft.utils.transformers_weight_conversion import _MOE_TARGET_MODULE_MAPPING as NAMES
    from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN as KINDS

    kind = model.config.model_type
    return frozenset(NAMES.get("mixtral" if kind == "mixtral" else KINDS.get(kind, ""), ()))


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _is_linear(module: Any) -> bool:
    """Whether it behaves as a linear layer. Classes with their own forward are tried out."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if type(module) in (torch.nn.Linear, Conv1D) or type(module.weight) is not torch.nn.Parameter:  # quantized ones
        return True
    try:
        with torch.no_grad():
            out = module(module.weight.new_zeros(1, module.in_features))
    except (RuntimeError, ValueError, IndexError):
        return False
    return isinstance(out, torch.Tensor) and out.shape == (1, module.out_features)


def _linear(model: Any) -> Iterator[tuple[str, Any]]:
    """Paths and modules of the linear layers except the output head, in the model's order."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head:
            yield name, module


def linear_names(model: Any) -> list[str]:
    """Last path components of the modules that all-linear selects, in the model's order."""
    names = dict.fromkeys(_last(path) for path, one in _linear(model) if _is_linear(one))
    return [name for name in names if _peft_accepts(model, name)]


def _short_names(tuned: Any, targets: Any) -> Any:
    """The targets by their last path components, sorted, if these select the same modules: the form servers expect."""
    names = {_last(target) for target in targets}
    adapted = {path for path, module in tuned.base_model.model.named_modules() if hasattr(module, "lora_A")}
    matched = {path for path, _ in tuned.base_model.model.named_modules() if _last(path) in names}
    return sorted(names) if adapted == matched else targets


def _require_modules(model: Any, targets: list[str]) -> None:
    import torch
    from transformers.pytorch_utils import Conv1D

    def modules_named(target: str) -> list[Any]:
        return [module for path, module in model.named_modules() if f".{path}".endswith(f".{target}")]

    unknown = [target for target in targets if not modules_named(target)]
    # Servers support no adapters on embeddings, and a head with tied weights would change together with them.
    tables = [target for target in targets if any(isinstance(one, torch.nn.Embedding) for one in modules_named(target))]
    routers = [
        target
        for target in targets
        if any(isinstance(one, torch.nn.Linear) and not _is_linear(one) for one in modules_named(target))
    ]
    experts = [target for target in targets if _last(target) in _names_of_experts(model)]
    # The other types that peft supports: kernels bypass the modules of convolutions, and servers support none of them.
    others = [
        f"{target} is a {type(one).__name__}"
        for target in targets
        if (one := next((one for one in modules_named(target) if not isinstance(one, torch.nn.Linear | Conv1D)), None))
    ]
    if targets and not unknown and not others and not routers and not experts:
        return
    what = f"the model has no module {', '.join(unknown)}" if unknown else "it names no module"
    if experts:
        what = f"{', '.join(experts)} would mean the experts, which are one tensor for all and take no adapters"
    elif tables and not unknown:
        what = f"{', '.join(tables)} is a table of embeddings, which takes no adapter"
    elif routers and not unknown:
        what = f"{', '.join(routers)} chooses experts, and takes no adapter"
    elif others and not unknown:
        what = f"{', '.join(others)} and no linear layer, and takes no adapter"
    raise TrainerError(Reason.SPEC_INVALID, f"spec.lora.targetModules: {what}", _next_step(model))


def _require_directions(tuned: Any) -> None:
    """Refuse DoRA on rows of zeros: it divides each row by its norm, and so does everyone who loads the adapter.

    Raises:
        TrainerError: SpecInvalid.
    """
    for name, length in tuned.named_parameters():
        zeros = "lora_magnitude_vector" in name and not length.is_meta and int((length == 0).sum())
        if zeros:
            layer = name.removeprefix("base_model.model.").partition(".lora_magnitude_vector")[0]
            raise TrainerError(
                Reason.SPEC_INVALID,
                f"lora.useDoRA: {zeros} of the {len(length)} rows of {layer} are zeros, by whose length DoRA divides",
                "Leave useDoRA out, or that layer out of lora.targetModules, and apply the job under a new name.",
            )


def adapts_shared_weights(tuned: Any) -> bool:
    """Whether an adapter is on the output head or the embeddings of a model in which these are tied.

    Merging the adapter would change the other one too.
    """
    head, table = tuned.get_output_embeddings(), tuned.get_input_embeddings()
    return head is not None and head.weight is table.weight and any(hasattr(one, "lora_A") for one in (head, table))


def part_shared_weights(tuned: Any) -> None:
    """Untie the output head if an adapter is to be merged into only one of head and embeddings."""
    import torch

    if adapts_shared_weights(tuned):
        head: Any = tuned.get_output_embeddings()
        head = getattr(head, "base_layer", head)
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def require_mergeable(tuned: Any) -> None:
    """Refuse before training what could not be merged afterwards.

    Raises:
        TrainerError: SpecInvalid.
    """
    if adapts_shared_weights(tuned):
        raise TrainerError(
            Reason.SPEC_INVALID,
            "artifact.merge: lora.targetModules names the output head, which this model shares with its embeddings: an "
            "adapter added to it would change both",
            "Leave artifact.merge out, or the head out of lora.targetModules, and apply the job under a new name.",
        )


def _next_step(model: Any) -> str:
    names = ", ".join(linear_names(model)[:_MAX_NAMES])
    return f"Write all-linear, or some of {names}, and apply the job under a new name."
