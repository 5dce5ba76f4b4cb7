"""What uses up a retry: failures always, interruptions by the cluster only while nothing new is saved between them."""

from typing import Any

import pytest

from finetune_api.job_status import FineTuneJobStatus, Progress, ProviderStatus
from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.decide.job.retries import RETRY_DELAYS, Tally, saved
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.steps import decide
from tests.unit.finetune_operator.decide.given import (
    connection,
    failed,
    job_spec,
    progress,
    report,
    running,
    stamp,
    view,
)

LIMIT = 2


def attempt(said: str, number: int) -> Run:
    """How an attempt ended: in its reason, and with the step of its newest checkpoint where it had one."""
    reason, _, step = said.partition(" ")
    told = report("Running", number, progress=progress() | ({"savedStep": int(step)} if step else {}))
    interrupted = reason in {"Evicted", "NodeLost", "Interrupted"}
    return failed(Reason(reason), "it ended", attempt=number, report=told, interrupted=interrupted)


def lives(*ends: str, limit: int = LIMIT, heard: bool = True) -> FineTuneJobStatus:
    """The status after these ends; `heard`: whether the operator knows the reports itself, or only what status says."""
    status = running()
    for number, said in enumerate(ends, start=1):
        assert status.phase != "Failed", f"given up before attempt {number}"
        its_run = attempt(said, number)
        if not heard:
            assert its_run.report is not None
            status = status.model_copy(update={"progress": its_run.report.progress})
            its_run = failed(Reason(said.split(" ", maxsplit=1)[0]), attempt=number, interrupted=its_run.interrupted)
        given = running(number, provider=_begun(status.provider, number), progress=status.progress)
        status = decide(view(its_run, given, connection=connection({"maxRetries": limit}))).status
    return status


@pytest.mark.parametrize("reason", ["Evicted", "NodeLost", "Interrupted"])
def test_who_is_interrupted_and_goes_on_has_nothing_to_do(reason: str) -> None:
    goes_on, gives_up = lives(f"{reason} 10"), lives(reason, reason, reason)
    assert goes_on.provider is not None
    assert goes_on.provider.last_failure is not None
    assert gives_up.failure is not None
    assert (goes_on.provider.last_failure.next_step or "").startswith("Nothing to do")
    assert "spec.retryNonce" in (gives_up.failure.next_step or "")


def test_what_helps_against_an_end_is_said_of_an_attempt_that_is_followed_by_another() -> None:
    provider = lives("OutOfMemory").provider
    assert provider is not None
    assert provider.last_failure is not None
    assert provider.last_failure.next_step == NEXT_STEP[Reason.OUT_OF_MEMORY]


def test_a_store_that_was_away_when_an_attempt_began_anew_does_not_end_a_job_of_days() -> None:
    """Nothing of it is wrong: the hub, the bucket or the cluster's DNS did not answer for some minutes."""
    status = lives("Evicted 900", "StoreUnavailable")
    assert status.phase == "Pending"
    assert status.provider is not None
    assert Tally.of(status.provider).used == 1
    assert lives("Evicted 900", *["StoreUnavailable"] * 3).phase == "Failed", "it uses up a retry each time"


def test_a_store_that_no_attempt_has_reached_is_told_at_once() -> None:
    """Its address may be misspelt: who waits for an answer waits for the pod's own minute alone."""
    assert lives("StoreUnavailable").phase == "Failed"


@pytest.mark.parametrize("reason", ["TrainerCrashed", "CodeFailed", "DatasetInvalid"])
def test_what_is_saved_makes_no_failure_worth_another_attempt(reason: str) -> None:
    """It would be met again at the same place, by each of them."""
    assert lives("Evicted 900", reason).phase == "Failed"
    assert lives(f"{reason} 900").phase == "Failed"


def _begun(before: ProviderStatus | None, number: int) -> ProviderStatus:
    assert before is not None
    return before.model_copy(update={"attempt": number, "job_id": f"sentiment-1-{number}", "retry_after": None})


@pytest.mark.parametrize(
    ("ends", "used"),
    [
        pytest.param(["Evicted 10"], 0, id="it had got on"),
        pytest.param([f"NodeLost {step}" for step in range(1, 30)], 0, id="as often as there is something new"),
        pytest.param(["Evicted"], 1, id="nothing is known to be saved"),
        pytest.param(["Evicted 10", "Evicted 10"], 1, id="it went on from there and came no further"),
        pytest.param(["Evicted 10", "Evicted 7"], 1, id="the newest checkpoint was damaged"),
        pytest.param(["Evicted 10", "Evicted 7", "Evicted 9"], 2, id="a second time to where it had been"),
        pytest.param(["Evicted", "NodeLost", "Interrupted 5"], 0, id="what was in vain is forgotten when it gets on"),
        pytest.param(["Evicted", "Interrupted 5", "NodeLost 5", "Evicted 5"], 2, id="in a row, since it last got on"),
        pytest.param(["OutOfMemory 10"], 1, id="a failure of its own counts though it had got on"),
        pytest.param(["OutOfMemory 10", "Evicted 20", "Evicted 30"], 1, id="and is never forgotten"),
        pytest.param(["OutOfMemory 10", "Evicted 10"], 2, id="nor does its checkpoint count twice"),
        pytest.param(["Evicted 10", "Evicted 10", "OutOfMemory 20"], 1, id="what failed by itself had got on, too"),
    ],
)
@pytest.mark.parametrize("heard", [True, False])
def test_what_counts_against_the_limit(ends: list[str], used: int, heard: bool) -> None:
    told = lives(*ends, heard=heard).provider
    assert told is not None
    assert Tally.of(told).used == used
    assert (told.attempt, told.retries) == (len(ends) + 1, len(ends)), "each is counted as an attempt and as a retry"


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (["Evicted"] * 3, "it ended; given up after 2 retries"),
        (["OutOfMemory"] * 3, "it ended; given up after 2 retries"),
        (
            ["Evicted 10", "Evicted 20", *["Evicted 20"] * 3],
            "it ended; given up after 4 retries, as no newer checkpoint was reached in the last 3 attempts",
        ),
        (
            ["Evicted 10", "Evicted 20", *["OutOfMemory 30"] * 3],
            "it ended; given up after 2 retries, not counting 2 after interruptions",
        ),
    ],
)
def test_a_job_that_does_not_get_on_is_given_up_and_says_so(ends: list[str], said: str) -> None:
    status = lives(*ends)
    assert status.phase == "Failed"
    assert status.failure is not None
    assert status.failure.message == said
    assert status.failure.attempt == len(ends)


def test_who_wants_no_retries_gets_none_after_an_interruption_either() -> None:
    assert lives("Evicted 10", limit=0).phase == "Failed"


def test_the_pause_is_short_again_once_the_job_has_got_on() -> None:
    assert [Tally(retries, retries).delay for retries in (1, 9)] == [RETRY_DELAYS[0]] * 2
    in_vain = [Tally(9, 9, fruitless).delay for fruitless in range(1, 7)]
    assert in_vain == [*RETRY_DELAYS, RETRY_DELAYS[-1]]


def test_a_new_nonce_gives_all_retries_back_and_forgets_no_checkpoint() -> None:
    status = lives(*["Evicted 10"] * 4)
    assert status.phase == "Failed"
    begun = decide(view(status=status, spec=job_spec(retryNonce="again"))).status.provider
    assert begun is not None
    assert Tally.of(begun) == Tally(saved_work=10)


def test_a_job_whose_job_was_deleted_was_interrupted() -> None:
    got_on = running(progress=Progress.model_validate(progress() | {"savedStep": 10}))
    told = decide(view(status=got_on)).status.provider
    assert told is not None
    assert (told.retries, told.interruptions, told.fruitless_interruptions) == (1, 1, 0)


@pytest.mark.parametrize(
    ("told", "work"),
    [
        ([], 0),
        ([{}], 0),
        ([{"savedStep": 100}], 100),
        ([{"savedStep": 100, "answers": 7}], 107),
        ([{"savedStep": 60}, {"savedStep": 80}], 80),
    ],
)
def test_what_is_saved_is_steps_of_checkpoints_and_answers(told: list[dict[str, Any]], work: int) -> None:
    assert saved(None, *(Progress.model_validate(progress() | one) for one in told)) == work


@pytest.mark.parametrize("reason", [Reason.OUT_OF_MEMORY, Reason.EVICTED])
def test_a_pod_that_is_too_large_for_its_limit_twice_at_the_same_place_is_not_made_a_third_time(reason: Reason) -> None:
    def too_large(number: int, step: int, before: FineTuneJobStatus) -> FineTuneJobStatus:
        told = report("Running", number, progress=progress() | {"savedStep": step})
        its_run = failed(reason, "it ended.", attempt=number, report=told, at_its_limit=True)
        given = running(number, provider=_begun(before.provider, number), progress=before.progress)
        return decide(view(its_run, given, connection=connection({"maxRetries": 5}))).status

    once = too_large(1, 10, running())
    assert once.phase == "Pending", "the first time may be an accident"
    assert too_large(2, 20, once).phase == "Pending", "it came further"
    ended = too_large(2, 10, once)
    assert ended.phase == "Failed"
    assert ended.failure is not None
    assert ended.failure.message == (
        "it ended; given up after 1 retry, as the previous attempt ended in the same way at the same point"
    )


def test_a_pause_that_another_clock_has_written_holds_nothing_up() -> None:
    waits = running(provider=ProviderStatus(name="huggingFace", attempt=2, retries=1, retry_after=stamp(7200)))
    assert decide(view(status=waits)).start
