"""A pod's log: what a run comes to, how far it is once a minute, and nothing of what libraries tell themselves."""

import logging
import os
import subprocess
import sys

import pytest

from finetune_api.trainer import Report
from finetune_trainer.attempt import pod_log

AT_STEP_9 = {"step": 9, "totalSteps": 54, "etaSeconds": 1200}
LOSS = {"train": [{"step": 9, "value": 0.4312}], "validation": [{"step": 6, "value": 0.5}]}
DATA = {"valid": True, "reason": "Valid", "message": "all 432 rows can be used", "warnings": ["t.csv: 2 rows twice"]}


def report(phase: str, **fields: object) -> Report:
    about = {"namespace": "team-a", "name": "job", "uid": "u", "attempt": 1, "phase": phase}
    return Report.model_validate(about | fields)


def test_phases_are_said_when_they_begin_and_progress_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    told: list[float] = []
    log = pod_log.PodLog(lambda: told[-1])
    caplog.set_level(logging.INFO, "finetune_trainer")
    for now, one in (
        (0, report("Validating")),
        (1, report("Validating", dataset=DATA)),
        (2, report("Running", dataset=DATA, progress=AT_STEP_9)),
        (30, report("Running", dataset=DATA, progress=AT_STEP_9)),
        (63, report("Running", dataset=DATA, progress=AT_STEP_9, loss=LOSS)),
        (64, report("Running", dataset=DATA, progress=AT_STEP_9, loss=LOSS)),
        (70, report("Evaluating", progress=AT_STEP_9)),
        (131, report("Evaluating", progress=AT_STEP_9)),
        (132, report("Evaluating", progress=AT_STEP_9 | {"answers": 120, "totalAnswers": 4000})),
        (133, report("Succeeded")),
        (300, report("Succeeded")),
    ):
        told.append(now)
        log(one)
    assert caplog.messages == [
        "The job and its data are looked at.",
        "Data: all 432 rows can be used",
        "t.csv: 2 rows twice",
        "The model is being tuned.",
        "step 9 of 54, loss 0.431, validation loss 0.500, 1,200 s left",
        "The tuned model and its baselines are asked the test set.",
        "120 of 4,000 answers",
        "The tuned model is whole.",
    ]


def test_libraries_only_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = logging.RootLogger(logging.WARNING), logging.getLogger("finetune_trainer")
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(own, "level", own.level)
    pod_log.begin()
    assert (root.level, own.level) == (logging.WARNING, logging.INFO)


def test_bars_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a library that is imported after: it draws none, whatever it is told."""
    assert bars_of(monkeypatch, at_terminal=True) > 0
    assert bars_of(monkeypatch, at_terminal=False) == 0


def bars_of(monkeypatch: pytest.MonkeyPatch, *, at_terminal: bool) -> int:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: at_terminal)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)  # commands set it for their own process, which may be this one
    shown = "from tqdm import tqdm; list(tqdm([1, 2], desc='Converting'))"
    done = subprocess.run(
        [sys.executable, "-c", shown], env=os.environ | pod_log.without_bars(), capture_output=True, check=True
    )
    return len(done.stderr)
