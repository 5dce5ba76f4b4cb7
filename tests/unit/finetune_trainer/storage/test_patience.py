"""What may pass by itself is tried again for a while, and nothing else is."""

import socket
import ssl

import pytest

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.patience import PATIENCE_SECONDS, retried
from tests.unit.finetune_trainer.still_clock import StillClock

AWAY = TrainerError(Reason.STORE_UNAVAILABLE, "the store does not answer")


def test_the_time_counts_from_the_first_failure_on(clock: StillClock) -> None:
    """A large file that breaks off after an hour is sent again."""
    tries: list[float] = []

    def takes_long() -> str:
        tries.append(clock.now)
        clock.now += 3600.0
        if len(tries) == 1:
            raise AWAY
        return "done"

    assert retried(takes_long, PATIENCE_SECONDS) == "done"


def test_each_piece_of_progress_gives_all_of_the_time_again(clock: StillClock) -> None:
    def reached() -> int:
        return int(clock.now // 50)  # something new comes every 50 seconds

    def breaks_off() -> str:
        if clock.now < 600.0:
            raise AWAY
        return "done"

    assert retried(breaks_off, PATIENCE_SECONDS, progress=reached) == "done"
    clock.now = 0.0
    with pytest.raises(TrainerError, match="does not answer"):
        retried(breaks_off, PATIENCE_SECONDS)
    assert 0.5 * PATIENCE_SECONDS < clock.now <= PATIENCE_SECONDS


def caused(cause: Exception) -> TrainerError:
    error = TrainerError(Reason.STORE_UNAVAILABLE, "it does not answer")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (caused(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")), True),
        (caused(ConnectionRefusedError(111, "refused")), True),
        (caused(socket.gaierror(socket.EAI_NONAME, "Name or service not known")), False),
        (caused(ssl.SSLCertVerificationError("self-signed")), False),
        (TrainerError(Reason.ACCESS_DENIED, "no"), False),
        (OSError(5, "a bug, not a store's error"), False),
    ],
)
def test_what_stays_as_it_is_is_tried_once(clock: StillClock, error: Exception, passes: bool) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(type(error)):
        retried(fails, PATIENCE_SECONDS)
    assert (clock.now > 0) is passes
