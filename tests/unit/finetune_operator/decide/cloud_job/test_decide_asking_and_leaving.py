"""What is in status before a provider is asked, and what is said of what is left there when a job ends."""

import pytest

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import outcomes, submission
from finetune_operator.decide.cloud_job import steps as cloud_job
from finetune_operator.decide.cloud_job.steps import decide
from finetune_operator.decide.deployment import hosted
from finetune_operator.decide.job import change
from finetune_operator.decide.job.run import Run
from finetune_operator.decide.job.view import Decision, JobView
from tests.unit.finetune_operator.decide.cloud_job.given_cloud_jobs import (
    FILE,
    at_provider,
    checked,
    checking,
    given,
    remote,
    spec,
    status,
)
from tests.unit.finetune_operator.decide.given import (
    at,
    condition,
    kstatus,
    openai_connection,
    sagemaker_connection,
    stamp,
)

FOUND = remote("Active")
BROKEN = at_provider("Failed", failure=Failure.because(Reason.PROVIDER_FAILED, "because"))


@pytest.mark.parametrize(
    ("connection", "goes_on"), [(openai_connection(), False), (sagemaker_connection(), True)], ids=["again", "goes on"]
)
def test_that_a_job_is_asked_for_is_in_status_before_it_is(connection: LLMConnectionSpec, goes_on: bool) -> None:
    """What an earlier attempt has said is this one's only where it goes on from a checkpoint."""
    before = checking(retry_after=stamp(-1)).model_copy(update={"train_loss": 0.5, "eval_loss": 0.6})
    asker = given(checked(), before, connection=connection, now=at(5), account_now="project a")
    new = submission.asked(asker, before)
    provider = new.provider
    assert provider is not None
    assert (provider.asked_at, provider.job_id, provider.retry_after) == (stamp(5), None, None)
    assert (provider.account, provider.files) == ("project a", [FILE])
    assert (new.train_loss, new.eval_loss) == ((0.5, 0.6) if goes_on else (None, None))
    assert submission.submitted(new, FOUND).provider == provider.model_copy(update={"job_id": FOUND.id})


@pytest.mark.parametrize(("pause", "again"), [(30, 30), (0.1, 1)])
def test_a_pause_that_a_provider_asks_for_is_recorded_and_no_look_is_at_once(pause: float, again: float) -> None:
    busy = Failure.because(Reason.RATE_LIMITED, "later")
    decision = outcomes.postponed(given(checked(), checking()), busy, pause)
    assert decision.requeue_after == again
    assert decision.status.provider is not None
    assert decision.status.provider.retry_after == stamp(again)
    assert kstatus(decision.status) == "InProgress", "it passes by itself"


@pytest.mark.parametrize("deleting", [False, True])
def test_deployments_that_are_on_their_way_out_are_waited_for_and_those_that_stay_are_told(deleting: bool) -> None:
    leaving = given(at_provider("Succeeded", model="ft:a"), status(), version=1, deleting=deleting)
    going = outcomes.deployments_left(leaving, ["md-e1t"], None, 20, leaving.now)
    assert going.requeue_after == 20
    said = condition(going.status, "Reconciling")
    assert (said is not None and "being deleted at the provider: md-e1t" in said.message) is deleting
    lasts = outcomes.deployments_left(leaving, ["md-e1t"], None, 20, leaving.now - hosted.LONG)
    assert condition(lasts.status, "Released").status == "False", "it may be billed, and nobody looks at it any more"
    stays = outcomes.deployments_left(leaving, ["md-e1t"], Failure.because(Reason.CREDENTIALS_INVALID, "no"), 20, None)
    assert stays.requeue_after == change.ASK_AGAIN_SECONDS
    assert condition(stays.status, "Released").status == "False"
    assert ("finetune.dev/abandon=true" in (stays.status.failure.message if stays.status.failure else "")) is deleting


ENDED = decide(given(BROKEN, status())).status
HELD: dict[str, tuple[JobView, bool]] = {
    "nothing was brought": (given(status=checking(files=None), has_finalizer=False), False),
    "data were brought": (given(status=checking(), has_finalizer=False), True),
    "a job was asked for": (given(status=status(files=None), has_finalizer=False), True),
    "held already": (given(status=status()), False),
    "on its way out": (given(status=status(), has_finalizer=False, deleting=True), False),
    "adopted": (given(status=status(), has_finalizer=False, spec=spec(adopt={"jobID": "ftjob-1"})), False),
    "on this cluster": (given(status=status(), has_finalizer=False, remote=False), False),
    "ended": (given(status=ENDED, has_finalizer=False), False),
    "ended, and nobody of ours has let go of it": (
        given(status=ENDED, has_finalizer=False, has_begun_annotation=True),
        True,
    ),
    "the same, and abandoned": (
        given(status=ENDED, has_finalizer=False, has_begun_annotation=True, abandoned=True),
        False,
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_a_job_is_held_while_something_of_it_is_elsewhere(name: str) -> None:
    seen, held = HELD[name]
    assert cloud_job.needs_finalizer(seen) is held


AT_WORK = status()
QUEUED, OVER = (AT_WORK.model_copy(update={"phase": phase}) for phase in ("Queued", "Failed"))
IN_THE_WAY = AT_WORK.model_copy(update={"failure": Failure.because(Reason.PROVIDER_BUSY, "no")})
FOLLOWED: dict[str, tuple[JobView, Decision, bool]] = {
    "other words of it": (given(at_provider("Queued"), AT_WORK), Decision(QUEUED), True),
    "nothing new": (given(at_provider("Queued"), AT_WORK), Decision(AT_WORK), False),
    "an end": (given(at_provider("Active"), AT_WORK), Decision(OVER), False),
    "something to do": (given(at_provider("Active"), AT_WORK), Decision(QUEUED, stop=True), False),
    "of one that has ended": (given(at_provider("Failed"), AT_WORK), Decision(QUEUED), False),
    "over an end": (given(at_provider("Active"), OVER), Decision(AT_WORK), False),
    "over what is in the way": (given(at_provider("Active"), IN_THE_WAY), Decision(AT_WORK), False),
    "on this cluster": (given(at_provider("Queued"), AT_WORK, remote=False), Decision(QUEUED), False),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_news_of_a_job_at_work_are_told_apart_from_all_else(name: str) -> None:
    seen, decision, follows = FOLLOWED[name]
    assert cloud_job.only_updates_progress(seen, decision) is follows


@pytest.mark.parametrize("deleting", [False, True])
def test_what_cannot_be_tidied_up_is_said_and_a_job_that_waits_for_it_can_be_let_go(deleting: bool) -> None:
    ended = decide(given(BROKEN, status())).status
    refused = Failure.because(Reason.CREDENTIALS_INVALID, "the key may not delete")
    decision = outcomes.not_cleaned_up(given(Run("Unseen"), ended, deleting=deleting), refused)
    left = condition(decision.status, "Cleaned")
    assert (left.status, left.reason, decision.requeue_after) == ("False", "CredentialsInvalid", 60)
    failure = decision.status.failure
    assert failure is not None
    assert ("finetune.dev/abandon=true" in failure.message) is deleting
    assert failure.reason is (Reason.CREDENTIALS_INVALID if deleting else Reason.PROVIDER_FAILED)


def test_nobody_is_to_let_go_of_what_stops_in_a_moment() -> None:
    busy = Failure.because(Reason.PROVIDER_BUSY, "it is being stopped")
    failure = outcomes.not_cleaned_up(given(Run("Unseen"), status(), deleting=True), busy).status.failure
    assert failure is not None
    assert failure.message == "what the job left at the provider is deleted later: it is being stopped"


@pytest.mark.parametrize(("abandoned", "state"), [(False, "True"), (True, "Unknown")], ids=["tidied up", "let go"])
def test_what_was_left_is_gone_or_nobody_looks_for_it_any_more(abandoned: bool, state: str) -> None:
    ended = decide(given(BROKEN, status())).status
    left = outcomes.not_cleaned_up(
        given(Run("Unseen"), ended), Failure.because(Reason.CREDENTIALS_INVALID, "no")
    ).status
    after = given(Run("Unseen"), left, abandoned=abandoned)
    assert condition(outcomes.cleaned_up(after, decide(after)).status, "Cleaned").status == state
