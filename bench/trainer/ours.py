"""This project's trainer, called through the same functions as in a job's pod: model, adapters, settings, steps."""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.trainer import work
from bench.trainer.clock import Clock, await_turn


def job(output: str, task: work.Task) -> Any:
    """A cluster's job as given to its pod."""
    from finetune_api.trainer import TrainerJob

    return TrainerJob.model_validate(
        {
            "namespace": "bench", "name": "bench", "uid": "1", "attempt": 1, "output": output,
            "artifactURI": "pvc://models/bench", "airGapped": True,
            "spec": {
                "connectionRef": {"name": "local"}, "baseModel": "bench/model", "modelRef": {"name": "bench"},
                "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
                "method": "QLoRA" if task.four_bits else "LoRA",
                "lora": {
                    "r": work.LORA_R, "alpha": work.LORA_ALPHA, "dropout": 0.1 if "dropout" in task.contender else 0,
                },
                "hyperparameters": {
                    "epochs": 1, "batchSize": task.batch, "learningRate": task.learning_rate,
                    "schedule": "Constant", "warmupRatio": 0, "checkpointSteps": 1000000,
                    "maxSequenceLength": work.LENGTHS[task.lengths].longest, "precision": task.precision,
                    "packing": "padded" not in task.contender,
                },
            },
        }
    )  # fmt: skip


def run(task: work.Task) -> dict[str, Any]:
    """Train like a job."""
    from finetune_trainer.computing import torch_settings
    from finetune_trainer.computing.limits import cpu_threads

    torch_settings.prepare(cpu_threads())
    import torch

    from bench.four_bits import quantise
    from finetune_trainer.attempt.interruption import Interruption
    from finetune_trainer.attempt.metrics import Metrics
    from finetune_trainer.models.base_model import quiet_libraries
    from finetune_trainer.training import passes, tuning
    from finetune_trainer.training.origin import Origin
    from finetune_trainer.training.surroundings import Surroundings

    quiet_libraries()
    _compile_or_not(task.contender)
    if "unfilled" in task.contender:
        passes.filler_of = lambda *_: 0
    with tempfile.TemporaryDirectory() as output:
        one = job(output, task)
        store = _store(one, task)
        await_turn(task.after)
        model = work.build(task.shape, tuning.compute_dtype_of(one), tuning.device())
        if task.four_bits:
            quantise(model)
        clock = Clock(task)
        torch.manual_seed(0)
        model = _adapted(model, one, task)
        interruption = Interruption()

        def on_step(_step: int, tokens: int) -> None:
            if clock.step(tokens):
                interruption.request()

        metrics = Metrics(Path(output) / "metrics.jsonl")
        fit = tuning.fit_of(one, model, store, None)
        why = tuning.why_padded(one, model)
        sys.stderr.write(f"{task.contender}: {fit}, {why or 'packed'}\n")
        trainer = tuning.build_trainer(
            one, model, store, None, fit=fit, packed=why is None,
            around=Surroundings(Origin(""), metrics, interruption, on_step),
        )  # fmt: skip
        trainer._save_checkpoint = lambda *_: None  # type: ignore[method-assign]  # noqa: SLF001 - no part of the race
        if task.profile:
            _profiled(trainer, task.profile)
        with interruption.deferred():
            if task.cprofile:
                _host_profile(trainer, task.cprofile)
            else:
                trainer.run()
        losses = [json.loads(line)["loss"] for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]
    held_out = work.held_out_loss(model, task.lengths, task.held_out) if task.held_out else None
    return clock.result(losses, held_out)


def _adapted(model: Any, one: Any, task: work.Task) -> Any:
    """Add adapters that are not zero, on fused layers as in a job."""
    from finetune_trainer.computing import adapted_linear, frozen_norm
    from finetune_trainer.models.adapters import with_adapters

    model = with_adapters(model, one.spec.adapters, "bench/model")
    work.fill_adapters(model)
    if "unfused" not in task.contender:
        adapted_linear.fuse(model)
        frozen_norm.fuse(model)
    return model


def _compile_or_not(contender: str) -> None:
    """A contender without a suffix compiles like a long job, whatever the task's length."""
    from finetune_trainer.training import tuning

    tuning._WORTH_COMPILING = math.inf if "eager" in contender else 0  # noqa: SLF001 - its place in a job


def _store(one: Any, task: work.Task) -> Any:
    """The rows reordered, so that the job's shuffle yields them in the task's order, in which peers take them."""
    from finetune_trainer.training import tuning
    from finetune_trainer.training.token_store import TokenStore

    made = [(row.ids, row.labels) for row in task.rows]
    plan = tuning.plan_of(one, TokenStore(made))
    order = [row for step in range(plan.total_steps) for row in plan.rows_of(step)]
    return TokenStore(made[turn] for turn in np.argsort(order))


def _profiled(trainer: Any, path: str) -> None:
    """Print a profile of one step."""
    import torch

    original, seen = trainer.training_step, []

    def step(*a: Any, **k: Any) -> Any:
        seen.append(0)
        if len(seen) != 4:
            return original(*a, **k)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        with torch.profiler.profile(activities=kinds) as found:
            loss = original(*a, **k)
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        Path(path).write_text(found.key_averages().table(sort_by=key, row_limit=45, max_name_column_width=70))
        return loss

    trainer.training_step = step


def _host_profile(trainer: Any, path: str) -> None:
    import cProfile
    import pstats

    with cProfile.Profile() as found:
        trainer.run()
    with Path(path).open("w") as file:
        pstats.Stats(found, stream=file).sort_stats("tottime").print_stats(60)
        pstats.Stats(found, stream=file).sort_stats("cumtime").print_stats(90)
