"""How long what cannot start counts as waiting, not as failed: what it lacks may come a little later. Pure."""

from datetime import datetime, timedelta

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.pods.refused import may_pass

GRACE = timedelta(seconds=60)
"""Most pods that find no room find it within seconds, when another pod ends or a node is added. Objects applied in the
same commit may also come a little later."""


def grace_left(obstacle: Failure | None, since: datetime | None, now: datetime) -> float:
    """Seconds for which only conditions name the obstacle to a start: a failure is a Warning Event as well."""
    if obstacle is None or since is None or not (may_pass(obstacle) or _may_come(obstacle)):
        return 0.0
    return max(0.0, (since + GRACE - now).total_seconds())


def _may_come(obstacle: Failure) -> bool:
    """Whether it lacks what may be created a little later, for example a Secret synced from a vault."""
    secret = obstacle.reason is Reason.SECRET_NOT_FOUND
    return secret or obstacle == Failure.because(Reason.CONTAINER_CONFIG_INVALID, obstacle.message)
