"""The pod's log: phases, data, progress once a minute, and problems.

The status says the same. Libraries log only warnings: at INFO they log each request with its address.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator

from finetune_api.trainer import Report

EVERY_SECONDS = 60.0
"""How often to log progress."""

_PHASES = {
    "Validating": "The job and its data are looked at.",
    "Running": "The model is being tuned.",
    "Evaluating": "The tuned model and its baselines are asked the test set.",
    "Checked": "The data are checked and passed on.",
    "Measured": "The tuned model is measured.",
    "Succeeded": "The tuned model is whole.",
}
"""Phases that start or complete something. Other ends are logged where they occur, with a next step."""

logger = logging.getLogger(__name__)


def begin() -> None:
    """Configure logging: our own lines, and warnings of libraries."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("finetune_trainer").setLevel(logging.INFO)


def without_bars() -> dict[str, str]:
    """Variables that tqdm and the hub read on import: in a log a progress bar is one endless line, and fills a logTail.

    Empty at a terminal.
    """
    return {} if sys.stderr.isatty() else {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


class PodLog:
    """Logs what is new in reports. To be called with each of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase = ""
        self._data_told = False
        self._next = 0.0

    def __call__(self, report: Report) -> None:
        """Log what is new since the previous report; progress at most once a minute."""
        if report.dataset and report.dataset.valid and not self._data_told:  # otherwise the failure says what is wrong
            self._data_told = True
            for line in (f"Data: {report.dataset.message}", *report.dataset.warnings):
                logger.info("%s", line)
        if report.phase != self._phase:
            self._phase, self._next = report.phase, self._clock() + EVERY_SECONDS
            if said := _PHASES.get(report.phase):
                logger.info("%s", said)
        elif self._clock() >= self._next and (said := ", ".join(_progress(report))):
            self._next = self._clock() + EVERY_SECONDS
            logger.info("%s", said)


def _progress(report: Report) -> Iterator[str]:
    """Progress, as parts of a line."""
    progress, loss = report.progress, report.loss
    if progress is None:
        return
    if report.phase == "Evaluating" and progress.answers is not None:
        yield f"{progress.answers:,} of {progress.total_answers or 0:,} answers"
    elif report.phase == "Running":
        yield f"step {progress.step:,} of {progress.total_steps:,}"
        if loss and loss.last_train is not None:
            yield f"loss {loss.last_train:.3f}"
        if loss and loss.last_validation is not None:
            yield f"validation loss {loss.last_validation:.3f}"
        if progress.eta_seconds is not None:
            yield f"{progress.eta_seconds:,} s left"
