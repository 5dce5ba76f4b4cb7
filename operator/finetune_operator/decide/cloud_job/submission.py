"""How a provider comes to have one job for an attempt, whatever becomes of calls and their answers. Pure.

look up ─▶ there: adopt it, and end what a repeated call has made beside it
        └▶ not there ─▶ asked for a moment ago: wait, it may show yet
                     └▶ else: record that it is asked for ─▶ create
"""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.job_status import FineTuneJobStatus, ProviderStatus
from finetune_operator.decide.conditions import timestamp
from finetune_operator.decide.job.remote import RemoteJob, oldest, settles_in
from finetune_operator.decide.job.view import JobView

LOOK_AGAIN_SECONDS = 15

_OF_ONE_RUN = ("progress", "loss", "train_loss", "eval_loss")
"""Where no attempt goes on from a checkpoint, none of the attempt before is this one's."""


@dataclass(frozen=True)
class Adopt:
    """The job is there: take it for ours, and end what a repeated call has made beside it."""

    job: RemoteJob
    surplus: tuple[RemoteJob, ...] = ()


@dataclass(frozen=True)
class Wait:
    """A create was asked for, and what came of it may not show yet."""

    seconds: float


@dataclass(frozen=True)
class Create:
    """Nothing is there, and nothing can be on its way."""


def next_move(view: JobView, found: Sequence[RemoteJob]) -> Adopt | Wait | Create:
    """What to do about a job that is to be made, from what the provider's look-up has found."""
    if found:
        first = oldest(found)
        return Adopt(first, tuple(one for one in found if one.id != first.id and not one.ended))
    left = unsettled(view)
    rests = view.spec is not None and view.spec.suspend
    if rests or view.run.unknown:
        # It was seen a moment ago. Nothing is made for a job that is to rest, or whose data its status does not know.
        return Wait(LOOK_AGAIN_SECONDS)
    return Wait(min(left, LOOK_AGAIN_SECONDS)) if left > 0 else Create()


def unsettled(view: JobView) -> float:
    """Seconds for which a create may still show at the provider; 0 where none was asked for, or its job is known."""
    return 0.0 if is_submitted(view.provider) else settles_in(view.provider.asked_at, view.now)


def is_submitted(provider: ProviderStatus) -> bool:
    """Whether the provider has made the attempt's job: its name there is known."""
    return provider.asked_at is not None and provider.job_id is not None


def asked(view: JobView, status: FineTuneJobStatus) -> FineTuneJobStatus:
    """The status that is written right before the provider is asked to make the job."""
    provider = status.provider or ProviderStatus()
    # The check is over: from here on jobID is the provider's name, once it is known.
    where = {"place": view.place, "account": view.account}
    fields = {"asked_at": timestamp(view.now), "job_id": None, "retry_after": None, **where}
    goes_on = view.connection is not None and view.connection.sage_maker is not None
    told = {} if goes_on else dict.fromkeys(_OF_ONE_RUN)
    return status.model_copy(update={**told, "provider": provider.model_copy(update=fields)})


def taken(view: JobView, status: FineTuneJobStatus, made: RemoteJob) -> FineTuneJobStatus:
    """The status once a job was found there: its deadline counts from when it was asked for, whoever has forgotten it.

    The provider's clock may be another: it was not made before the FineTuneJob was, and has been by now.
    """
    known = view.provider.asked_at or timestamp(min(view.now, max(view.created, made.created)))
    status = asked(view, status)
    provider = (status.provider or ProviderStatus()).model_copy(update={"asked_at": known})
    return submitted(status.model_copy(update={"provider": provider}), made)


def submitted(status: FineTuneJobStatus, made: RemoteJob) -> FineTuneJobStatus:
    """The status once the provider's name of the job is known."""
    provider = status.provider or ProviderStatus()
    return status.model_copy(update={"provider": provider.model_copy(update={"job_id": made.id})})
