"""How much of the training is left once weights are saved in 16 bits: full float32 weights, or a merged adapter.

A change smaller than half the distance between two 16-bit numbers is rounded away. Training and validation losses are
from before that; only the test set is answered by the saved weights. Checks a sample of each matrix.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune_api.job_status import LITTLE_KEPT
from finetune_trainer.models.weight_files import UNREADABLE, header, weight_files

_ROWS = 4
"""Rows of each matrix, from its middle."""

_LITTLE = 0.05
"""Usual learning rates keep a third and more: small weights, whose 16-bit numbers are dense, change first."""


def little_kept(base: Path, model: Any, dtype: Any) -> list[str] | None:
    """A warning if nearly all weights equal the base's once saved in `dtype`; otherwise None."""
    if dtype.itemsize >= 4:
        return None
    try:
        kept, moved = _counts(base, model, dtype)
    except UNREADABLE:  # it was readable before; the evaluation's base model will report why
        return None
    step = "A higher hyperparameters.learningRate, method LoRA, or precision Float32 keeps what is learnt"
    return _warning(kept, moved, dtype, "of the weights that moved", step)


def little_of_an_adapter(was: Iterable[Any], now: Iterable[Any]) -> list[str] | None:
    """The same for samples of the matrices that an adapter was merged into, before and after."""
    pairs = list(zip(was, now, strict=True))
    kept, moved = sum(int((one != other).sum()) for one, other in pairs), sum(one.numel() for one, _ in pairs)
    step = "The adapter itself, without artifact.merge, keeps what is learnt"
    return _warning(kept, moved, pairs[0][0].dtype, "of the weights that the adapter is added to", step)


def _warning(kept: int, moved: int, dtype: Any, which: str, step: str) -> list[str] | None:
    if kept >= _LITTLE * moved:
        return None
    numbers = str(dtype).removeprefix("torch.")
    return [f"{LITTLE_KEPT}: {kept / moved:.1%} {which} differ from the base model's once in {numbers}. {step}"]


def part_of(matrix: Any) -> Any:
    """A copy of some rows of a tensor, or of a slice of a file with its shape."""
    start = max(_rows(matrix) // 2 - _ROWS // 2, 0)
    part = matrix[start : start + _ROWS]
    return part.detach().to("cpu", copy=True)


def _rows(matrix: Any) -> int:
    rows: int = matrix.get_shape()[0] if hasattr(matrix, "get_shape") else matrix.shape[0]
    return rows


def _counts(base: Path, model: Any, dtype: Any) -> tuple[int, int]:
    """How many of the sampled weights differ from the base model's in `dtype`, and how many at full width.

    Weights that are already in 16 bits (sharded ones are gathered so) count as moved: training moves every weight of a
    matrix. Embeddings are skipped: the rows of tokens that do not occur in the data do not move.
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
                was, now = part_of(file.get_slice(name)), part_of(matrices[name])
                kept += int((now.to(dtype) != was.to(dtype)).sum())
                moved += int((now != was.to(now.dtype)).sum()) if now.dtype.itemsize >= 4 else now.numel()
    return kept, moved
