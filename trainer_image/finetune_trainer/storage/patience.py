"""Retries of errors that may be temporary: a store, a hub or a name server that does not respond at the moment.

A pod's network may be ready later than its trainer: a sidecar proxy, a network policy, the cluster's DNS.
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.store_errors import may_be_back

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""How long to retry while nothing responds."""

_LONGEST_PAUSE = 20.0

logger = logging.getLogger(__name__)


def retried(action: Callable[[], T], seconds: float, *, progress: Callable[[], object] = lambda: None) -> T:
    """Retry until it succeeds, or has failed for `seconds` without any `progress`.

    The time counts from the first failure, so that an action that ran for an hour before is retried too.

    Raises:
        TrainerError: from the action; immediately unless it is StoreUnavailable.
    """
    before, until, pause = progress(), None, 1.0
    while True:
        try:
            return action()
        except TrainerError as error:
            now, reached = time.monotonic(), progress()
            if until is None or reached != before:
                before, until, pause = reached, now + seconds, 1.0
            passes = error.reason is Reason.STORE_UNAVAILABLE and may_be_back(error)
            if not passes or now + pause > until:
                raise
            logger.warning("%s; trying again in %d s.", error.message, pause)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
