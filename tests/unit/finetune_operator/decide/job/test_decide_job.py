"""What is done about a job: each step of the chain, and what status says of it."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderStatus
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.cloud_job.steps import decide as decide_remote
from finetune_operator.decide.job.change import fail
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import STEPS, decide, refused_by_policy
from finetune_operator.decide.job.view import Decision, JobView
from finetune_operator.decide.pods.grace import GRACE
from tests.unit.finetune_operator.decide.given import (
    NOW,
    at,
    condition,
    connection,
    ended_as,
    failed,
    job_spec,
    kstatus,
    progress,
    provider,
    report,
    run,
    running,
    stamp,
    succeeded,
    verdict,
    view,
)


def test_the_order_of_the_chain() -> None:
    assert [step.__name__ for step in STEPS] == [
        "handle_deletion",
        "reject_false_completion",
        "keep_finished",
        "refuse_invalid_spec",
        "restart",
        "report_unreachable",
        "suspend",
        "restore_completion",
        "notice_loss",
        "hold_restored",
        "wait_for_connection",
        "refuse_by_policy",
        "wait_for_last_pod",
        "wait_before_retry",
        "start",
        "adopt",
        "recreate",
        "wait_for_pod",
        "notice_silence",
        "follow",
        "retry_or_fail",
        "complete",
    ]


ENDPOINT = {"name": "rag", "url": "https://rag.example.com", "model": "m"}

# What decides, with the phase, the reason of Ready, and what kstatus makes of it: one row per state of a job.
STATES: dict[str, tuple[JobView, str | None, str, str]] = {
    "just applied": (view(), "Queued", "Queued", "InProgress"),
    "spec that models do not know": (view(spec=None, spec_error="spec.x"), "Failed", "SpecInvalid", "Failed"),
    "spec of newer definitions": (
        view(spec=None, spec_error="spec.x", newer=True),
        "Pending",
        "SpecInvalid",
        "Failed",
    ),
    "uri that cannot be read": (
        view(spec=job_spec(dataset={"train": {"uri": "https://host/?q"}})),
        "Failed",
        "SpecInvalid",
        "Failed",
    ),
    "connection not there yet": (view(connection=None), "Pending", "ConnectionNotFound", "InProgress"),
    "connection not there": (view(connection=None, now=NOW + GRACE), "Pending", "ConnectionNotFound", "Failed"),
    "namespace not labelled yet": (
        view(connection=connection(namespaceSelector={"matchLabels": {"team": "b"}})),
        "Pending",
        "NamespaceNotAllowed",
        "InProgress",
    ),
    "namespace not allowed": (
        view(connection=connection(namespaceSelector={"matchLabels": {"team": "b"}}), now=NOW + GRACE),
        "Failed",
        "NamespaceNotAllowed",
        "Failed",
    ),
    "model not allowed": (
        view(connection=connection(fineTuning={"allowedModels": ["other/*"]})),
        "Failed",
        "ModelNotAllowed",
        "Failed",
    ),
    "endpoint not allowed": (
        view(
            spec=job_spec(evaluation={"baselines": [{"endpoint": ENDPOINT}]}),
            connection=connection(fineTuning={"allowedEndpoints": []}),
        ),
        "Failed",
        "EndpointNotAllowed",
        "Failed",
    ),
    "fine-tuning off": (
        view(connection=connection(fineTuning={"enabled": False})),
        "Failed",
        "FineTuningDisabled",
        "Failed",
    ),
    "own code that is not allowed": (
        view(spec=job_spec(code={"configMapRef": {"name": "my-recipe", "key": "train.py"}})),
        "Failed",
        "CodeNotAllowed",
        "Failed",
    ),
    "last pod still there": (view(live_pods=True), "Pending", "Pending", "InProgress"),
    "pod waits for room": (
        view(run("Queued", failure=Failure.because(Reason.UNSCHEDULABLE, "0/2 nodes")), running()),
        "Queued",
        "Unschedulable",
        "InProgress",
    ),
    "image cannot be pulled": (
        view(run("Queued", failure=Failure.because(Reason.IMAGE_PULL_FAILED, "not found")), running()),
        "Queued",
        "ImagePullFailed",
        "Failed",
    ),
    "pod refused by a quota": (
        view(run("Queued", failure=Failure.because(Reason.POD_REJECTED, "quota")), running()),
        "Queued",
        "PodRejected",
        "Failed",
    ),
    "Secret missing": (
        view(run("Queued", failure=Failure.because(Reason.CONTAINER_CONFIG_INVALID, "secret")), running()),
        "Queued",
        "ContainerConfigInvalid",
        "Failed",
    ),
    "at work without a report": (
        view(run("Active"), running(phase="Queued")),
        "Validating",
        "Validating",
        "InProgress",
    ),
    "reading the data": (
        view(run("Active", report=report("Validating")), running(phase="Queued")),
        "Validating",
        "Validating",
        "InProgress",
    ),
    "not heard for long": (
        view(run("Active", report=report("Running")), running(), last_report_at=at(-900)),
        "Running",
        "TrainerSilent",
        "Failed",
    ),
    "from a backup, without its status": (view(restored="monday"), "Pending", "Restored", "Failed"),
    "tuning": (view(run("Active", report=report("Running")), running()), "Running", "Running", "InProgress"),
    "measuring": (
        view(run("Active", report=report("Evaluating")), running()),
        "Evaluating",
        "Evaluating",
        "InProgress",
    ),
    "done, the pod not ended": (
        view(run("Active", report=succeeded()), running(phase="Queued")),
        "Running",
        "Running",
        "InProgress",
    ),
    "retrying": (view(failed(Reason.EVICTED), running()), "Pending", "Retrying", "InProgress"),
    "suspended before the start": (view(spec=job_spec(suspend=True)), "Suspended", "Suspended", "InProgress"),
    "suspended while running": (
        view(run("Active"), running(), spec=job_spec(suspend=True)),
        "Suspended",
        "Suspended",
        "InProgress",
    ),
    "failed": (view(failed(Reason.DATASET_INVALID), running()), "Failed", "DatasetInvalid", "Failed"),
    "succeeded": (
        view(run("Succeeded", report=succeeded()), running(), version=3),
        "Succeeded",
        "Succeeded",
        "Current",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_every_state_has_its_phase_reason_and_kstatus(name: str) -> None:
    given, phase, reason, for_tools = STATES[name]
    status = decide(given).status
    assert status.phase == phase
    assert condition(status, "Ready").reason == reason
    assert kstatus(status) == for_tools
    assert status.observed_generation == given.generation
    assert [c.status for c in status.conditions or () if c.type in {"Ready", "Reconciling", "Stalled"}].count(
        "True"
    ) == (0 if phase == "Suspended" else 1)


@pytest.mark.parametrize("name", ["namespace not allowed", "model not allowed", "fine-tuning off"])
def test_what_an_admin_may_allow_later_is_told_with_how_it_begins_then_and_that_it_cannot_be_changed(name: str) -> None:
    failure = decide(STATES[name][0]).status.failure
    assert failure is not None
    assert str(failure.next_step).endswith(
        "Then set spec.retryNonce; if the job itself has to change, apply it under a new name."
    )


@pytest.mark.parametrize("name", STATES)
def test_in_every_state_a_sentence_says_what_it_does_or_waits_for(name: str) -> None:
    """`kubectl get -o wide` shows the message of Ready."""
    found = condition(decide(STATES[name][0]).status, "Ready")
    assert found is None or found.message, "nothing is written of what is being deleted"


@pytest.mark.parametrize("reason", [*NEXT_STEP, None])
def test_a_failed_job_says_how_it_goes_on_once_the_cause_is_mended(reason: Reason | None) -> None:
    step = NEXT_STEP[reason] if reason else None
    given = Failure(reason=reason or Reason.TRAINER_CRASHED, message="because", next_step=step)
    failure = fail(STATES["failed"][0], given).status.failure
    assert failure is not None
    said = str(failure.next_step)
    assert said.startswith(step or "Set spec.retryNonce;")
    assert "retryNonce" in said or "new name" in said


CHANGES_THE_WORLD = {
    "just applied",
    "spec that models do not know",
    "uri that cannot be read",
    "namespace not allowed",
    "model not allowed",
    "fine-tuning off",
    "provider of another release",
    "retrying",
    "suspended while running",
    "failed",
}
"""Decisions that start, stop or end something: the next one meets another world (see test_decide_simulation)."""


@pytest.mark.parametrize("name", sorted(STATES.keys() - CHANGES_THE_WORLD))
def test_deciding_again_on_the_same_world_changes_nothing(name: str) -> None:
    first = decide(STATES[name][0])
    assert decide(replace(STATES[name][0], status=first.status)).status == first.status


@pytest.mark.parametrize("reason", [*Reason])
def test_a_failure_of_any_reason_is_told_with_its_reason_and_attempt(reason: Reason) -> None:
    decision = decide(view(failed(reason), running(), connection=connection({"maxRetries": 0})))
    assert decision.status.phase == "Failed"
    assert decision.status.failure is not None
    assert (decision.status.failure.reason, decision.status.failure.attempt) == (reason, 1)
    assert condition(decision.status, "Failed").reason == reason.value


# Ended jobs.


@pytest.mark.parametrize(
    ("its_run", "stop"),
    [(run("Active"), True), (run("Queued"), True), (Run("Absent"), False), (run("Succeeded"), False)],
)
def test_a_job_on_its_way_out_has_what_runs_ended_and_nothing_else(its_run: Run, stop: bool) -> None:
    given = view(its_run, running(), deleting=True)
    assert decide(given) == Decision(given.status, stop=stop)


@pytest.mark.parametrize("its_run", [Run("Absent"), run("Active"), run("Queued"), failed(Reason.EVICTED)])
def test_a_failed_job_stays_failed_and_keeps_no_pod(its_run: Run) -> None:
    status = ended_as("Failed")
    decision = decide(view(its_run, status))
    assert decision.status == status
    assert decision.stop == (its_run.state != "Absent")
    assert not decision.start


def test_a_succeeded_job_keeps_its_pod_and_is_never_started_again() -> None:
    status = ended_as("Complete")
    for its_run in (Run("Absent"), run("Succeeded", report=succeeded())):
        assert decide(view(its_run, status, version=1)) == Decision(status)


def test_a_succeeded_job_ends_a_pod_in_which_something_goes_on_beside_the_trainer() -> None:
    status = ended_as("Complete")
    given = view(run("Succeeded", report=succeeded()), status, version=1, live_pods=True)
    assert decide(given) == Decision(status, stop=True)
    assert decide(replace(given, run=Run("Absent"))) == Decision(status), "it is being deleted"


def test_a_failure_is_written_before_its_pod_is_stopped() -> None:
    decision = decide(view(failed(Reason.DATASET_INVALID), running()))
    assert not decision.stop
    assert decision.requeue_after == 0


LOST: dict[str, tuple[ProviderStatus | None, int | None, str]] = {
    "a version, and no status": (None, 3, "Succeeded"),
    "a version of a model that was restored, and an attempt to come": (provider(job_id=None), 3, "Queued"),
    "from a backup, and no status": (None, None, "Pending"),
    "from a backup, and an attempt to come": (provider(job_id=None), None, "Queued"),
}


@pytest.mark.parametrize("name", LOST)
def test_what_was_lost_is_made_up_for_only_where_status_says_nothing_of_an_attempt(name: str) -> None:
    recorded, version, phase = LOST[name]
    restored = None if version else "monday"
    decision = decide(view(status=FineTuneJobStatus(provider=recorded), version=version, restored=restored))
    assert (decision.status.phase, decision.start) == (phase, phase == "Queued")


@pytest.mark.parametrize("remote", [False, True])
def test_a_restored_job_says_what_may_be_billed_meanwhile(remote: bool) -> None:
    """Pods end with the namespace, or with their job; a job at a provider does not."""
    failure = decide(view(restored="monday", remote=remote)).status.failure
    assert failure is not None
    assert ("at its provider continues there unseen, and is billed" in failure.message) == remote


@pytest.mark.parametrize(
    ("ttl", "seconds", "delete", "again"),
    [(None, 0, False, None), (60, 0, False, 60), (60, 59, False, 1), (60, 60, True, None), (0, 0, True, None)],
)
@pytest.mark.parametrize("kind", ["Complete", "Failed"])
def test_time_to_live(kind: str, ttl: int | None, seconds: float, delete: bool, again: float | None) -> None:
    given = view(status=ended_as(kind), spec=job_spec(ttlSecondsAfterFinished=ttl), now=at(seconds))
    assert (decide(given).delete, decide(given).requeue_after) == (delete, again)


def test_a_change_of_ttl_on_an_ended_job_is_observed_and_keeps_its_conditions() -> None:
    status = ended_as("Complete")
    after = decide(view(status=status, generation=2, now=at(60))).status
    assert after.observed_generation == 2
    assert after.conditions == of_generation(2, status)
    assert kstatus(after, 2) == "Current"


def of_generation(generation: int, status: Any) -> list[Any]:
    """The same conditions, said of another generation of the spec: `kubectl wait` passes over those of an older one."""
    return [c.model_copy(update={"observed_generation": generation}) for c in status.conditions]


def test_what_was_found_of_the_data_holds_for_the_next_generation_of_a_running_job() -> None:
    checked = decide(view(run("Active", report=report(dataset=verdict())), running())).status
    after = decide(view(run("Active"), checked, generation=2)).status
    assert condition(after, "DatasetValid").observed_generation == 2
    assert condition(after, "DatasetValid").status == "True"


@pytest.mark.parametrize(
    ("change", "written"),
    [({}, False), ({"generation": 2}, True), ({"failed": True}, True)],
    ids=["nothing", "a new generation", "what was in the way is over"],
)
def test_what_was_said_of_a_job_at_work_is_said_again_only_where_something_of_it_is_other(
    change: dict[str, Any], written: bool
) -> None:
    told = run("Active", report=report(progress=progress()))
    status = decide(view(told, running())).status
    if change.pop("failed", False):
        status = status.model_copy(update={"failure": Failure.because(Reason.TRAINER_SILENT, "not heard")})
    after = decide(view(told, status, **change)).status
    assert (after != status) is written
    assert (after.observed_generation, after.failure) == (change.get("generation", 1), None)


@pytest.mark.parametrize(
    ("spec", "its_run", "by_policy"),
    [
        (job_spec(), None, True),
        (job_spec(dataset={"train": {"uri": "nowhere"}}), None, False),
        (job_spec(), failed(Reason.DATASET_INVALID), False),
        (job_spec(), run("Active"), False),
    ],
    ids=["its connection", "its spec", "its data", "none"],
)
def test_only_what_a_connection_refuses_is_asked_for_once_more_before_it_is_for_good(
    spec: FineTuneJobSpec, its_run: Run | None, by_policy: bool
) -> None:
    closed = connection(fineTuning={"enabled": False})
    decision = decide(view(its_run, running() if its_run else None, spec=spec, connection=closed))
    assert refused_by_policy(decision) is by_policy


def test_a_new_nonce_of_a_complete_job_leaves_what_kubectl_waits_for() -> None:
    status = ended_as("Complete")
    after = decide(view(status=status, spec=job_spec(retryNonce="1"), generation=2)).status
    assert after.conditions == of_generation(2, status)


# Connections.


@pytest.mark.parametrize(
    ("usable", "said"),
    [
        (("local-cpu", "openai"), "; this namespace may use local-cpu, openai"),
        (tuple(f"c{n:02}" for n in range(12)), "c08, c09 and 2 more"),
        (
            (*(f"c{n:02}" for n in range(12)), "locale", "remote"),
            "use locale, c00, c01, c02, c03, c04, c05, c06, c07, c08 and 4 more",
        ),
        ((), "; no LLMConnection serves this namespace"),
    ],
)
def test_of_a_connection_that_is_not_there_those_are_named_that_the_namespace_may_use(
    usable: tuple[str, ...], said: str
) -> None:
    failure = decide(view(connection=None, usable_connections=usable, now=at(60))).status.failure  # type: ignore[union-attr]
    assert failure is not None
    assert failure.message.startswith("spec.connectionRef: LLMConnection local does not exist")
    assert str(failure.next_step).startswith("Apply the job" if usable else "Ask an admin to create")
    assert failure.message.endswith(said)


def test_a_missing_connection_is_no_alarm_for_a_minute_then_one_and_forgotten_when_it_comes() -> None:
    early = decide(view(connection=None, now=at(59)))
    assert early.status.failure is None
    assert early.requeue_after == pytest.approx(1)
    late = decide(view(status=early.status, connection=None, now=at(60)))
    assert late.status.failure is not None
    assert late.status.failure.reason is Reason.CONNECTION_NOT_FOUND
    assert condition(late.status, "Stalled").status == "True"
    found = decide(view(status=late.status, now=at(600)))
    assert found.start
    assert found.status.failure is None
    assert kstatus(found.status) == "InProgress"


def test_a_namespace_whose_label_comes_a_little_later_is_no_alarm_and_its_job_starts_then() -> None:
    of_team = connection(namespaceSelector={"matchLabels": {"team": "a"}})
    not_yet = view(now=at(59), namespace_labels={}, connection=of_team)
    early = decide(not_yet)
    assert (early.status.failure, early.requeue_after) == (None, pytest.approx(1))
    assert decide(replace(not_yet, status=early.status, namespace_labels={"team": "a"})).start
    assert decide(replace(not_yet, now=at(659), connection_created=at(600))).status.phase == "Pending", "in one commit"


@pytest.mark.parametrize(
    "change", [connection(fineTuning={"enabled": False}), connection(namespaceSelector=None), None]
)
def test_a_running_attempt_does_not_mind_what_becomes_of_the_connection(change: Any) -> None:
    decision = decide(view(run("Active", report=report()), running(), connection=change))
    assert decision.status.phase == "Running"
    assert not decision.stop


def test_the_next_attempt_does_mind() -> None:
    waiting = running(provider=provider(2, job_id=None, retry_after=stamp(0)))
    off = connection(fineTuning={"enabled": False})
    assert decide(view(status=waiting, connection=off)).status.phase == "Failed"


def test_a_connection_that_is_gone_for_the_moment_takes_no_retries_away() -> None:
    decision = decide(view(failed(Reason.NODE_LOST), running(), connection=None))
    assert condition(decision.status, "Reconciling").reason == "Retrying"


@pytest.mark.parametrize("chain", [decide, decide_remote])
@pytest.mark.parametrize("state", ["Queued", "Active", "Succeeded", "Failed", "Absent"])
def test_an_attempt_of_a_spec_that_another_release_wrote_is_neither_ended_nor_given_up(state: Any, chain: Any) -> None:
    """As after a rollback of the operator: what runs, and may be paid for, goes on until the newer one is back."""
    its_run = failed(Reason.TRAINER_CRASHED) if state == "Failed" else run(state, report=succeeded())
    status = running(start_time=stamp())
    given = view(
        its_run,
        status,
        spec=None,
        spec_error="spec.newer: Extra inputs are not permitted",
        remote=chain is decide_remote,
    )
    decision = chain(given)
    told = condition(decision.status, "Stalled")
    assert (told.status, told.reason, decision.status.phase) == ("True", "SpecInvalid", "Running")
    assert (decision.stop, decision.start, condition(decision.status, "Failed")) == (False, False, None)
    assert "continues automatically" in (decision.status.failure.next_step or "")
    again = chain(replace(given, status=decision.status))
    assert (again.status, again.stop) == (decision.status, False)


def test_a_phase_that_the_trainer_has_left_is_written_at_once() -> None:
    """The words may be the same: of what keeps a pod, say."""
    noted = Run("Active", note="leaving its node", report=report(phase="Running", progress=progress()))
    before = decide(view(noted, running())).status
    assert before.phase == "Running"
    evaluating = replace(noted, report=report(phase="Evaluating", progress=progress()))
    assert decide(view(evaluating, before)).status.phase == "Evaluating"
