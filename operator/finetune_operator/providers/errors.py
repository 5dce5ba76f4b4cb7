"""What can go wrong when a provider outside of the cluster is asked.

ProviderError
├── Refused          it said no, and will again; nothing was done
│   └── NotThere     what was asked about does not exist (any more)
├── TryLater         it said no for now: a limit, a quota, a key that somebody has to renew; nothing was done
│   ├── Crowded      no more jobs for now: others take the room, and end by themselves
│   ├── Busy         nobody was asked: enough is on its way already
│   ├── Denied       the key is good, and lacks the right to do this
│   ├── Elsewhere    the connection leads elsewhere than where the thing is
│   └── Ended        what was to be cancelled has succeeded
└── Unknown          no answer, or one that does not tell: it may have been done
    ├── Unreached    nobody was there to hear it: nothing was done
    ├── Broken       an answer that something is wrong at its end
    ├── Contested    it conflicts with something of this one thing, perhaps with an earlier try; all else goes on
    └── Unreadable   an answer that no such API gives
        └── Page     one for people: of a proxy, or of another address than the API's

Messages are for people and go into status: they name no secret and quote no data.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import extract_tb
from typing import Self

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason

logger = logging.getLogger(__name__)

BRING_AGAIN_STEP = "Set spec.retryNonce to have the data checked and brought there again."
BRING_AGAIN = f"Somebody has deleted the file there, or it is not taken. {BRING_AGAIN_STEP}"
"""What to do about a file that was brought to a provider, and is not there when it is needed."""


RIGHTS_STEP = (
    "Ask an admin to give the connection's identity, or its key, the right to do that at the provider; it is "
    "retried automatically."
)
"""What to do where a key is good, and may not do something."""


class CannotMake(Exception):
    """What is to be made on this cluster cannot be: it does not know the kind, or somebody else has the name.

    Args:
        failure: as status shows it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ProviderError(Exception):
    """The call did not do what was asked, as far as is known.

    Args:
        reason: from the closed set.
        message: a sentence without secrets.
        retry_after: seconds after which another try makes sense.
        next_step: what to do, where it is not what the reason leads to otherwise.
    """

    def __init__(
        self, reason: Reason, message: str, retry_after: float | None = None, *, next_step: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.next_step = next_step

    def failure(self) -> Failure:
        """The error as status shows it."""
        found = Failure.because(self.reason, self.message)
        return found.model_copy(update={"next_step": self.next_step}) if self.next_step else found


class Refused(ProviderError):
    """A no that stays one."""


class NotThere(Refused):
    """It does not exist."""


class TryLater(ProviderError):
    """A no for now."""

    @classmethod
    def because(cls, failure: Failure, retry_after: float | None = None) -> Self:
        """Of a failure that is known, with its next step."""
        return cls(Reason(failure.reason), failure.message, retry_after, next_step=failure.next_step)


class Crowded(TryLater):
    """No more jobs for now, as others run; all else goes on. There is room when some have ended: nobody has to act."""

    def __init__(self, message: str, retry_after: float | None = None, reason: Reason = Reason.PROVIDER_BUSY) -> None:
        super().__init__(reason, message, retry_after)


class Busy(TryLater):
    """Our own limit of the connection."""


class Denied(TryLater):
    """One right lacks; what else is asked may go well. No other key of the same identity would help."""

    def __init__(
        self, reason: Reason, message: str, retry_after: float | None = None, *, next_step: str | None = None
    ) -> None:
        rights = RIGHTS_STEP if reason is Reason.CREDENTIALS_INVALID else None
        super().__init__(reason, message, retry_after, next_step=next_step or rights)


class Elsewhere(TryLater):
    """Nobody was asked: the connection leads elsewhere than where the thing is."""


class Ended(TryLater):
    """There was nothing to cancel any more: it has succeeded."""


class Unknown(ProviderError):
    """Nobody knows whether it was done."""


class Unreached(Unknown):
    """The call did not get as far as anybody who could do it."""


class Broken(Unknown):
    """Somebody answers; what was asked may have been done."""


class Contested(Unknown):
    """An answer, so nobody is silent; it concerns what was asked about alone."""


class Unreadable(Unknown):
    """An answer, but not one of the provider's API.

    Args:
        why: what is odd about it, in a few words.
    """

    def __init__(self, why: str) -> None:
        message = f"what answers is not the provider's API ({why}): is the address right, is a proxy in between?"
        super().__init__(Reason.PROVIDER_UNAVAILABLE, message)


class Page(Unreadable):
    """An answer for people."""


def model_gone(model: str, retry_after: float | None = None) -> Refused:
    """That a tuned model is not there any more, which no provider tells in words that help."""
    return Refused(Reason.DELETED_AT_PROVIDER, f"model {model} is not at the provider any more", retry_after)


MOST_PAGES = 1000
"""Of one list: a hundred thousand jobs or deployments, a million objects."""


def require_end(pages: int, who: str) -> None:
    """A list has an end.

    Args:
        pages: that were read.
        who: gives them, as people know it.

    Raises:
        Unreadable: these are too many. Their marks may all be new ones: that no page comes twice does not end it.
    """
    if pages > MOST_PAGES:
        raise Unreadable(f"{who} gives a list without end")


def looks_like_page(body: bytes) -> bool:
    """Whether an answer is a page for people: a proxy's, or that of another address than the API's."""
    return body.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html"))


@contextmanager
def understood() -> Iterator[None]:
    """Around a call and the reading of its answer: a proxy, or a service of the same API, may say what nobody foresaw.

    Raises:
        Unreadable: the answer lacks what it must have, or is of another shape; the log says where that was found.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # The error's own words may quote the answer, and it comes again at every look.
        kind, found = type(error).__name__, extract_tb(error.__traceback__)[-1]
        place = f"{found.name} ({found.filename.rpartition('/')[2]}, line {found.lineno})"
        logger.warning("a provider's answer is not of the shape that its API has: %s in %s", kind, place)
        raise Unreadable(kind) from None


def of_figures(error: ProviderError, whose: str, right: str) -> ProviderError:
    """Why figures of use cannot be read. It is of these alone: deployments are made and deleted without them."""
    if error.reason == Reason.RATE_LIMITED:
        return error
    hint = f" ({right} may lack)" if error.reason == Reason.CREDENTIALS_INVALID else ""
    return TryLater(Reason.USAGE_UNKNOWN, f"{whose}'s metrics cannot be read{hint}: {error.message}")
