"""What may pass by itself is tried again: a store, a hub or a name server that does not answer at the moment.

The network of a pod may come up after its trainer: a proxy beside it, a network policy, the cluster's DNS.
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
"""How long something is tried again while nothing answers."""

_LONGEST_PAUSE = 20.0

logger = logging.getLogger(__name__)


def patiently(action: Callable[[], T], seconds: float, *, progress: Callable[[], object] = lambda: None) -> T:
    """Do it until it succeeds, or has failed for `seconds` without any `progress`.

    They count from its first failure: what has gone on for an hour before may be tried again, too.

    Raises:
        TrainerError: as the action does; one that is no StoreUnavailable at once.
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
