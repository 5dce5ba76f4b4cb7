"""Whether a job fits into the available memory, before any weights are loaded: for `train`, `run` and `check`.

If it certainly does not, the job ends with figures and what to change. In doubt it only warns, because an estimate must
not refuse a job that might have run. The arithmetic is in `memory.py`, the reasons for the margins in docs/decisions.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from finetune_api.job import FineTuneJobSpec, LoRA
from finetune_api.memory import MemoryParts, MemoryUse
from finetune_api.quantities import amount
from finetune_api.reasons import Reason
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.computing.limits import cpu_threads, free_memory, memory_limit
from finetune_trainer.data.row_limit import row_limit
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import model_shape
from finetune_trainer.models.memory import Device, Need, Rows, Setup

_CERTAIN_FRACTION = 0.95
"""Fraction of weights, gradients and optimizer that is certainly needed: their number is known."""

_CERTAIN_ACTIVATIONS = 0.5
"""The same for activations: kernels and models differ. An unknown architecture counts with 0."""

_SAFETY_FACTOR = 1.1
"""Safety factor of an advised change."""

_ASSUMED_LABELLED = 0.5
"""Fraction of a row's tokens that carry loss, if tokens were not counted."""

_SIXTEEN_BITS = 2  # bytes

_SHORTEST = 64  # tokens; shorter rows are not advised

_MOST_GPUS = 16  # per pod; more are not advised

_GIB = 2**30
logger = logging.getLogger(__name__)

Change = tuple[str, Need]
"""What to write into the spec, and the resulting need."""


@dataclass(frozen=True)
class Room:
    """Memory of a device in bytes; None if unknown."""

    device: Device
    available: int | None
    """What training may use now, including what this process already holds."""
    capacity: int | None
    """What it could use at best, with no other process."""
    threads: int = 1
    """Threads, for a CPU."""


def room_here() -> Room:
    """The memory of this machine's GPU, or of this container."""
    import torch

    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        return Room("GPU", free + torch.cuda.memory_reserved(), whole)
    return Room("CPU", free_memory() + _resident("VmRSS"), memory_limit(), cpu_threads())


def rooms_meant(spec: FineTuneJobSpec, gpu_memory: int | None) -> list[Room]:
    """The devices that a job may be meant for, as far as its manifest shows."""
    wanted, memory = spec.resources.gpus_per_node, spec.resources.memory
    limit = bytes_of(memory) if memory is not None else None
    cpu, gpu = Room("CPU", limit, limit), Room("GPU", gpu_memory, gpu_memory)
    if wanted is None and gpu_memory is None:
        return [gpu, cpu]
    return [cpu] if wanted == 0 else [gpu]


def judged(
    spec: FineTuneJobSpec,
    folder: Path,
    verdict: DatasetVerdict,
    room: Room,
    *,
    compute_bytes: int | None = None,
    ranks: int | None = None,
) -> tuple[MemoryUse | None, TrainerError | None]:
    """What training takes of a device, and the refusal if it cannot run there; None if the model's shape is unknown.

    Without `compute_bytes`, the estimate uses the largest numbers that hyperparameters.precision may mean on such a
    device, and the refusal the smallest. Without `ranks`, their number is taken from the job. A model that does not fit
    on each of several ranks is sharded.
    """
    shape = model_shape.of_folder(folder)
    if shape is None:
        return None, None
    ranks = ranks or spec.resources.ranks
    most, least = (compute_bytes, compute_bytes) if compute_bytes else _widths(spec, room.device)
    rows = _rows(spec, verdict, ranks, shape.positions)
    whole = Need(shape, Setup(spec.method, spec.adapters, most, room.device), rows)
    need = whole if judge(whole, room, spec).fits is not False else sharded(whole, ranks)
    certain = replace(need, setup=replace(need.setup, compute_bytes=least))
    return judge(need, room, spec), refusal(certain, room, spec) or measuring_refusal(certain, room, spec)


def sharded(need: Need, ranks: int) -> Need:
    """The need of each rank if the model is sharded; unchanged if that is impossible or needs more.

    4-bit weights are not sharded: their scales are in separate tensors.
    """
    if ranks == 1 or need.setup.method == "QLoRA":
        return need
    shared = replace(need, setup=replace(need.setup, shards=ranks))
    return min(need, shared, key=lambda one: one.parts(one.smallest).total)


def measuring_refusal(need: Need, room: Room, spec: FineTuneJobSpec) -> TrainerError | None:
    """Why a sharded model cannot be evaluated: that happens on one device, after training."""
    if need.setup.shards == 1 or spec.dataset.test is None or room.capacity is None:
        return None
    whole = need.setup.compute_bytes * need.shape.parameters
    if _CERTAIN_FRACTION * whole <= room.capacity:
        return None
    return TrainerError(
        Reason.INSUFFICIENT_MEMORY,
        f"dataset.test: the tuned model is measured on {_device_in_words(room)}, where it takes {size(whole)} even "
        f"after training; there are {size(room.capacity)}",
        "Remove dataset.test and measure the model where it is served, or use larger GPUs, and apply the job under a "
        "new name.",
    )


def _device_in_words(room: Room) -> str:
    return "one GPU" if room.device == "GPU" else "the pod"


def _widths(spec: FineTuneJobSpec, device: Device) -> tuple[int, int]:
    """Largest and smallest possible bytes of a number: on a CPU the machine decides what Auto means (`tuning.py`)."""
    precision = spec.hyperparameters.precision
    if precision == "Auto" and device == "CPU":
        return 4, 2 if spec.adapters and spec.resources.nodes == 1 else 4
    return (4, 4) if precision == "Float32" else (2, 2)


def require(
    spec: FineTuneJobSpec, folder: Path, verdict: DatasetVerdict, reporter: Reporter, *, compute_bytes: int, ranks: int
) -> int:
    """Report the memory that training will take on this machine. Returns the number of ranks to shard the model over.

    Raises:
        TrainerError: InsufficientMemory, it cannot fit in any way.
    """
    use, refused = judged(spec, folder, verdict, room_here(), compute_bytes=compute_bytes, ranks=ranks)
    if use is not None:
        reporter.update(memory=use)
    if refused is not None:
        raise refused
    if use is not None and (warning := doubt(use)):
        logger.warning("%s", warning)
    return (use.shards if use else None) or 1


def report_peak(reporter: Reporter, halvings: int) -> None:
    """Report the actual peak beside the estimate."""
    use = reporter.report.memory
    if use is None:
        return
    peak = max(1, peak_here(use.device))
    error = round(100 * (use.estimated_bytes / peak - 1))
    measured = {"peak_bytes": peak, "error_percent": error, "halvings": halvings or None}
    reporter.update(memory=use.model_copy(update=measured))


def doubt(use: MemoryUse) -> str | None:
    """A warning if the job may not fit."""
    if use.fits is not False or use.available_bytes is None:
        return None
    least, there = size(use.least_bytes), size(use.available_bytes)
    return f"memory may not be enough: training takes about {least}, and {there} are free. {use.advice}"


def in_words(use: MemoryUse) -> str:
    """The estimate in one line."""
    named = {name: value for name, value in use.parts.model_dump().items() if value}
    parts = ", ".join(f"{name} {size(value)}" for name, value in named.items())
    where = "a GPU" if use.device == "GPU" else "a CPU"
    there = "" if use.available_bytes is None else f" of {size(use.available_bytes)}"
    where += f" of {use.shards} that share the model out" if use.shards else ""
    return f"memory on {where}: about {size(use.estimated_bytes)}{there} ({parts})"


def peak_here(device: Device) -> int:
    """Peak memory of this process: on a GPU since the last reset of the statistics, otherwise since its start."""
    import torch

    return torch.cuda.max_memory_allocated() if device == "GPU" else _resident("VmHWM")


def _resident(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _rows(spec: FineTuneJobSpec, verdict: DatasetVerdict, ranks: int, positions: int | None) -> Rows:
    """The data according to the verdict; without counted tokens, rows are assumed to be as long as allowed."""
    hyper = spec.hyperparameters
    limit = row_limit(hyper, positions)
    longest = max((split.longest_row or limit for split in (verdict.train, verdict.validation) if split), default=limit)
    train, texts = verdict.train, 1 if spec.preference is None else 2
    mean, labelled = float(texts * min(longest, limit)), _ASSUMED_LABELLED
    if train and train.tokens and train.rows:
        mean = min(mean, train.tokens / train.rows)
        labelled = (train.completion_tokens or 0) / train.tokens
    rank_rows = math.ceil(hyper.batch_size / ranks)
    return Rows(texts * min(longest, limit), mean, labelled, rank_rows, hyper.micro_batch_size, texts)


def judge(need: Need, room: Room, spec: FineTuneJobSpec) -> MemoryUse:
    """The estimate compared with the available memory, with advice if it does not fit."""
    fit = need.fit(room.available, room.threads)
    one = need.expected(fit)
    parts, least = need.parts(one), min(need.parts(one).total, need.parts(need.smallest).total)
    fits = None if room.available is None else least <= room.available
    return MemoryUse(
        device=room.device,
        estimated_bytes=parts.total,
        least_bytes=least,
        available_bytes=room.available,
        fits=fits,
        parts=MemoryParts(**{name: getattr(parts, name) for name in MemoryParts.model_fields}),
        pass_tokens=one.tokens,
        activation_checkpointing=fit.activation_checkpointing,
        shards=need.setup.shards if need.setup.shards > 1 else None,
        advice=advice(need, room, spec) if fits is False else None,
    )


def refusal(need: Need, room: Room, spec: FineTuneJobSpec) -> TrainerError | None:
    """Why the job certainly cannot run in this memory; None if it might."""
    if room.capacity is None:
        return None
    least = need.parts(need.smallest)
    activations = least.activations if need.shape.certain else 0
    certain = _CERTAIN_FRACTION * (least.fixed - least.overhead) + _CERTAIN_ACTIVATIONS * activations
    if certain <= room.capacity:
        return None
    shards = need.setup.shards
    where = _device_in_words(room) if shards == 1 else f"each of {shards} that share the model out"
    message = (
        f"training takes about {size(least.total)} of memory on {where} even with the smallest passes "
        f"({size(least.weights + least.adapters)} weights, {size(least.gradients + least.optimizer)} gradients and "
        f"optimizer, {size(least.activations)} activations); there are {size(room.capacity)}"
    )
    step = f"{advice(need, room, spec)} Change it and apply the job under a new name."
    return TrainerError(Reason.INSUFFICIENT_MEMORY, message, step)


def advice(need: Need, room: Room, spec: FineTuneJobSpec) -> str:
    """What to change so that the job fits: each change suffices on its own; the mildest of each kind."""
    limit = room.available if room.available is not None else room.capacity or 0

    def first(changes: Iterable[Change]) -> list[str]:
        fitting = (text for text, changed in changes if _SAFETY_FACTOR * changed.parts(changed.smallest).total <= limit)
        return list(islice(fitting, 1))

    bases = _smaller_bases(need)
    enough = [
        *first(bases),
        *first(_more_ranks(need, spec)),
        *first(_fewer_rows(need, spec)),
        *first(_shorter_rows(need)),
    ]
    if not enough:
        further = ((text, other) for text, base in bases for other in (*_fewer_rows(base, spec), *_shorter_rows(base)))
        enough = first((f"{text} with {more}", changed) for text, (more, changed) in further)
    gibibytes = math.ceil(_SAFETY_FACTOR * need.parts(need.smallest).total / _GIB)
    more = f"a GPU with {gibibytes} GiB" if room.device == "GPU" else f"resources.memory: {gibibytes}Gi"
    if spec.resources.instance_type:
        more = f"a resources.instanceType with {gibibytes} GiB {'on each GPU' if room.device == 'GPU' else 'of memory'}"
    return f"Any one of these is enough: {'; '.join([*enough, more])}." if enough else f"It takes {more}."


def _smaller_bases(need: Need) -> list[Change]:
    """Methods that need less, the nearest first. 4-bit numbers save memory on CPUs too, but their kernels are slow."""
    setup = need.setup
    adapters = setup.adapters or LoRA()
    found: list[Change] = []
    if setup.method == "Full":
        found.append(("method: LoRA", replace(need, setup=replace(setup, method="LoRA", adapters=adapters))))
    if setup.method != "Full" and setup.compute_bytes > _SIXTEEN_BITS:
        halved = replace(setup, compute_bytes=_SIXTEEN_BITS)
        found.append(("hyperparameters.precision: BFloat16", replace(need, setup=halved)))
    if setup.method != "QLoRA" and setup.device == "GPU":
        found.append(("method: QLoRA", replace(need, setup=replace(setup, method="QLoRA", adapters=adapters))))
    return found


def _more_ranks(need: Need, spec: FineTuneJobSpec) -> Iterator[Change]:
    """Two, four, … times as many GPUs, up to what a pod can have; a step must have a row for each."""
    setup, asked = need.setup, spec.resources
    gpus, rows = max(asked.gpus_per_node or 1, 1), spec.hyperparameters.batch_size
    if setup.method == "QLoRA" or setup.device != "GPU" or spec.code or asked.instance_type:
        return  # an instance always trains on all its GPUs
    while (gpus := 2 * gpus) <= _MOST_GPUS and gpus * asked.nodes <= rows:
        rank_rows = replace(need.rows, per_step=math.ceil(rows / (gpus * asked.nodes)))
        shared = replace(need, setup=replace(setup, shards=gpus * asked.nodes), rows=rank_rows)
        yield f"resources.gpusPerNode: {gpus}", shared


def _fewer_rows(need: Need, spec: FineTuneJobSpec) -> Iterator[Change]:
    """Divisors of batchSize below the job's microBatchSize."""
    hyper = spec.hyperparameters
    for rows in range((hyper.micro_batch_size or 1) - 1, 0, -1):
        if hyper.batch_size % rows == 0:
            yield f"hyperparameters.microBatchSize: {rows}", replace(need, rows=replace(need.rows, per_pass=rows))


def _shorter_rows(need: Need) -> Iterator[Change]:
    """Shorter rows, by powers of two."""
    texts = need.rows.texts
    tokens = 2 ** (max(1, need.rows.longest // texts - 1).bit_length() - 1)
    while tokens >= _SHORTEST:
        rows = replace(need.rows, longest=texts * tokens, mean=min(need.rows.mean, texts * tokens))
        yield f"hyperparameters.maxSequenceLength: {tokens}", replace(need, rows=rows)
        tokens //= 2


def size(count: int) -> str:
    """Bytes in a human-readable unit."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB / 10 else f"{count / 2**20:.0f} MiB"


def bytes_of(quantity: str | float) -> int | None:
    """A Kubernetes memory quantity in bytes; None if invalid."""
    found = amount(quantity)
    return None if found is None else int(found)
