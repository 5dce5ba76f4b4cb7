"""For how long it is no failure that a pod does not start: what it lacks may come a little later. Pure."""

from datetime import datetime, timedelta

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.pods.refused import may_pass

GRACE = timedelta(seconds=60)
"""Most pods that find no room at once find it within seconds, when another has ended or a node has come up. What comes
in the same commit as its user may be there a little later."""


def grace_left(obstacle: Failure | None, since: datetime | None, now: datetime) -> float:
    """Seconds for which conditions alone say what keeps a pod from starting: a failure is a Warning Event too."""
    if obstacle is None or since is None or not (may_pass(obstacle) or _may_come(obstacle)):
        return 0.0
    return max(0.0, (since + GRACE - now).total_seconds())


def _may_come(obstacle: Failure) -> bool:
    """Whether it lacks what may be made a little later than the pod, by what brings Secrets from a vault for one."""
    return obstacle == Failure.because(Reason.CONTAINER_CONFIG_INVALID, obstacle.message)
