"""Whether a deployment is idle, and what that means: put to sleep, warned about, or left alone. Pure.

    asked lately ─▶ InUse        nobody asked it for long ─▶ Idle: condition, and by spec.idle it is stopped
                                                          ╰▶ BilledWhileIdle, where it costs money: condition, Event
    nobody can tell ─▶ UsageUnknown: nothing is stopped; what is billed is told of as often as if it were idle

What cannot be known is never taken for idle.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.deployment import DeploymentUsage, Idle, Sleep
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, moment, timestamp

CONDITION = "Idle"
REMIND_AFTER = timedelta(days=1)
"""Between two Events that say the same of a deployment that goes on being billed while idle."""
GRAIN = 10
"""A time in status is written again when it has moved by this part of the limit: an Event or a status a request
would be too many."""


LAG = timedelta(minutes=10)
"""How late a request may show in a provider's figures."""
FINE, COARSE = timedelta(minutes=5), timedelta(hours=1)
_FINE_UP_TO = timedelta(days=1)


def span(since: datetime, now: datetime) -> timedelta:
    """The span of time that one of a provider's figures is to be of: the longer one looks back, the coarser."""
    return FINE if now - since <= _FINE_UP_TO else COARSE


@dataclass(frozen=True)
class Activity:
    """What is known of a deployment's requests."""

    last: datetime | None = None
    """The last one, or the start of what answers; None where nobody can tell."""
    until: datetime | None = None
    """How far the figures reach: a request after that may not show yet."""
    unknown: str = ""
    """Why nobody can tell."""
    started: datetime | None = None
    """The start of what answers, where nobody can tell more."""
    counted: int | None = None
    """What servers have counted so far, where they tell no time."""


@dataclass(frozen=True)
class Limits:
    """From when on a deployment that nobody asks is one to act on."""

    idle: Idle | None
    warn_after: timedelta | None
    """None: it costs nothing while it stands."""
    price: str = ""
    """What an hour costs, in words."""

    @property
    def shortest(self) -> timedelta | None:
        """The limit that is reached first; None where nobody asks."""
        both = (timedelta(seconds=self.idle.after_seconds) if self.idle else None, self.warn_after)
        return min((limit for limit in both if limit is not None), default=None)


@dataclass(frozen=True)
class Found:
    """What comes of a look at the usage."""

    usage: DeploymentUsage
    fact: Fact
    sleeps: bool = False
    """Whether it is to be stopped."""
    warns: bool = False
    """Whether an Event is due."""


def look(usage: DeploymentUsage | None, activity: Activity, limits: Limits, now: datetime) -> Found:
    """What the usage means. A limit that is not set is never reached."""
    usage = usage or DeploymentUsage()
    if activity.last is None or activity.until is None:
        return _untold(usage, activity, limits, now)
    last = min(activity.last, now)  # of a time to come another clock has told
    quiet = activity.until - last
    usage = _moved(usage, last, activity.counted, limits)
    since = f"it has received no requests since {usage.last_request_at}"
    if limits.idle is not None and quiet >= timedelta(seconds=limits.idle.after_seconds):
        stops = limits.idle.action != "None"
        if stops or limits.warn_after is None or quiet < limits.warn_after:
            return Found(usage, Fact(CONDITION, "True", Reason.IDLE, since), sleeps=stops)
    if limits.warn_after is not None and quiet >= limits.warn_after:
        usage, due = _reminded(usage, now)
        said = f"{since}, and it is billed{limits.price}: delete it, or set spec.idle, if nobody needs it"
        return Found(usage, Fact(CONDITION, "True", Reason.BILLED_WHILE_IDLE, said), warns=due)
    usage = usage.model_copy(update={"warned_at": None})
    return Found(usage, Fact(CONDITION, "False", Reason.IN_USE))


def _untold(usage: DeploymentUsage, activity: Activity, limits: Limits, now: datetime) -> Found:
    """What may be idle for as long as idle ones are warned of is told, too: it may cost all that for nobody."""
    why = f"it is unknown when it last received a request, so it does not count as idle: {activity.unknown}"
    since = moment(usage.last_request_at) if usage.last_request_at else activity.started
    if since is None or limits.warn_after is None or now - since < limits.warn_after:
        return Found(usage, Fact(CONDITION, "Unknown", Reason.USAGE_UNKNOWN, why))
    usage, due = _reminded(usage, now)
    said = f"it is billed{limits.price}: delete it if nobody needs it. {why[:1].upper()}{why[1:]}"
    return Found(usage, Fact(CONDITION, "Unknown", Reason.USAGE_UNKNOWN, said), warns=due)


def _reminded(usage: DeploymentUsage, now: datetime) -> tuple[DeploymentUsage, bool]:
    """The record with the time of the last Event, and whether one is due."""
    if usage.warned_at is not None and timedelta() <= now - moment(usage.warned_at) < REMIND_AFTER:
        return usage, False
    return usage.model_copy(update={"warned_at": timestamp(now)}), True


def _moved(usage: DeploymentUsage, last: datetime, counted: int | None, limits: Limits) -> DeploymentUsage:
    """The record, moved on by more than a part of the limit, or back from a time to come."""
    grain, before = (limits.shortest or timedelta()) / GRAIN, usage.last_request_at
    if before is not None and moment(before) <= last < moment(before) + grain:
        return usage
    return usage.model_copy(update={"last_request_at": timestamp(last), "counted": counted})


def fall_asleep(generation: int, wake: str | None, now: datetime) -> Sleep:
    """The record of being stopped. It is written before anything is."""
    return Sleep(since=timestamp(now), generation=generation, wake=wake)


def is_asleep(asleep: Sleep | None, generation: int, wake: str | None) -> bool:
    """Whether what was stopped stays so: a new spec or a new value of the annotation brings it back."""
    return asleep is not None and (asleep.generation, asleep.wake) == (generation, wake)


def woken(usage: DeploymentUsage | None, now: datetime) -> DeploymentUsage:
    """The record when it is brought back: somebody wants it, or it would fall asleep again at once."""
    return (usage or DeploymentUsage()).model_copy(update={"last_request_at": timestamp(now), "warned_at": None})


def sleeping(asleep: Sleep, usage: DeploymentUsage | None) -> Fact:
    """The condition while it is stopped."""
    last = f"it had received no requests since {usage.last_request_at}, " if usage and usage.last_request_at else ""
    return Fact(CONDITION, "True", Reason.IDLE, f"{last}so it was stopped at {asleep.since}")


NOT_YET = Fact(CONDITION, "False", Reason.IN_USE, "it does not answer yet")
"""While nothing answers that could be asked."""

_UNSEEN = (
    "it is unknown when it last received a request, so it does not count as idle: its provider is not asked meanwhile"
)
OUT_OF_SIGHT = Fact(CONDITION, "Unknown", Reason.USAGE_UNKNOWN, _UNSEEN)
"""Of what stands at a provider that nobody looks at, as its connection is gone, or its spec wrong."""

_UNASKED = "spec.idle is not set, or there is nothing that could be stopped"
NOT_LOOKED_AT = Fact(CONDITION, "False", Reason.IN_USE, _UNASKED)
"""Once nobody wants to know any more."""


@dataclass(frozen=True)
class PodUse:
    """What one server tells of its requests."""

    started: datetime
    last: datetime | None = None
    """Time of the last one, where the server tells it."""
    counted: int | None = None
    """What it has counted since its start, where it does not: any change is a request."""
    busy: bool = False


@dataclass(frozen=True)
class Figures:
    """What a provider's usage figures tell of one deployment."""

    last: datetime | None
    """Its last request in the time that was asked about, or None: it shows none."""
    until: datetime
    """How far they reach."""


def of_figures(figures: Figures, usage: DeploymentUsage, started: datetime) -> Activity:
    """What a provider's figures tell.

    The operator asks each deployment once. Figures that have never shown even that tell nothing: they may be of
    another name, or not be there at all.
    """
    recorded = moment(usage.last_request_at) if usage.last_request_at else None
    shown = [one for one in (figures.last, recorded) if one is not None]
    if not shown:
        unknown = "the provider's usage figures do not show even the operator's own question yet"
        return Activity(unknown=unknown, started=started)
    return Activity(last=max(*shown, started), until=figures.until)


def usage_of(usage: DeploymentUsage | None, deployment: str) -> DeploymentUsage:
    """The record of this deployment; that of the one before it tells nothing of it."""
    return usage if usage is not None and usage.deployment == deployment else DeploymentUsage(deployment=deployment)


def of_pods(pods: list[PodUse], usage: DeploymentUsage | None, now: datetime) -> Activity:
    """What servers together tell.

    A server that is new knows nothing of the requests to the one before: its start counts as one. So does each change
    of the counts, from whichever side it came.
    """
    if not pods:
        return Activity(unknown="no server runs that counts requests")
    counts = [pod.counted for pod in pods if pod.counted is not None]
    counted = sum(counts) if counts else None
    known = [pod.started for pod in pods] + [pod.last for pod in pods if pod.last is not None]
    if usage is not None and usage.last_request_at is not None:
        known.append(moment(usage.last_request_at))
    changed = counted is not None and (usage is None or usage.counted != counted)
    if changed or any(pod.busy for pod in pods):
        known.append(now)
    return Activity(last=min(max(known), now), until=now, counted=counted)
