"""Complete runs of `train`, and comparisons of two."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetune_trainer.attempt import outcome
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.train import execute


def do(job, **kwargs):
    """Run the job to its end; returns exit code, last report and the phases."""
    phases = []
    reporter = Reporter(job, listener=lambda report: phases.append(report.phase), interval=0.0)
    interruption = Interruption()
    code = outcome.run_to_end(
        lambda: execute(job, reporter, interruption, allow_local=True, **kwargs), reporter, interruption
    )
    return code, reporter.report, list(dict.fromkeys(phases))


@contextmanager
def broken_off_after(steps: int) -> Iterator[None]:
    """Within the context, runs fail after this many steps."""
    from finetune_trainer.training.step_trainer import StepTrainer

    original = StepTrainer.record_step

    def fail(self, rate):
        original(self, rate)
        if self.state.global_step == steps:
            raise OSError(28, "full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepTrainer, "record_step", fail)
        yield


def same_result(straight, broken, file="adapter_model.safetensors"):
    """Assert that weights are bitwise equal, and that every line of the record occurs once."""
    weights = [load_file(Path(job.output) / "model" / file) for job in (straight, broken)]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert (Path(straight.output) / "metrics.jsonl").read_text() == (Path(broken.output) / "metrics.jsonl").read_text()
