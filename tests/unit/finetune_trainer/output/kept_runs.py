"""A trainer with kept checkpoints, at one of its steps."""

from finetune_trainer.attempt import outcome
from finetune_trainer.attempt.interruption import Interruption
from finetune_trainer.attempt.report import Reporter
from finetune_trainer.train import execute


def run(job, listener=None):
    interruption = Interruption()
    reporter = Reporter(job, listener=listener and (lambda report: listener(report, interruption)), interval=0.0)
    code = outcome.run_to_end(lambda: execute(job, reporter, interruption, allow_local=True), reporter, interruption)
    return code, reporter.report


def at_step(step: int, action):
    """A listener that runs an action once, after this step."""
    done = []

    def listen(report, interruption):
        if report.progress and report.progress.step >= step and not done:
            done.append(step)
            action(interruption)

    return listen
