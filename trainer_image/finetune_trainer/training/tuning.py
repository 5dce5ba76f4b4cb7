"""How a job's spec becomes a model, a plan and a trainer, for `train.py` and, through `recipe.py`, for users' code.

It reads no data and writes nothing. Libraries are imported inside functions, so that earlier steps do not wait for
them.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from finetune_api.job import FineTuneJobSpec
from finetune_api.names import CHECKPOINTS_FOLDER
from finetune_api.trainer import TrainerJob
from finetune_trainer.computing import gpus
from finetune_trainer.computing.ranks import World
from finetune_trainer.data.row_limit import row_limit
from finetune_trainer.data.tokenizer.chat_tokenizer import positions_in
from finetune_trainer.models import base_model, base_refusals, memory, memory_fit, model_shape
from finetune_trainer.models.adapters import require_mergeable, with_adapters
from finetune_trainer.models.corrected import says_tied
from finetune_trainer.training.batches import Plan
from finetune_trainer.training.surroundings import Surroundings

if TYPE_CHECKING:
    from finetune_trainer.training.course import Course
    from finetune_trainer.training.gradients import ComputeSettings
    from finetune_trainer.training.objective import Objective
    from finetune_trainer.training.shortage import Lesson
    from finetune_trainer.training.step_trainer import StepTrainer
    from finetune_trainer.training.steps import Store

_LEARNING_RATE = {"LoRA": 2e-4, "QLoRA": 2e-4, "Full": 2e-5}
_LEARNING_RATE_OF_PREFERENCE = {"LoRA": 1e-5, "QLoRA": 1e-5, "Full": 1e-6}

_MULTIPLIES_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""The instructions' names in `torch.cpu.get_capabilities` (x86-64, Arm). Without them float32 is faster."""


def learning_rate_of(spec: FineTuneJobSpec) -> float:
    """The peak learning rate: the job's, or its method's usual one, which is far lower for preference training."""
    usual = _LEARNING_RATE if spec.preference is None else _LEARNING_RATE_OF_PREFERENCE
    return spec.hyperparameters.learning_rate or usual[spec.method]


def tunable_model(job: TrainerJob, folder: Path, *, empty_but_tied: bool | None = None) -> Any:
    """The base model in `folder`, ready for training by the job's method: with new adapters, or as a whole.

    With `empty_but_tied`, which says whether embeddings are tied, it has no weights yet (`sharding.py` fills them in).
    """
    import torch
    from transformers import set_seed

    hyper = job.spec.hyperparameters
    # Full tuning keeps float32 weights: bfloat16 would round its small updates away. Adapters are float32 in any case.
    dtype = compute_dtype_of(job) if job.spec.adapters else torch.float32
    if empty_but_tied is not None:
        model = base_model.empty_model(
            folder, dtype=dtype, tied=empty_but_tied, trust_remote_code=job.trust_remote_code
        )
    else:
        model = base_model.load_model(
            folder, dtype=dtype, trust_remote_code=job.trust_remote_code, four_bits=job.spec.method == "QLoRA"
        )
    if model.config.is_encoder_decoder:  # the limit applies to prompt and answer separately
        base_refusals.require_positions(folder, model, row_limit(hyper, positions_in(folder)))
    if job.spec.artifact.merge:
        base_refusals.require_plain_weights(folder)
    set_seed(hyper.seed)
    if job.spec.adapters is None:
        return model
    from finetune_trainer.computing import adapted_linear, frozen_norm

    with base_refusals.in_words(folder, "putting adapters on it"):
        tuned = with_adapters(model, job.spec.adapters, job.spec.base_model)
        if job.spec.artifact.merge:
            require_mergeable(tuned)
        adapted_linear.fuse(tuned)
        frozen_norm.fuse(tuned)
    return tuned


@dataclass
class TrainedModel:
    """The model in training; if it is sharded, rank 0 also holds the unsharded one, for before and after training."""

    model: Any
    whole: Any | None

    @classmethod
    def of(cls, job: TrainerJob, folder: Path, world: World, shards: int) -> Self:
        """Load the job's model; for sharding without weights on every rank, and once with weights on rank 0."""
        if shards == 1:
            return cls(tunable_model(job, folder), None)
        whole = tunable_model(job, folder) if world.is_first else None
        tied = world.broadcast("tied", lambda: whole is None or says_tied(whole))
        model = tunable_model(job, folder, empty_but_tied=tied)
        if whole is not None and _names(model) != _names(whole):
            raise base_refusals.unusable(folder, "shared out among GPUs it would have other weights than its files")
        return cls(model, whole)

    def shard(self, compute_dtype: Any) -> None:
        """Shard the model; a collective call."""
        from finetune_trainer.computing import sharding

        sharding.shard(self.model, self.whole, device(), compute_dtype)

    def unsharded(self, trainer: "StepTrainer", compute_dtype: Any) -> Any:
        """The unsharded trained model on rank 0; a collective call.

        Frees gradients and optimizer: evaluation needs room for the base model beside a fully tuned one. A model
        that does not fit on the GPU stays on the CPU.
        """
        from finetune_trainer.computing import sharding

        self.model.zero_grad(set_to_none=True)
        trainer.accelerator.free_memory()
        trainer.optimizer = trainer.lr_scheduler = None
        gpus.empty_cache()
        if not sharding.is_sharded(self.model):
            return self.model
        sharding.gather(self.model, self.whole, compute_dtype)
        if self.whole is None:
            return self.model
        available = memory_fit.room_here().available
        fits = available is None or sum(value.nbytes for value in self.whole.parameters()) < available
        return self.whole.to(device()) if fits else self.whole


def _names(model: Any) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def plan_of(job: TrainerJob, train: "Store") -> Plan:
    """The order of the training set's rows."""
    hyper = job.spec.hyperparameters
    return Plan(len(train), batch_size=hyper.batch_size, epochs=hyper.epochs, seed=hyper.seed)


def device() -> str:
    """The device for training."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_dtype_of(job: TrainerJob) -> Any:
    """The dtype of frozen weights and of matrix products.

    Auto is bfloat16 on GPUs that support it, and on CPUs with bfloat16 instructions if the base is frozen. CPUs of
    several nodes may differ, and ranks must agree; the float32 weights of full tuning would be converted to 16 bits
    in each pass.
    """
    import torch

    spec = job.spec
    if spec.hyperparameters.precision == "Float32":
        return torch.float32
    if spec.hyperparameters.precision == "BFloat16":
        return torch.bfloat16
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    able = torch.cpu.get_capabilities()
    quick = any(able.get(name) for name in _MULTIPLIES_BFLOAT16)
    return torch.bfloat16 if quick and spec.adapters and spec.resources.nodes == 1 else torch.float32


def fit_of(job: TrainerJob, model: Any, train: "Store", validation: "Store | None", shards: int = 1) -> memory.Fit:
    """The limits of one forward and backward pass on this machine, which holds one of `shards` parts of the model."""
    here, shape = memory_fit.room_here(), model_shape.of_model(model)
    longest = max(train.longest, validation.longest if validation else 0)
    if shape is None:
        return memory.Fit(longest, activation_checkpointing=False)
    hyper = job.spec.hyperparameters
    mean, labelled = train.tokens / max(len(train), 1), train.labelled / max(train.tokens, 1)
    texts = 1 if job.spec.preference is None else 2
    rows = memory.Rows(longest, mean, labelled, hyper.batch_size, hyper.micro_batch_size, texts)
    setup = memory.Setup(job.spec.method, job.spec.adapters, compute_dtype_of(job).itemsize, here.device, shards)
    return memory.Need(shape, setup, rows).fit(here.available, here.threads)


def require_works(job: TrainerJob, folder: Path, model: Any, decoder_start: int | None) -> None:
    """Try the model on its training device, before hours are spent on it.

    Refuses a model whose own code fails, one whose loss is not a number, and one that attends to later tokens: it would
    learn to copy answers instead of giving them.

    Raises:
        TrainerError: ModelUnusable.
    """
    from finetune_trainer.computing.attention import looks_ahead
    from finetune_trainer.training import trial

    dtype = compute_dtype_of(job)
    with base_refusals.in_words(folder, "a pass on trial"):
        _place(job, model)
        loss = trial.learn(model, dtype, decoder_start)
        ahead = decoder_start is None and looks_ahead(model, dtype)
    if not math.isfinite(loss):
        why = "before any training its loss is not a finite number, because of its weights or of the precision"
        raise base_refusals.unusable(folder, why, base_refusals.OTHER_NUMBERS)
    if ahead:
        raise base_refusals.unusable(
            folder, "what it says of a token depends on those after it: it is not a causal model"
        )


def why_padded(job: TrainerJob, model: Any) -> str | None:
    """Why rows are not packed, or None if they are. Moves the model to its training device, and tries packing."""
    from finetune_trainer.computing.attention import why_not_packed

    if not job.spec.hyperparameters.packing:
        return "hyperparameters.packing is off"
    _place(job, model)
    return why_not_packed(model, compute_dtype_of(job))


def _place(job: TrainerJob, model: Any) -> None:
    """Move the model to its training device; quantised and sharded ones are there already."""
    from finetune_trainer.computing.sharding import is_sharded

    if job.spec.method != "QLoRA" and not is_sharded(model):
        model.to(device())


def build_trainer(
    job: TrainerJob,
    model: Any,
    train: "Store",
    validation: "Store | None",
    *,
    fit: memory.Fit,
    packed: bool,
    around: Surroundings,
    objective: "Objective | None" = None,
) -> "StepTrainer":
    """The trainer for a job's hyperparameters; `objective` replaces the job's own."""
    from finetune_trainer.training.loop import arguments
    from finetune_trainer.training.shortage import Lesson
    from finetune_trainer.training.step_trainer import StepTrainer

    lesson = Lesson.read(checkpoints_of(job))
    checkpointing = fit.activation_checkpointing or lesson.checkpointing
    if checkpointing:
        model.enable_input_require_grads()  # otherwise frozen embeddings stop the adapters' gradients
    course = _course_of(job, train, validation, objective)
    settings = _compute_settings(job, fit, lesson, model, packed=packed)
    if packed and not checkpointing:
        at_once = fit.at_once if objective is None else 1  # a user's loss may not be thread-safe
        settings = replace(settings, at_once=at_once, compile_layers=_to_be_compiled(model, course))
    return StepTrainer(
        model,
        arguments(
            job.spec.hyperparameters,
            learning_rate=learning_rate_of(job.spec),
            total_steps=course.plan.total_steps,
            output=Path(job.output),
            activation_checkpointing=checkpointing,
        ),
        job.spec,
        course,
        settings,
        around=around,
        checkpoints=checkpoints_of(job),
    )


def _course_of(job: TrainerJob, train: "Store", validation: "Store | None", objective: "Objective | None") -> "Course":
    from finetune_trainer.training.course import Course
    from finetune_trainer.training.intervals import intervals_of
    from finetune_trainer.training.objective import objective_of

    plan = plan_of(job, train)
    intervals = intervals_of(
        plan,
        job.spec.hyperparameters.checkpoint_steps,
        train_tokens=train.tokens,
        validation_tokens=validation.tokens if validation else 0,
    )
    return Course(train, validation, plan, intervals, objective or objective_of(job.spec.preference))


def _compute_settings(
    job: TrainerJob, fit: memory.Fit, lesson: "Lesson", model: Any, *, packed: bool
) -> "ComputeSettings":
    """Settings for passes in sequence, through uncompiled layers."""
    from finetune_trainer.computing.attention import rope_switch_length
    from finetune_trainer.training.gradients import ComputeSettings
    from finetune_trainer.training.passes import Cut
    from finetune_trainer.training.shortage import halved

    rows_each = job.spec.hyperparameters.micro_batch_size
    budget, on_gpu = None if rows_each else fit.token_budget, device() == "cuda"
    cut = Cut(
        budget, rows_each, packed=packed, filled=packed and on_gpu, even=packed and not on_gpu,
        rope_switch=rope_switch_length(model),
    )  # fmt: skip
    return ComputeSettings(halved(cut, lesson.halvings), compute_dtype_of(job), lesson=lesson)


def _to_be_compiled(model: Any, course: "Course") -> bool:
    """Long trainings only. Not with sharding or checkpointing: their hooks in layers were not measured with it."""
    from finetune_trainer.computing.compiled_layers import why_not_compiled
    from finetune_trainer.computing.sharding import is_sharded

    tokens = course.plan.epochs_after(course.plan.total_steps) * course.train.tokens
    return not is_sharded(model) and tokens > _WORTH_COMPILING and not why_not_compiled()


_WORTH_COMPILING = 15e6
"""Tokens from which on layers are compiled: the compile time is won back after 5 (8B) to 10 million (0.5B) on an H200,
earlier on slower GPUs (docs/decisions/2026-11-26-training-speed.md)."""


def checkpoints_of(job: TrainerJob) -> Path:
    """The job's checkpoint folder, which outlives its pods."""
    return Path(job.output) / CHECKPOINTS_FOLDER
