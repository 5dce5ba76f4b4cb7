"""Whether a deployment is idle, and what follows: stopped, warned about, or left alone. Pure.

    recent requests ─▶ InUse     no requests for long ─▶ Idle: condition, and stopped if spec.idle says so
                                                      ╰▶ BilledWhileIdle, if it costs money: condition, Event
    unknown ─▶ UsageUnknown: nothing is stopped; if it is billed, there are as many Events as if it were idle

If the usage is not known, a deployment never counts as idle.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.deployment import DeploymentUsage, Idle, Sleep
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import Fact, moment, timestamp

CONDITION = "Idle"
REMIND_AFTER = timedelta(days=1)
"""Time between two equal Events about a deployment that is still billed while idle."""
GRAIN = 10
"""A time in status is updated only after it has moved by this fraction of the limit: an Event or a write for each
request would be too many."""


LAG = timedelta(minutes=10)
"""How late a request may show in a provider's figures."""
FINE, COARSE = timedelta(minutes=5), timedelta(hours=1)
_FINE_UP_TO = timedelta(days=1)


def span(since: datetime, now: datetime) -> timedelta:
    """The resolution to ask of a provider's figures: the longer the time range, the coarser."""
    return FINE if now - since <= _FINE_UP_TO else COARSE


@dataclass(frozen=True)
class Activity:
    """What is known of a deployment's requests."""

    last: datetime | None = None
    """The last one, or the start of the server; None if unknown."""
    until: datetime | None = None
    """How far the figures reach: later requests may not show yet."""
    unknown: str = ""
    """Why it is unknown."""
    started: datetime | None = None
    """The start of the server, if nothing else is known."""
    counted: int | None = None
    """The servers' request counts so far, where they tell no time."""


@dataclass(frozen=True)
class Limits:
    """After how long a deployment without requests is stopped or warned about."""

    idle: Idle | None
    warn_after: timedelta | None
    """None: it costs nothing."""
    price: str = ""
    """The hourly price, in words."""

    @property
    def shortest(self) -> timedelta | None:
        """The limit that is reached first; None if there is none."""
        both = (timedelta(seconds=self.idle.after_seconds) if self.idle else None, self.warn_after)
        return min((limit for limit in both if limit is not None), default=None)


@dataclass(frozen=True)
class UsageCheck:
    """The result of a check of the usage."""

    usage: DeploymentUsage
    fact: Fact
    sleeps: bool = False
    """Whether to stop it."""
    warns: bool = False
    """Whether an Event is due."""


def check(usage: DeploymentUsage | None, activity: Activity, limits: Limits, now: datetime) -> UsageCheck:
    """What the usage means. A limit that is not set is never reached."""
    usage = usage or DeploymentUsage()
    if activity.last is None or activity.until is None:
        return _unknown_usage(usage, activity, limits, now)
    last = min(activity.last, now)  # a time in the future comes from another clock
    quiet = activity.until - last
    usage = _updated(usage, last, activity.counted, limits)
    since = f"it has received no requests since {usage.last_request_at}"
    if limits.idle is not None and quiet >= timedelta(seconds=limits.idle.after_seconds):
        stops = limits.idle.action != "None"
        if stops or limits.warn_after is None or quiet < limits.warn_after:
            return UsageCheck(usage, Fact(CONDITION, "True", Reason.IDLE, since), sleeps=stops)
    if limits.warn_after is not None and quiet >= limits.warn_after:
        usage, due = _reminded(usage, now)
        said = f"{since}, and it is billed{limits.price}: delete it, or set spec.idle, if nobody needs it"
        return UsageCheck(usage, Fact(CONDITION, "True", Reason.BILLED_WHILE_IDLE, said), warns=due)
    usage = usage.model_copy(update={"warned_at": None})
    return UsageCheck(usage, Fact(CONDITION, "False", Reason.IN_USE))


def _unknown_usage(usage: DeploymentUsage, activity: Activity, limits: Limits, now: datetime) -> UsageCheck:
    """One that may have been idle for as long as the warning limit is reported too: it may cost money for nothing."""
    why = f"it is unknown when it last received a request, so it does not count as idle: {activity.unknown}"
    since = moment(usage.last_request_at) if usage.last_request_at else activity.started
    if since is None or limits.warn_after is None or now - since < limits.warn_after:
        return UsageCheck(usage, Fact(CONDITION, "Unknown", Reason.USAGE_UNKNOWN, why))
    usage, due = _reminded(usage, now)
    said = f"it is billed{limits.price}: delete it if nobody needs it. {why[:1].upper()}{why[1:]}"
    return UsageCheck(usage, Fact(CONDITION, "Unknown", Reason.USAGE_UNKNOWN, said), warns=due)


def _reminded(usage: DeploymentUsage, now: datetime) -> tuple[DeploymentUsage, bool]:
    """The record with the time of the last Event, and whether one is due."""
    if usage.warned_at is not None and timedelta() <= now - moment(usage.warned_at) < REMIND_AFTER:
        return usage, False
    return usage.model_copy(update={"warned_at": timestamp(now)}), True


def _updated(usage: DeploymentUsage, last: datetime, counted: int | None, limits: Limits) -> DeploymentUsage:
    """The record, updated if the time has moved by more than a fraction of the limit, or was in the future."""
    grain, before = (limits.shortest or timedelta()) / GRAIN, usage.last_request_at
    if before is not None and moment(before) <= last < moment(before) + grain:
        return usage
    return usage.model_copy(update={"last_request_at": timestamp(last), "counted": counted})


def fall_asleep(generation: int, wake: str | None, now: datetime) -> Sleep:
    """The record that it is stopped, which is written before anything is stopped."""
    return Sleep(since=timestamp(now), generation=generation, wake=wake)


def is_asleep(asleep: Sleep | None, generation: int, wake: str | None) -> bool:
    """Whether it stays stopped: a new spec or a new value of the annotation wakes it."""
    return asleep is not None and (asleep.generation, asleep.wake) == (generation, wake)


def woken(usage: DeploymentUsage | None, now: datetime) -> DeploymentUsage:
    """The record when it is woken: that counts as a request, or it would be stopped again at once."""
    return (usage or DeploymentUsage()).model_copy(update={"last_request_at": timestamp(now), "warned_at": None})


def sleeping(asleep: Sleep, usage: DeploymentUsage | None) -> Fact:
    """The condition while it is stopped."""
    last = f"it had received no requests since {usage.last_request_at}, " if usage and usage.last_request_at else ""
    return Fact(CONDITION, "True", Reason.IDLE, f"{last}so it was stopped at {asleep.since}")


NOT_ANSWERING_YET = Fact(CONDITION, "False", Reason.IN_USE, "it does not answer yet")
"""While nothing answers yet."""

_UNSEEN = (
    "it is unknown when it last received a request, so it does not count as idle: its provider is not asked meanwhile"
)
NOT_OBSERVED = Fact(CONDITION, "Unknown", Reason.USAGE_UNKNOWN, _UNSEEN)
"""For a deployment at a provider that cannot be observed, because the connection is gone or its spec is invalid."""

_UNASKED = "spec.idle is not set, or there is nothing that could be stopped"
NOT_CHECKED = Fact(CONDITION, "False", Reason.IN_USE, _UNASKED)
"""Once its usage is no longer checked."""


@dataclass(frozen=True)
class PodUse:
    """What one server reports of its requests."""

    started: datetime
    last: datetime | None = None
    """Time of the last one, if the server tells it."""
    counted: int | None = None
    """Its count since its start, if it tells no time: any change means a request."""
    busy: bool = False


@dataclass(frozen=True)
class Figures:
    """What a provider's usage figures tell of one deployment."""

    last: datetime | None
    """The last request in the requested time range, or None if it shows none."""
    until: datetime
    """How far they reach."""


def of_figures(figures: Figures, usage: DeploymentUsage, started: datetime) -> Activity:
    """The activity from a provider's figures.

    The operator sends each deployment one request. Figures that do not show even that one tell nothing: they may be of
    another name, or not exist at all.
    """
    recorded = moment(usage.last_request_at) if usage.last_request_at else None
    shown = [one for one in (figures.last, recorded) if one is not None]
    if not shown:
        unknown = "the provider's usage figures do not show even the operator's own question yet"
        return Activity(unknown=unknown, started=started)
    return Activity(last=max(*shown, started), until=figures.until)


def usage_of(usage: DeploymentUsage | None, deployment: str) -> DeploymentUsage:
    """The record of this deployment. That of an earlier one does not count."""
    return usage if usage is not None and usage.deployment == deployment else DeploymentUsage(deployment=deployment)


def of_pods(pods: list[PodUse], usage: DeploymentUsage | None, now: datetime) -> Activity:
    """The activity from all servers together.

    A new server does not know the requests to the one before, so its start counts as a request. So does each change of
    the counts, in either direction.
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
