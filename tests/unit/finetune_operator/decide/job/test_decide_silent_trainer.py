"""A trainer that says nothing: when that is told, and when it is nothing to tell of."""

from typing import Any

import pytest

from finetune_api.job_status import Progress
from finetune_operator.decide.job.steps import decide
from tests.unit.finetune_operator.decide.given import (
    at,
    condition,
    job_spec,
    kstatus,
    progress,
    report,
    run,
    running,
    view,
)

TRAINING = report("Running", progress=progress(10))


def silent(seconds: float, heard: float = 0, **fields: Any) -> Any:
    """The decision when nothing was heard since `heard` and it is `seconds` by now."""
    its_run = run("Active", **({"report": TRAINING} | fields.pop("run", {})))
    return decide(view(its_run, running(), **({"now": at(seconds), "last_report_at": at(heard)} | fields)))


@pytest.mark.parametrize(
    ("given", "told"),
    {
        "it has just been heard": (silent(10), False),
        "nearly too long": (silent(899), False),
        "too long": (silent(900), True),
        "it evaluates": (silent(900, run={"report": report("Evaluating")}), True),
        "it reads its data": (silent(900, run={"report": report("Validating")}), False),
        "it has read for an hour": (silent(3600, run={"report": report("Validating")}), True),
        "another process has heard it train": (silent(900, run={"report": None}), True),
        "it began later than we listen": (silent(1000, run={"started_at": at(500)}), False),
        "its node's clock is far ahead": (silent(1000, run={"started_at": at(5000)}), False),
        "its node's clock is far behind": (silent(899, run={"started_at": at(-90000)}), False),
        "it was told to end": (silent(900, run={"ending": True}), False),
        "nobody listens": (silent(900, last_report_at=None), False),
    }.values(),
)
def test_what_is_told_of_silence(given: Any, told: bool) -> None:
    assert (condition(given.status, "Stalled").reason == "TrainerSilent") is told
    assert given.status.phase in {"Running", "Evaluating", "Validating"}, "it is left alone"
    assert not given.stop


def test_what_another_process_has_heard_counts() -> None:
    status = running(progress=Progress.model_validate(progress(20, seconds=800)))
    decision = decide(view(run("Active"), status, now=at(1000), last_report_at=at(0)))
    assert condition(decision.status, "Stalled").status == "False"


def test_it_is_said_since_when_where_and_what_to_do() -> None:
    found = silent(900)
    assert found.status.failure.message.startswith(
        "the trainer has not reported since 2026-11-21T12:00:00Z, at step 10 of 100: "
    )
    assert "delete the pod" in found.status.failure.next_step
    assert kstatus(found.status) == "Failed"
    again = decide(view(run("Active", report=TRAINING), found.status, now=at(2000), last_report_at=at(0)))
    assert again.status == found.status, "it is said once"


def test_a_trainer_that_is_heard_again_is_at_work_again() -> None:
    before = silent(900).status
    later = report("Running", progress=progress(11, seconds=1000))
    after = decide(view(run("Active", report=later), before, now=at(1000), last_report_at=at(1000)))
    assert (after.status.failure, kstatus(after.status)) == (None, "InProgress")
    assert after.requeue_after == 900, "and is listened for again"


def test_code_that_has_never_reported_need_not() -> None:
    spec = job_spec(code={"configMapRef": {"name": "recipe", "key": "train.py"}})
    mute = silent(9000, run={"report": report("Running")}, spec=spec)
    assert condition(mute.status, "Stalled").status == "False"
    assert condition(silent(9000, spec=spec).status, "Stalled").status == "True", "it has reported before"
