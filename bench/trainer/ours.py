"""The trainer of this project, through the same functions as a job's pod: model, adapters, decisions, steps."""

import json
import tempfile
from pathlib import Path
from typing import Any

from bench.trainer import work
from bench.trainer.clock import Clock, await_turn


def job(output: str, *, batch: int, steps_epochs: float, longest: int, precision: str, packing: bool) -> Any:
    """A job of a cluster, as its pod gets it."""
    from finetune_api.trainer import TrainerJob

    return TrainerJob.model_validate(
        {
            "namespace": "bench", "name": "bench", "uid": "1", "attempt": 1, "output": output,
            "artifactURI": "pvc://models/bench", "airGapped": True,
            "spec": {
                "connectionRef": {"name": "local"}, "baseModel": "bench/model", "modelRef": {"name": "bench"},
                "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
                "lora": {"r": work.LORA_R, "alpha": work.LORA_ALPHA},
                "hyperparameters": {
                    "epochs": steps_epochs, "batchSize": batch, "learningRate": work.LEARNING_RATE,
                    "schedule": "Constant", "warmupRatio": 0, "maxSequenceLength": longest,
                    "precision": precision, "checkpointSteps": 1000000, "packing": packing,
                },
            },
        }
    )  # fmt: skip


def run(args: Any) -> None:
    """Train as a job does and print the result."""
    import torch

    from finetune_trainer import compiled_layers, step_trainer, tuning
    from finetune_trainer.adapted_linear import fuse
    from finetune_trainer.adapters import with_adapters
    from finetune_trainer.base_model import quiet_libraries
    from finetune_trainer.interruption import Interruption
    from finetune_trainer.metrics import Metrics
    from finetune_trainer.token_store import IGNORED, TokenStore

    quiet_libraries()
    if "eager" in args.contender:
        compiled_layers.why_not_compiled = lambda: "not here"
    if "forced" in args.contender:
        compiled_layers.why_not_compiled = lambda: None
    step_trainer.StepTrainer._save_checkpoint = lambda *_: None  # type: ignore[method-assign]  # noqa: SLF001
    longest = work.LENGTHS[args.lengths].longest
    with tempfile.TemporaryDirectory() as output:
        one = job(
            output, batch=args.batch, steps_epochs=1, longest=longest, precision=args.precision,
            packing="padded" not in args.contender,
        )  # fmt: skip
        made = work.rows(args.lengths, args.batch * args.steps)
        store = TokenStore((row.ids, [IGNORED] * row.prompt + row.ids[row.prompt :]) for row in made)
        await_turn(args.after)
        model = work.build(args.shape, tuning.compute_dtype_of(one), tuning.device())
        clock = Clock(args.warm_up, args.seconds)
        torch.manual_seed(0)
        model = with_adapters(model, one.spec.adapters, "bench/model")
        if "unfused" not in args.contender:
            fuse(model)
        interruption = Interruption()

        def on_step(_step: int, tokens: int) -> None:
            if clock.step(tokens):
                interruption.ask()

        metrics = Metrics(Path(output) / "metrics.jsonl")
        fit = tuning.fit_of(one, model, store, None)
        why = tuning.why_padded(one, model)
        print(args.contender, fit, why, flush=True)
        trainer = tuning.build_trainer(
            one, model, store, None, fit=fit, packed=why is None, fingerprint="", metrics=metrics,
            interruption=interruption, on_step=on_step,
        )  # fmt: skip
        if args.profile:
            _profiled(trainer, args.profile)
        with interruption.deferred():
            if args.cprofile:
                _host_profile(trainer, args.cprofile)
            else:
                trainer.run()
        losses = [json.loads(line)["loss"] for line in (Path(output) / "metrics.jsonl").read_text().splitlines()]
        clock.say(args.contender, losses)


def _profiled(trainer: Any, path: str) -> None:
    """Print where the time of one step goes."""
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
