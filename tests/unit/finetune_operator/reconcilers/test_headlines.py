"""Which change of a FineTuneJob's status is told as an event."""

from typing import Any

import pytest

from finetune_api.job_status import (
    EXPERTS_LEFT,
    LITTLE_KEPT,
    NOTHING_LEARNT,
    TOKENIZER_LEFT_OUT,
    TOO_LONG,
    FineTuneJobStatus,
)
from finetune_api.reasons import Reason
from finetune_operator.reconcilers.jobs.job import headline
from tests.unit.finetune_operator.decide.given import provider


def status(**fields: object) -> FineTuneJobStatus:
    return FineTuneJobStatus.model_validate(fields)


def failure(reason: Reason, **fields: object) -> dict[str, object]:
    return {"reason": reason, "message": "m", **fields}


FOLLOWED, UNFOLLOWED = (
    {
        "conditions": [
            {"type": "Tracked", "status": status, "reason": reason, "lastTransitionTime": "2026-11-01T00:00:00Z"}
        ]
    }
    for status, reason in (("True", "Succeeded"), ("False", "TrackerFailed"))
)
COMPLETE: dict[str, object] = {
    "phase": "Succeeded",
    "conditions": [
        {"type": "Complete", "status": "True", "reason": "Succeeded", "lastTransitionTime": "2026-11-01T00:00:00Z"}
    ],
}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({}, {"phase": "Queued"}, None),
        ({"phase": "Queued"}, {"phase": "Running"}, None),
        ({"phase": "Running"}, {"phase": "Evaluating"}, None),
        ({"phase": "Running"}, {"phase": "Suspended"}, ("Normal", "Suspended")),
        ({"phase": "Running"}, {"phase": "Succeeded", "modelVersion": 1}, ("Normal", "Succeeded")),
        ({"phase": "Running"}, {"phase": "Failed", "failure": failure(Reason.EVICTED)}, ("Warning", "Evicted")),
        ({"phase": "Queued"}, {"phase": "Validating"}, None),
        ({"phase": "Failed"}, {"phase": "Pending"}, None),
        ({"phase": "Running"}, {"phase": "Running"}, None),
        (
            {"phase": "Queued", "failure": failure(Reason.UNSCHEDULABLE)},
            {"phase": "Queued", "failure": failure(Reason.UNSCHEDULABLE)},
            None,
        ),
        (
            {"phase": "Queued", "failure": failure(Reason.UNSCHEDULABLE)},
            {"phase": "Queued", "failure": failure(Reason.IMAGE_PULL_FAILED)},
            ("Warning", "ImagePullFailed"),
        ),
        (
            {"phase": "Running", "provider": provider(1).wire()},
            {
                "phase": "Pending",
                "provider": {**provider(2).wire(), "retries": 1, "lastFailure": failure(Reason.EVICTED, attempt=1)},
            },
            ("Warning", "Retrying"),
        ),
        ({"phase": "Queued"}, {"phase": "Validating"} | UNFOLLOWED, ("Warning", "TrackerFailed")),
        ({"phase": "Running"} | FOLLOWED, {"phase": "Running"} | UNFOLLOWED, ("Warning", "TrackerFailed")),
        ({"phase": "Running"} | UNFOLLOWED, {"phase": "Evaluating"} | UNFOLLOWED, None),
        ({"phase": "Running"}, {"phase": "Running"} | FOLLOWED, None),
        (
            {"phase": "Running"},
            {"phase": "Failed", "failure": failure(Reason.EVICTED)} | UNFOLLOWED,
            ("Warning", "Evicted"),
        ),
        # A new nonce of a job that has succeeded does nothing: whoever set it waits for something.
        (COMPLETE, {**COMPLETE, "observedRetryNonce": "1"}, ("Warning", "NoEffect")),
        ({**COMPLETE, "observedRetryNonce": "1"}, {**COMPLETE, "observedRetryNonce": "1"}, None),
        ({**COMPLETE, "observedRetryNonce": "1"}, COMPLETE, None),
    ],
)
def test_headlines(old: dict[str, object], new: dict[str, object], told: tuple[str, str] | None) -> None:
    found = headline(status(**old), status(**new))
    assert (found[:2] if found else None) == told


def test_a_version_in_doubt_is_told_as_one() -> None:
    made: dict[str, object] = {"artifact": {}, "steps": 9}
    done = {"phase": "Succeeded", "modelVersion": 3}
    risen = headline(status(phase="Running"), status(**done, result=made | {"warnings": ["the loss rose"]}))
    assert risen == ("Warning", "TrainingDiverged", "version 3 is registered, but the loss rose")
    unmoved = made | {"warnings": [f"{NOTHING_LEARNT}: no weight has moved"]}
    kind, reason, said = headline(status(phase="Running"), status(**done, result=unmoved)) or ("", "", "")
    assert (kind, reason) == ("Warning", "Succeeded")
    assert said.startswith("version 3 is registered, but the tuned model answers as its base model does")
    rounded = made | {"warnings": [f"{LITTLE_KEPT}: 0.8%"]}
    found = headline(status(phase="Running"), status(**done, result=rounded))
    assert found == ("Warning", "Succeeded", f"version 3 is registered, but {LITTLE_KEPT}: 0.8%")
    for begin in (EXPERTS_LEFT, TOKENIZER_LEFT_OUT, TOO_LONG):
        other = made | {"warnings": [f"{begin}: it has 2 tokens more"]}
        assert (headline(status(phase="Running"), status(**done, result=other)) or ("", ""))[1] == "Succeeded"
    unmeasured = made | {"evaluationFailure": failure(Reason.OUT_OF_MEMORY), "warnings": [EXPERTS_LEFT]}
    found = headline(status(phase="Running"), status(**done, result=unmeasured))
    assert found == ("Warning", "OutOfMemory", "version 3 is registered, and is not measured: m")


@pytest.mark.parametrize(
    ("provider", "kept"),
    [
        ({"name": "huggingFace"}, "the checkpoint is kept"),
        ({"name": "sageMaker", "askedAt": "2026-11-21T12:00:00Z"}, "the checkpoint is kept"),
        ({"name": "openAI", "askedAt": "2026-11-21T12:00:00Z"}, "the next one is paid for from the beginning"),
        ({"name": "bedrock"}, "no job was made at the provider"),
        ({"name": "sageMaker"}, "no job was made at the provider"),
        ({"name": "sageMaker", "attempt": 2}, "the checkpoint is kept"),
        ({}, "nothing has begun yet"),
    ],
)
def test_what_a_suspension_keeps_is_told_as_it_is(provider: dict[str, Any], kept: str) -> None:
    before = FineTuneJobStatus.model_validate({"phase": "Running", "provider": provider})
    told = headline(before, before.model_copy(update={"phase": "Suspended"}))
    assert told is not None
    assert kept in told[2]
