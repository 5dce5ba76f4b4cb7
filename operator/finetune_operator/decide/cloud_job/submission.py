"""How a provider comes to have exactly one job for an attempt, whatever happens to calls and responses. Pure.

look up ─▶ there: adopt it, and cancel duplicates that a repeated call has created
        └▶ not there ─▶ requested a moment ago: wait, it may still appear
                     └▶ status does not know its data: it was created before, and nobody knows what became of it
                     └▶ else: record the request ─▶ create
"""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderStatus
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import timestamp
from finetune_operator.decide.job.remote import RemoteJob, oldest, settles_in
from finetune_operator.decide.job.view import JobView

LOOK_AGAIN_SECONDS = 15

_OF_ONE_RUN = ("progress", "loss", "train_loss", "eval_loss")
"""Without checkpoints an attempt does not continue the previous one, so these values are reset."""


@dataclass(frozen=True)
class Adopt:
    """The job exists: adopt it, and cancel duplicates that a repeated call has created."""

    job: RemoteJob
    surplus: tuple[RemoteJob, ...] = ()


@dataclass(frozen=True)
class Wait:
    """A create call was made, and its outcome may not show yet."""

    seconds: float


@dataclass(frozen=True)
class Missing:
    """It was requested, as far as is known, and is not there. It cannot be created, as its data are not known."""

    failure: Failure


@dataclass(frozen=True)
class Create:
    """Nothing exists, and no call can be pending."""


def next_move(view: JobView, found: Sequence[RemoteJob]) -> Adopt | Wait | Missing | Create:
    """What to do about a job that is to be created, from the jobs that the provider's look-up has found."""
    if found:
        first = oldest(found)
        return Adopt(first, tuple(one for one in found if one.id != first.id and not one.ended))
    left = unsettled(view)
    rests = view.spec is not None and view.spec.suspend
    if rests or view.run.unknown:
        # It was seen a moment ago. Nothing is created for a suspended job, or one whose data status does not know.
        return Wait(LOOK_AGAIN_SECONDS)
    if left > 0:
        return Wait(min(left, LOOK_AGAIN_SECONDS))
    return Missing(_missing(view)) if is_forgotten(view.provider) else Create()


def is_forgotten(provider: ProviderStatus) -> bool:
    """Whether status says that a job was requested but not its data: it was emptied or edited."""
    return provider.asked_at is not None and provider.files is None


def _missing(view: JobView) -> Failure:
    message = (
        f"status says that a job was requested (status.provider.askedAt: {view.provider.asked_at}), and has lost its "
        "name and its data; the provider shows no job of it. It may continue there, and be billed: no other one is made"
    )
    step = (
        "Look there for the job. It is followed here as soon as the provider lists it; where there is none, delete "
        "this object and apply it under a new name."
    )
    return Failure(reason=Reason.DELETED_AT_PROVIDER, message=message, next_step=step)


def unsettled(view: JobView) -> float:
    """Seconds during which a create call may still show; 0 if none was made, or its job is known."""
    return 0.0 if is_submitted(view.provider) else settles_in(view.provider.asked_at, view.now)


def is_submitted(provider: ProviderStatus) -> bool:
    """Whether the provider has created the attempt's job: its ID is known."""
    return provider.asked_at is not None and provider.job_id is not None


def may_be_there(provider: ProviderStatus) -> bool:
    """Whether the provider may have a job of the attempt: it was requested, or status has lost whether it was."""
    return provider.asked_at is not None or provider.name is None


def asked(view: JobView, status: FineTuneJobStatus) -> FineTuneJobStatus:
    """The status to write right before the create call."""
    goes_on = view.connection is not None and view.connection.sage_maker is not None
    told = status if goes_on else status.model_copy(update=dict.fromkeys(_OF_ONE_RUN))
    # The check is over: from here on jobID is the provider's ID, once known.
    at = timestamp(view.now)
    return told.with_provider(asked_at=at, job_id=None, retry_after=None, place=view.place, account=view.account)


def taken(view: JobView, status: FineTuneJobStatus, made: RemoteJob) -> FineTuneJobStatus:
    """The status once a job was found there. Its deadline counts from the request, even if status has lost that time.

    Then the provider's creation time is used, limited to the time since the FineTuneJob was created: clocks may differ.
    """
    by_its_own = timestamp(min(view.now, max(view.created, made.created)))
    known = by_its_own if is_forgotten(view.provider) else view.provider.asked_at or by_its_own
    return submitted(asked(view, status).with_provider(asked_at=known), made)


def submitted(status: FineTuneJobStatus, made: RemoteJob) -> FineTuneJobStatus:
    """The status once the provider's ID of the job is known."""
    return status.with_provider(job_id=made.id)
