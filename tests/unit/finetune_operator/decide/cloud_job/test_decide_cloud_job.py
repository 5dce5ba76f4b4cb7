"""What is decided about a job at a provider outside of the cluster: one row for each state that a person meets."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.catalogue import ProviderFacts
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job_status import Failure, Progress
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import cloud_policy, outcomes
from finetune_operator.decide.cloud_job import steps as cloud_job
from finetune_operator.decide.cloud_job.steps import NAMING, decide
from finetune_operator.decide.cloud_job.submission import Adopt, Create, Wait, next_move
from finetune_operator.decide.job.remote import SETTLE, Metrics, is_of
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.view import Active, JobView
from finetune_operator.decide.pods.grace import GRACE
from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import (
    FILE,
    KEY,
    at_provider,
    checked,
    checking,
    facts,
    given,
    remote,
    spec,
    status,
)
from tests.unit.finetune_operator.decide.given import (
    NOW,
    UID,
    at,
    azure_connection,
    bedrock_connection,
    condition,
    failed,
    kstatus,
    openai_connection,
    sagemaker_connection,
    stamp,
)


def unreachable(reason: Reason) -> Run:
    return Run("Unreachable", failure=Failure.because(reason, "because"), job_id="ftjob-1")


def broken(reason: Reason) -> Run:
    return at_provider("Failed", failure=Failure.because(reason, "because"))


STATES: dict[str, tuple[JobView, str, str, str]] = {
    # what is given, then phase, reason of Ready, kstatus
    "queued there": (given(at_provider("Queued", note="waiting"), status()), "Queued", "Queued", "InProgress"),
    "running": (given(at_provider("Active"), status()), "Running", "Running", "InProgress"),
    "paused there": (given(at_provider("Active", note="paused"), status()), "Running", "Running", "InProgress"),
    "checked": (given(checked(), checking()), "Queued", "Queued", "InProgress"),
    "no answer": (
        given(unreachable(Reason.PROVIDER_UNAVAILABLE), status()),
        "Running",
        "ProviderUnavailable",
        "InProgress",
    ),
    "a limit": (given(unreachable(Reason.RATE_LIMITED), status()), "Running", "RateLimited", "InProgress"),
    "bad key": (given(unreachable(Reason.CREDENTIALS_INVALID), status()), "Running", "CredentialsInvalid", "Failed"),
    "no Secret yet": (given(unreachable(Reason.SECRET_NOT_FOUND), status()), "Running", "SecretNotFound", "InProgress"),
    "no Secret": (
        given(unreachable(Reason.SECRET_NOT_FOUND), status(), now=NOW + GRACE),
        "Running",
        "SecretNotFound",
        "Failed",
    ),
    "no connection any more": (
        given(unreachable(Reason.CONNECTION_NOT_FOUND), status(), connection=None),
        "Running",
        "ConnectionNotFound",
        "Failed",
    ),
    "failed there": (given(broken(Reason.PROVIDER_FAILED), status()), "Failed", "ProviderFailed", "Failed"),
    "no credit": (given(broken(Reason.QUOTA_EXCEEDED), status()), "Failed", "QuotaExceeded", "Failed"),
    "cancelled there": (given(at_provider("Cancelled"), status()), "Failed", "CancelledAtProvider", "Failed"),
    "gone there": (given(at_provider("Gone"), status()), "Failed", "DeletedAtProvider", "Failed"),
    "over budget": (
        given(checked(10**9), checking(), spec=spec(budget={"maxCost": "5"})),
        "Failed",
        "BudgetExceeded",
        "Failed",
    ),
    "no price": (
        given(checked(), checking(), spec=spec(budget={"maxCost": "5"}), facts=ProviderFacts()),
        "Failed",
        "PriceUnknown",
        "Failed",
    ),
    "closed": (given(facts=facts(closes="2026-01-01")), "Failed", "FineTuningClosed", "Failed"),
    "model shut down": (
        given(facts=facts(models={"gpt-*": {"shutdown": "2026-11-21"}})),
        "Failed",
        "ModelRetired",
        "Failed",
    ),
    "field without meaning": (given(spec=spec(method="Full")), "Failed", "SpecInvalid", "Failed"),
    "a base model without preferences": (
        given(spec=spec(preference={}), facts=facts(preferenceModels=["gpt-4.1*"])),
        "Failed",
        "SpecInvalid",
        "Failed",
    ),
    "data refused there": (given(broken(Reason.DATASET_INVALID), status()), "Failed", "DatasetInvalid", "Failed"),
    "refused": (
        given(failed(Reason.PROVIDER_REFUSED), checking()),
        "Failed",
        "ProviderRefused",
        "Failed",
    ),
    "deadline": (
        given(at_provider("Active"), status(), now=at(61), spec=spec(activeDeadlineSeconds=60)),
        "Failed",
        "DeadlineExceeded",
        "Failed",
    ),
    "check's pod evicted": (given(failed(Reason.EVICTED), checking()), "Pending", "Retrying", "InProgress"),
    "adopted": (given(spec=spec(adopt={"jobID": "ftjob-9"})), "Queued", "Queued", "InProgress"),
    "suspended": (
        given(at_provider("Active"), status(), spec=spec(suspend=True)),
        "Suspended",
        "Suspended",
        "InProgress",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_has_its_phase_reason_and_kstatus(name: str) -> None:
    seen, phase, reason, state = STATES[name]
    new = decide(seen).status
    ready = condition(new, "Ready")
    assert (new.phase, ready.reason, kstatus(new)) == (phase, reason, state)
    if state == "Failed":
        assert new.failure is not None
        assert new.failure.next_step


def test_the_order_of_the_chain() -> None:
    order = [step.__name__ for step in cloud_job.STEPS]
    assert order == [
        "record_files",
        "handle_deletion",
        "reject_false_completion",
        "keep_finished",
        "refuse_copy",
        "refuse_invalid_spec",
        "restart",
        "report_unreachable",
        "wait_for_news",
        "suspend",
        "restore_completion",
        "wait_for_namespace_deletion",
        "notice_loss",
        "hold_restored",
        "wait_for_connection",
        "refuse_by_policy",
        "refuse_unsupported_fields",
        "take_over",
        "refuse_retired",
        "refuse_unpriced",
        "wait_for_last_pod",
        "wait_before_retry",
        "start",
        "adopt",
        "refuse_other_base",
        "check_again",
        "enforce_deadline",
        "recreate",
        "wait_for_pod",
        "refuse_missing_uploads",
        "submit",
        "report_upload_failure",
        "notice_silence",
        "wait_for_model_name",
        "follow",
        "refuse_missing_job",
        "retry_or_fail",
        "measure",
        "complete",
    ]


def test_a_job_that_is_done_is_followed_until_its_model_has_a_name_and_not_for_ever() -> None:
    done = Run("Active", job_id="ftjob-1", note="not named yet", nameless=True)
    first = decide(given(done, status()))
    assert (first.status.provider and first.status.provider.nameless_since, first.requeue_after) == (stamp(), 0)
    waits = decide(given(done, first.status, now=at(60)))
    assert (waits.status.phase, waits.requeue_after) == ("Running", NAMING.total_seconds() - 60)
    ended = decide(given(done, waits.status, now=at(NAMING.total_seconds())))
    assert (ended.status.phase, ended.stop) == ("Failed", False)
    assert ended.status.failure is not None
    assert "ftjob-1 succeeded at the provider" in ended.status.failure.message
    assert "spec.adopt.jobID" in (ended.status.failure.next_step or "")


def test_a_job_that_nothing_is_known_of_stays_as_it_is() -> None:
    before = status()
    decision = decide(given(Run("Unseen", job_id="ftjob-1"), before, spec=spec(suspend=True)))
    assert (decision.status, decision.stop) == (before, False)


def test_what_was_checked_is_submitted_with_its_files_and_an_estimate() -> None:
    decision = decide(given(checked(1_000_000), checking()))
    assert decision.submit
    assert decision.status.provider.files == [FILE]
    assert decision.status.dataset.valid
    assert (decision.status.cost.estimated, decision.status.cost.currency) == ("9.00", "USD")
    assert "1,000,000 tokens" in decision.status.cost.basis


def test_files_are_recorded_before_the_pod_that_brought_them_may_go() -> None:
    for fields in ({}, {"deleting": True}):
        decision = decide(given(checked(), checking(files=None), **fields))
        assert decision.status.provider.files == [FILE]
        assert (decision.submit, decision.stop, decision.release) == (False, False, False)
        assert decision.requeue_after == 0, "the next look goes on"


def test_a_pause_that_a_provider_asks_for_is_kept_whatever_wakes_the_job() -> None:
    decision = decide(given(checked(), checking().model_copy(update={"provider": status(
        asked_at=None, job_id="sentiment-1-1", retry_after=stamp(30)).provider})))  # fmt: skip
    assert (decision.submit, decision.requeue_after) == (False, 30)


LISTED: dict[str, Any] = {
    name: {}
    for name in (
        *("gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "gpt-4.1-mini-2025-04-14", "gpt-4.1-2025-04-14"),
        "amazon.nova-*",
    )
}


@pytest.mark.parametrize(
    ("base_model", "reason", "said"),
    [
        ("gpt4o-mini", Reason.PROVIDER_REFUSED, "; did you mean spec.baseModel: gpt-4o-mini-2024-07-18?"),
        ("gpt-4o-mini", Reason.PROVIDER_REFUSED, "; did you mean spec.baseModel: gpt-4o-mini-2024-07-18?"),
        ("GPT-4.1", Reason.PROVIDER_REFUSED, "; did you mean spec.baseModel: gpt-4.1-2025-04-14?"),
        ("gpt-4o-2024-08-06", Reason.PROVIDER_REFUSED, "they refuse"),
        ("mistral-large", Reason.PROVIDER_REFUSED, "they refuse"),
        ("gpt4o-mini", Reason.CREDENTIALS_INVALID, "they refuse"),
    ],
)
def test_a_model_that_the_provider_does_not_take_is_answered_with_one_that_is_known(
    base_model: str, reason: Reason, said: str
) -> None:
    asked = given(checked(), checking(), spec=spec(baseModel=base_model), facts=facts(models=LISTED))
    failure = outcomes.refused(asked, Failure.because(reason, "they refuse")).status.failure  # type: ignore[union-attr]
    assert failure is not None
    assert failure.message.startswith("they refuse")
    assert failure.message.endswith(said)


def test_the_deadline_cancels() -> None:
    decision = decide(STATES["deadline"][0])
    assert decision.stop
    assert decision.requeue_after == 0, "it is over: nothing is left to wait for"


@pytest.mark.parametrize("state", ["Queued", "Active"])
def test_a_job_is_looked_at_again_when_its_deadline_is_over(state: Any) -> None:
    job = given(at_provider(state), status(), now=at(20), spec=spec(activeDeadlineSeconds=60))
    assert decide(job).requeue_after == 40
    assert decide(replace(job, spec=spec())).requeue_after is None
    nameless = replace(job, run=Run("Active", job_id="ftjob-1", nameless=True), status=status(nameless_since=stamp()))
    assert decide(nameless).requeue_after == 40, "the deadline is over before the model must have its name"
    later = replace(nameless, spec=spec(activeDeadlineSeconds=7200))
    assert decide(later).requeue_after == NAMING.total_seconds() - 20, "what comes before the deadline stays"


FOUND = remote("Active")
MOVES = {
    "nothing there, nothing asked": (checking(), 0, [], Create()),
    "there": (checking(), 0, [FOUND], Adopt(FOUND)),
    "asked a moment ago": (status(job_id=None), 10, [], Wait(15)),
    "asked, about to be certain": (status(job_id=None), SETTLE.total_seconds() - 5, [], Wait(5)),
    "asked long ago": (status(job_id=None), SETTLE.total_seconds(), [], Create()),
    "asked and found": (status(job_id=None), 10, [FOUND], Adopt(FOUND)),
    "two, the older stays": (
        status(job_id=None),
        10,
        [replace(FOUND, id="b", created=at(9)), replace(FOUND, id="a", created=at(1))],
        Adopt(replace(FOUND, id="a", created=at(1)), (replace(FOUND, id="b", created=at(9)),)),
    ),
    "two, one has ended": (
        status(job_id=None),
        10,
        [FOUND, replace(FOUND, id="z", state="Failed", created=at(9))],
        Adopt(FOUND),
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_is_asked_of_the_provider(name: str) -> None:
    before, seconds, found, move = MOVES[name]
    assert next_move(given(checked(), before, now=at(seconds)), found) == move


def test_an_ended_job_is_released_and_does_not_cancel_what_has_ended() -> None:
    ended = decide(given(broken(Reason.PROVIDER_FAILED), status())).status
    decision = decide(given(Run("Unseen", job_id="ftjob-1"), ended))
    assert (decision.release, decision.stop) == (True, False)
    assert not decide(given(Run("Unseen", job_id="ftjob-1"), ended, has_finalizer=False)).release


DELETIONS = {
    "running": ({}, True, True),
    "let go by its owner": ({"abandoned": True}, False, True),
    "nothing outside": ({"has_finalizer": False}, False, False),
}


@pytest.mark.parametrize("name", DELETIONS)
def test_a_deletion_ends_what_is_outside_first(name: str) -> None:
    fields, stop, release = DELETIONS[name]
    decision = decide(given(at_provider("Active"), status(), deleting=True, **fields))
    assert (decision.stop, decision.release) == (stop, release)


def test_an_adopted_job_is_never_cancelled() -> None:
    adopted = spec(adopt={"jobID": "ftjob-1"}, suspend=True, activeDeadlineSeconds=1)
    decision = decide(given(at_provider("Active"), status(), spec=adopted, now=at(100)))
    assert (decision.stop, decision.status.phase) == (False, "Running")
    assert not decide(given(spec=adopted)).start


def test_a_job_that_was_asked_for_is_not_refused_on_the_day_its_provider_closes() -> None:
    closed = facts(closes="2026-11-01")
    assert decide(given(checked(), checking(), facts=closed)).status.failure.reason is Reason.FINE_TUNING_CLOSED
    assert decide(given(checked(), status(job_id=None), facts=closed)).status.failure is None


def test_what_ends_is_said_while_there_is_time() -> None:
    told = facts(closes="2027-01-06", models={"gpt-*": {"shutdown": "2027-01-14"}})
    new = decide(given(checked(), checking(), facts=told)).status
    retiring = condition(new, "Retiring")
    assert (retiring.status, retiring.reason) == ("True", "ModelRetires")
    assert "2027-01-06" in retiring.message
    assert "2027-01-14" in retiring.message
    assert condition(decide(given(checked(), checking())).status, "Retiring") is None
    told_before = checking().model_copy(update={"conditions": [retiring]})
    assert condition(decide(given(checked(), told_before)).status, "Retiring").status == "False", "it was put right"


TEST_SET = {"train": {"uri": "pvc://d/t.jsonl"}, "test": {"uri": "pvc://d/e.jsonl"}}


def test_a_job_to_adopt_is_recorded_by_its_name_and_looked_up_at_once() -> None:
    decision = decide(given(spec=spec(adopt={"jobID": "ftjob-9"}, retryNonce="a"), now=at(5)))
    new = decision.status
    assert new.provider is not None
    assert (new.provider.name, new.provider.attempt) == ("openAI", 1)
    assert (new.provider.job_id, new.provider.asked_at) == ("ftjob-9", stamp(5))
    assert (new.start_time, new.observed_retry_nonce) == (stamp(5), "a")
    assert (decision.start, decision.submit, decision.requeue_after) == (False, False, 0)


ARCHIVE = Active(version=4, connection="training", uri="s3://tuning/model.tar.gz")


@pytest.mark.parametrize(("if_better", "refused"), [(True, True), (False, False)])
def test_an_archive_is_refused_only_where_the_job_is_compared_with_it(if_better: bool, refused: bool) -> None:
    asked = given(spec=spec(), connection=sagemaker_connection(), active=ARCHIVE, if_better=if_better)
    failure = decide(asked).status.failure
    assert (failure is not None and "spec.evaluation: version 4" in failure.message) is refused


def test_a_job_that_is_ours_may_be_shown_with_another_base_model() -> None:
    assert decide(given(at_provider("Active", base="ft:earlier"), status())).status.failure is None


def test_a_job_that_was_made_for_another_namespace_is_not_adopted() -> None:
    labels = {"uid": "another", "attempt": "1", "namespace": "team-b", "job": "secret"}
    adopted = spec(adopt={"jobID": "ftjob-1"})
    decision = decide(given(at_provider("Succeeded", model="ft:secret", labels=labels), status(), spec=adopted))
    failure = decision.status.failure
    assert failure is not None
    assert (decision.status.phase, failure.reason, decision.status.result) == ("Failed", Reason.SPEC_INVALID, None)
    assert "spec.adopt.jobID" in failure.message
    assert "team-b" not in failure.sentences, "whose it is stays theirs"
    assert "retryNonce" not in failure.sentences, "its field cannot be changed"
    assert not decision.stop


NAMED = {
    "the same": ("gpt-4o-mini", "gpt-4o-mini", True),
    "with its date": ("gpt-4o-mini-2024-07-18", "gpt-4o-mini", True),
    "without its date": ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", True),
    "an ARN": ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0", "amazon.nova-micro-v1:0", True),
    "an ARN with its context": (
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0:128k",
        "amazon.nova-micro-v1:0",
        True,
    ),
    "a tuned one": ("ft:gpt-4o-mini:org::1", "ft:gpt-4o-mini:org::1", True),
    "nobody says": ("", "gpt-4o-mini", True),
    "a smaller one": ("gpt-4o-mini-2024-07-18", "gpt-4o", False),
    "a newer one": ("gpt-4.1-2025-04-14", "gpt-4", False),
    "of another day": ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13", False),
    "another one": ("amazon.nova-lite-v1:0", "amazon.nova-micro-v1:0", False),
}


@pytest.mark.parametrize("state", ["Queued", "Active", "Succeeded"])
@pytest.mark.parametrize("name", NAMED)
def test_a_job_is_adopted_with_the_base_model_that_it_has(name: str, state: str) -> None:
    base, asked, fits = NAMED[name]
    adopted = spec(adopt={"jobID": "ftjob-1"}, baseModel=asked)
    failure = decide(given(at_provider(state, model="ft:a", base=base), status(), spec=adopted)).status.failure
    assert (failure is None) == fits
    if failure is not None:
        assert failure.reason is Reason.SPEC_INVALID
        assert failure.message == f"spec.baseModel: job ftjob-1 is tuned from {base}, and not from {asked}"
        assert failure.next_step == f"Apply the job under a new name with baseModel: {base}."


def test_a_job_that_an_earlier_job_of_the_namespace_has_made_is_adopted() -> None:
    labels = {"uid": "another", "attempt": "1", "namespace": KEY.namespace, "job": "earlier"}
    assert at_provider("Succeeded", model="ft:own", labels=labels).state == "Succeeded"


@pytest.mark.parametrize("connection", [openai_connection(), azure_connection(), bedrock_connection()])
def test_the_data_of_an_adopted_job_are_not_asked(connection: LLMConnectionSpec) -> None:
    adopted = spec(dataset=TEST_SET, adopt={"jobID": "ftjob-1"})
    assert "spec.dataset.test:" in (cloud_policy.unsupported(adopted, connection) or "")


OF_WHOM = {
    "its labels": ({"labels": {"uid": UID, "attempt": "1"}, "training_file": "other"}, True),
    "another attempt's": ({"labels": {"uid": UID, "attempt": "2"}, "training_file": "file-1"}, False),
    "another job's": ({"labels": {"uid": "x", "attempt": "1"}, "training_file": "file-1"}, False),
    "no labels, its file": ({"training_file": "file-1"}, True),
    "no labels, another file": ({"training_file": "file-2"}, False),
    "another file, its mark": ({"training_file": "file-2", "model": f"gpt.ft-1{KEY.mark}", "base": "gpt"}, True),
    "another file, its mark on the way": ({"training_file": "file-2", "suffix": f"own{KEY.mark}"}, True),
    "tuned from its model": (
        {"training_file": "file-2", "model": f"gpt.ft-1{KEY.mark}.ft-2-other", "base": f"gpt.ft-1{KEY.mark}"},
        False,
    ),
    "its mark on another job's": (
        {"labels": {"uid": "x", "attempt": "1"}, "training_file": "file-2", "model": f"gpt{KEY.mark}"},
        False,
    ),
}


@pytest.mark.parametrize("name", OF_WHOM)
def test_whose_a_job_at_the_provider_is(name: str) -> None:
    fields, own = OF_WHOM[name]
    assert is_of(remote("Active", **fields), KEY, "file-1") is own


def test_names_at_the_provider_tell_attempt_split_and_content_apart() -> None:
    other = replace(KEY, attempt=2)
    names = {
        key.file_name(split, digest * 64)
        for key in (KEY, other)
        for split in ("train", "validation")
        for digest in "ab"
    }
    assert len(names) == 8
    assert all(name.startswith(KEY.file_prefix) and name.endswith(".jsonl") for name in names)
    assert KEY.token != other.token


def test_a_finished_job_is_never_started_again_by_its_provider() -> None:
    done = decide(given(at_provider("Succeeded", model="ft:a"), status(), version=1)).status
    for run in (at_provider("Failed"), at_provider("Gone"), checked(), Run("Absent")):
        decision = decide(given(run, done))
        assert (decision.start, decision.submit, decision.status.phase) == (False, False, "Succeeded")


def test_progress_needs_to_know_how_many_steps_there_are() -> None:
    ends = datetime(2026, 11, 21, 12, 5, tzinfo=UTC)
    run = at_provider("Active", Metrics(step=5, total_steps=20), ends=ends)
    progress = run.report.progress
    assert (progress.percent, progress.eta_seconds) == (25, (ends - NOW) // timedelta(seconds=1))
    assert at_provider("Active", Metrics(step=5)).report.progress is None


def test_a_store_that_is_away_from_what_is_paid_for_ends_the_job() -> None:
    """It would be paid for again, to find out that the store is still away."""
    going = status().model_copy(update={"progress": Progress(step=9, total_steps=10, saved_step=9)})
    assert decide(given(broken(Reason.STORE_UNAVAILABLE), going)).status.phase == "Failed"
