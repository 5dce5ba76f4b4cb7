"""Merges a trained adapter into its base: a whole model in the base's dtypes, or an error if that would lose precision.

Loads the base again as it was saved, never in 4 bits (QLoRA): merging into these would lose precision. Trains nothing
and writes nothing.
"""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_trainer.data import IGNORED
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model
from finetune_trainer.models.base_refusals import first_line
from finetune_trainer.training import rounded

if TYPE_CHECKING:
    from finetune_trainer.training.passes import Pass

TOLERANCE = 0.05
"""Limit of the RMS difference of logits, relative to their spread. Rounding to bfloat16 causes about 0.01."""


def merged(job: TrainerJob, folder: Path, tuned: Any, sample: "Pass") -> tuple[Any, list[str] | None]:
    """The merged model, on the device of `tuned`, whose memory is freed; and warnings, if any.

    `tuned` is unusable afterwards. On `sample`, a pass of the training set, merged and unmerged model must agree.

    Raises:
        TrainerError: ArtifactFailed, the merged model is not what was trained.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    device, config = next(tuned.parameters()).device, tuned.peft_config["default"]
    state = {name: value.cpu() for name, value in get_peft_model_state_dict(tuned, save_embedding_layers=False).items()}
    _forget(tuned)
    base = base_model.load_model(folder, dtype="auto", trust_remote_code=job.trust_remote_code).to(device)
    base.name_or_path = job.spec.base_model
    dtypes = {name: value.dtype for name, value in base.named_parameters()}
    apart = get_peft_model(base, config)
    set_peft_model_state_dict(apart, state)
    expected = _logits(apart, sample)
    adapted = [path for path, module in apart.base_model.model.named_modules() if hasattr(module, "lora_A")]
    was = [rounded.part_of(apart.base_model.model.get_submodule(path).weight) for path in adapted]
    whole = _added(apart)
    _require_dtypes(whole, dtypes)
    _require_same(expected, _logits(whole, sample))
    now = [rounded.part_of(whole.get_submodule(path).weight) for path in adapted]
    return whole, rounded.little_of_an_adapter(was, now)


def _added(apart: Any) -> Any:
    try:
        return apart.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError) as error:
        message = first_line(error)
        if "NaN" in message:  # from peft's message; a float16 base overflows above 65,504
            raise _refused("added to the base model's it makes weights that are not finite numbers") from error
        if "merg" not in message.lower():  # for example, out of memory
            raise
        raise _refused(f"peft says: {message.rstrip('.')}") from error


def _forget(tuned: Any) -> None:
    """Free its memory: otherwise the base would be in memory twice."""
    import torch

    for value in tuned.parameters():
        value.data = value.data.new_empty(0)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _logits(model: Any, sample: "Pass") -> Any:
    """Float32 logits of the positions that carry loss, [positions, vocabulary]."""
    import torch

    from finetune_trainer.training.passes import labelled_logits, on_device

    model.eval()
    with torch.inference_mode():
        logits, targets = labelled_logits(model, on_device(sample, next(model.parameters()).device))
    return logits[targets != IGNORED].float().cpu()


def _require_dtypes(whole: Any, before: dict[str, Any]) -> None:
    changed = [name for name, value in whole.named_parameters() if before.get(name, value.dtype) != value.dtype]
    if changed:
        raise _refused(f"{changed[0]} is no longer in the base model's numbers")


def _require_same(expected: Any, got: Any) -> None:
    spread = float((expected - expected.mean(-1, keepdim=True)).square().mean().sqrt())
    difference = float((got - expected).square().mean().sqrt())
    if not difference <= TOLERANCE * spread:
        raise _refused(
            f"its logits differ by {difference:.3g} from those that were trained, which spread by {spread:.3g}"
        )


def _refused(why: str) -> TrainerError:
    return TrainerError(
        Reason.ARTIFACT_FAILED,
        f"artifact.merge: the adapter cannot be merged: {why}",
        "Apply the job under a new name without artifact.merge: the adapter itself is sound.",
    )
