"""Errors of calls to providers outside of the cluster.

ProviderError
├── Refused             a permanent no; nothing was done
│   └── NotThere        the object does not exist, or no longer
├── TryLater            a no for now: a rate limit, a quota, a key that must be renewed; nothing was done
│   ├── AtCapacity      no capacity for more jobs until running ones end; nobody has to act
│   ├── Busy            the operator's own limit: the provider was not called
│   ├── Denied          the key is valid but lacks a permission
│   ├── ConnectionMoved the connection leads to another account or place than the object's
│   └── Ended           the job to cancel has already succeeded
└── Unknown             no answer, or an inconclusive one: it may have been done
    ├── Unreached       the request never reached the provider: nothing was done
    ├── ServerError     an error on the provider's side
    ├── Contested       a conflict on this one object, perhaps with an earlier try; other calls are not affected
    └── Unreadable      an answer that is not of the provider's API
        └── Page        an HTML page: from a proxy, or because the address is not the API's

Messages are shown in status: they contain no secrets and quote no data.
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
"""Next step if an uploaded file is missing when it is needed."""


RIGHTS_STEP = (
    "Ask an admin to give the connection's identity, or its key, the right to do that at the provider; it is "
    "retried automatically."
)
"""Next step if a key is valid but lacks a permission."""


class CannotMake(Exception):
    """An object cannot be created on this cluster: the kind is not installed, or the name belongs to someone else.

    Args:
        failure: as status shows it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ProviderError(Exception):
    """A call to a provider failed, as far as is known.

    Args:
        reason: from the closed set.
        message: a sentence without secrets.
        retry_after: seconds until a retry makes sense.
        next_step: replaces the reason's default next step.
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
    """A permanent no."""


class NotThere(Refused):
    """The object does not exist."""


class TryLater(ProviderError):
    """A no for now."""

    @classmethod
    def because(cls, failure: Failure, retry_after: float | None = None) -> Self:
        """From a known failure, with its next step."""
        return cls(Reason(failure.reason), failure.message, retry_after, next_step=failure.next_step)


class AtCapacity(TryLater):
    """No capacity for more jobs until running ones end: nobody has to act, and other calls are not affected."""

    def __init__(self, message: str, retry_after: float | None = None, reason: Reason = Reason.PROVIDER_BUSY) -> None:
        super().__init__(reason, message, retry_after)


class Busy(TryLater):
    """The operator's own limit for the connection."""


class Denied(TryLater):
    """One permission is missing; other calls may succeed. Another key of the same identity would not help."""

    def __init__(
        self, reason: Reason, message: str, retry_after: float | None = None, *, next_step: str | None = None
    ) -> None:
        rights = RIGHTS_STEP if reason is Reason.CREDENTIALS_INVALID else None
        super().__init__(reason, message, retry_after, next_step=next_step or rights)


class ConnectionMoved(TryLater):
    """The call was not made: the connection leads to another account or place than the object's."""


class Ended(TryLater):
    """The job to cancel has already succeeded."""


class Unknown(ProviderError):
    """It is not known whether the call was carried out."""


class Unreached(Unknown):
    """The request never reached the provider."""


class ServerError(Unknown):
    """The provider answered with an error of its own; the call may have been carried out."""


class Contested(Unknown):
    """A conflict on this one object. The provider does answer, so other calls are not affected."""


class Unreadable(Unknown):
    """An answer that is not of the provider's API.

    Args:
        why: what is wrong with it, in a few words.
    """

    def __init__(self, why: str) -> None:
        message = f"what answers is not the provider's API ({why}): is the address right, is a proxy in between?"
        super().__init__(Reason.PROVIDER_UNAVAILABLE, message)


class Page(Unreadable):
    """An HTML page instead of an API's answer."""


def model_gone(model: str, retry_after: float | None = None) -> Refused:
    """The tuned model no longer exists. Providers' own messages for this do not help the user."""
    return Refused(Reason.DELETED_AT_PROVIDER, f"model {model} is not at the provider any more", retry_after)


MOST_PAGES = 1000
"""Page limit of one list: enough for 100,000 jobs or deployments, or a million objects."""


def limit_pages(pages: int, who: str) -> None:
    """Guard against endless pagination.

    Args:
        pages: number of pages read.
        who: the provider's name for users.

    Raises:
        Unreadable: too many pages. A check for repeated page tokens would not be enough: they may all be new.
    """
    if pages > MOST_PAGES:
        raise Unreadable(f"{who} gives a list without end")


def is_html(body: bytes) -> bool:
    """Whether an answer is an HTML page: from a proxy, or because the address is not the API's."""
    return body.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html"))


@contextmanager
def parsing_answer() -> Iterator[None]:
    """Wrap a call and the parsing of its answer: a proxy or a compatible service may answer anything.

    Raises:
        Unreadable: the answer lacks a required field or has another shape; the log says where this was found.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # The error's own message may quote the answer, and the error recurs at every poll.
        kind, found = type(error).__name__, extract_tb(error.__traceback__)[-1]
        place = f"{found.name} ({found.filename.rpartition('/')[2]}, line {found.lineno})"
        logger.warning("a provider's answer is not of the shape that its API has: %s in %s", kind, place)
        raise Unreadable(kind) from None


def metrics_unreadable(error: ProviderError, whose: str, right: str) -> ProviderError:
    """The error for usage metrics that cannot be read. Deployments are created and deleted without these."""
    if error.reason == Reason.RATE_LIMITED:
        return error
    hint = f" ({right} may lack)" if error.reason == Reason.CREDENTIALS_INVALID else ""
    return TryLater(Reason.USAGE_UNKNOWN, f"{whose}'s metrics cannot be read{hint}: {error.message}")
