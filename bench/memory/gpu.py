"""Two real training steps on a GPU for each shape, method and length, with and without checkpointing.

`python -m bench.memory.gpu [SHAPE …]` prints the table's lines as JSON, for all shapes or for those named.
"""

import gc
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.four_bits import quantise
from bench.memory.shapes import config_of, job_of
from finetune_api.trainer import TrainerJob
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.computing.adapted_linear import fuse
from finetune_trainer.data import IGNORED
from finetune_trainer.models import memory, model_shape
from finetune_trainer.models.adapters import with_adapters
from finetune_trainer.training.origin import Origin
from finetune_trainer.training.surroundings import Surroundings
from finetune_trainer.training.token_store import TokenStore
from finetune_trainer.training.tuning import build_trainer, compute_dtype_of, why_padded

MODELS = ("Qwen2.5-0.5B", "Qwen2.5-1.5B", "Llama-3.1-8B")
LENGTHS = (1024, 4096)
ROWS_PER_PASS, ROWS_PER_STEP, LABELLED = 2, 4, 0.3


def measure(models: Sequence[str] = MODELS) -> Iterator[dict[str, Any]]:
    """One line of the table after the other."""
    for name in models:
        for method in ("LoRA", "QLoRA", "Full"):
            yield from _of_method(name, method)


def _of_method(name: str, method: str) -> Iterator[dict[str, Any]]:
    for length in LENGTHS:
        for checkpointing in (False, True):
            about = {"model": name, "method": method, "length": length, "checkpointing": checkpointing}
            with tempfile.TemporaryDirectory() as folder:
                found = _case(Path(folder), name, method, length, checkpointing=checkpointing)
            gc.collect()
            torch.cuda.empty_cache()
            yield about | found


def _case(folder: Path, name: str, method: str, length: int, *, checkpointing: bool) -> dict[str, Any]:
    job = job_of(folder, method, batchSize=ROWS_PER_STEP, microBatchSize=ROWS_PER_PASS, maxSequenceLength=length)
    if estimate(name, method, length, checkpointing=checkpointing) > 1.02 * torch.cuda.mem_get_info()[1]:
        return {}
    torch.cuda.reset_peak_memory_stats()
    try:
        _train(folder, name, job, length, checkpointing=checkpointing)
    except torch.OutOfMemoryError:
        return {"failed": True}
    torch.cuda.synchronize()
    return {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}


def estimate(name: str, method: str, length: int, *, checkpointing: bool) -> int:
    """The estimate for the case, in bytes."""
    with torch.device("meta"):
        shape = model_shape.of_model(_built(name, torch.float32))
    assert shape is not None
    spec = job_of(Path("/bench"), method).spec
    rows = memory.Rows(length, length, LABELLED, ROWS_PER_STEP, ROWS_PER_PASS)
    need = memory.Need(shape, memory.Setup(spec.method, spec.adapters, 2, "GPU"), rows)
    return need.parts(memory.Pass(ROWS_PER_PASS * length, checkpointing)).total


def _train(folder: Path, name: str, job: TrainerJob, length: int, *, checkpointing: bool) -> None:
    model = _model(name, job)
    first = int(length * (1 - LABELLED))
    labels = [IGNORED] * first + [7] * (length - first)
    store = TokenStore([(range(3, 3 + length), labels)] * (2 * ROWS_PER_STEP))
    trainer = build_trainer(
        job,
        model,
        store,
        None,
        fit=memory.Fit(1, activation_checkpointing=checkpointing),
        packed=why_padded(job, model) is None,
        around=Surroundings(
            Origin("bench"), Metrics(folder / "metrics.jsonl"), Interruption(), lambda _step, _tokens: None
        ),
    )
    trainer._save_checkpoint = lambda *_args: None  # type: ignore[method-assign] # noqa: SLF001 - only memory counts
    trainer.run()
    trainer.accelerator.free_memory()


def _model(name: str, job: TrainerJob) -> Any:
    with torch.device("cuda"):
        model = _built(name, compute_dtype_of(job) if job.spec.adapters else torch.float32)
    if job.spec.method == "QLoRA":
        quantise(model)
    if job.spec.adapters is None:
        return model
    tuned = with_adapters(model, job.spec.adapters, "bench/model")
    fuse(tuned)
    return tuned


def _built(name: str, dtype: torch.dtype) -> Any:
    """A model with random weights, on torch's default device."""
    from transformers import AutoModelForCausalLM

    kind: Any = AutoModelForCausalLM
    return kind.from_config(config_of(name), dtype=dtype)


if __name__ == "__main__":
    about = {
        "machine": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    print(json.dumps(about), flush=True)
    for line in measure(sys.argv[1:] or MODELS):
        print(json.dumps(line), flush=True)
