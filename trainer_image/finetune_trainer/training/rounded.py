"""What of a fully tuned model's learning is left once its float32 weights are saved in 16 bits.

A step smaller than half the distance of two 16-bit numbers is undone by rounding. Losses of training and validation are
from before that; only the test set is answered by what is saved. A part of the matrices says enough.
"""

from pathlib import Path
from typing import Any

from finetune_api.job_status import LITTLE_KEPT
from finetune_trainer.models.weight_files import UNREADABLE, header, weight_files

_ROWS = 4
"""Of each matrix, from its middle."""

_LITTLE = 0.05
"""Usual rates keep a third and more: small weights, whose 16-bit numbers are close to each other, move first."""


def little_kept(base: Path, model: Any, dtype: Any) -> list[str] | None:
    """What to say of a model that is the base in nearly all of its weights once it is saved in `dtype`; else None.

    Args:
        base: Folder of the base model.
        model: As it was trained.
        dtype: Of what is saved.
    """
    if dtype.itemsize >= 4:
        return None
    try:
        kept, moved = _counts(base, model, dtype)
    except UNREADABLE:  # it was read before: whoever measures again sees why
        return None
    if kept >= _LITTLE * moved:
        return None
    saved = str(dtype).removeprefix("torch.")
    said = f"{LITTLE_KEPT}: {kept / moved:.1%} of the weights that moved differ from the base model's once in {saved}"
    return [f"{said}. A higher hyperparameters.learningRate, method LoRA, or precision Float32 keeps what is learnt"]


def _counts(base: Path, model: Any, dtype: Any) -> tuple[int, int]:
    """How many of the weights looked at differ from the base model's in `dtype`, and how many do as they are.

    Weights that are in 16 bits already (shared out, they are gathered so) count as moved: training moves every one of a
    matrix. Embeddings are left out: the rows of tokens that no text has stay where they are.
    """
    from safetensors import safe_open

    embeddings = model.get_input_embeddings().weight
    matrices = {name: value for name, value in model.named_parameters() if value.dim() > 1 and value is not embeddings}
    kept = moved = 0
    for path in weight_files(base):
        shapes = {name: entry["shape"] for name, entry in header(path).items()}
        with safe_open(path, framework="pt") as file:
            for name in matrices.keys() & shapes.keys():
                if list(matrices[name].shape) != shapes[name]:
                    continue
                start = max(shapes[name][0] // 2 - _ROWS // 2, 0)
                was = file.get_slice(name)[start : start + _ROWS]
                now = matrices[name].detach()[start : start + _ROWS].cpu()
                kept += int((now.to(dtype) != was.to(dtype)).sum())
                moved += int((now != was.to(now.dtype)).sum()) if now.dtype.itemsize >= 4 else now.numel()
    return kept, moved
