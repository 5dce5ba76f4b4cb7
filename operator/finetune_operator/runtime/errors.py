"""What can go wrong between the operator and the API server. Independent of kinds.

KubeError                 any answer that is not a success
├── NotFound              404: the object (or its kind, or its namespace) does not exist
├── Conflict              409: it exists already, or it changed since it was read
├── Forbidden             403: RBAC or quota; any status with which an admission policy or webhook denies
├── Invalid               400, 413, 422: the server rejects the object; repeating it does not help
├── Gone                  410: a page token that expired
└── Transient             no answer, a time-out, 5xx; may carry the seconds to wait
    ├── TooManyRequests   429
    ├── Contested         not sent: another writer changes the same object again and again
    └── Unadmitted        500: an admission webhook gives no answer, or one that cannot be understood
LeadershipLost            another replica leads (or may lead): this one must not write any more
WentBack                  the API server's state is older than one seen before: the process must start over
NoCluster                 there are no credentials
"""

import re


class KubeError(Exception):
    """An API call that did not succeed. Status 0: there was no answer."""

    repeated = False
    """Whether this error was reported before, and the server has not been asked again since."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(KubeError):
    """404."""


class Conflict(KubeError):
    """409: AlreadyExists, or a resourceVersion (or UID) that is no longer the current one."""


class Forbidden(KubeError):
    """403; the message names the rule, quota or policy."""


class Invalid(KubeError):
    """400, 413, 422, or 500 for a field that apply does not know, or for an object too large for etcd.

    The message is the server's own, and names the field.
    """


class Gone(KubeError):
    """410: a continue token that expired while a long list was read."""


class Transient(KubeError):
    """Worth another try later; `retry_after` is the number of seconds that the server asked for, if any."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(status, reason, message)
        self.retry_after = retry_after


class TooManyRequests(Transient):
    """429: the server sheds load, or a disruption budget blocks an eviction."""


class Unadmitted(Transient):
    """500: a required admission webhook could not be called; the message is the server's and names it."""


class Contested(Transient):
    """A status that another writer changes was corrected so often that the next correction has to wait."""

    def __init__(self, retry_after: float) -> None:
        said = "another writer changes its status again and again (two operators that watch one namespace?)"
        super().__init__(0, "Contested", f"{said}; ours is written again in {retry_after:.0f} s", retry_after)


class WentBack(Exception):
    """The API server shows an object older than it was before: etcd was restored from a snapshot."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} {WENT_BACK}")


WENT_BACK = (
    "is older than it was: the API server's state was put back (etcd, from a snapshot), and what is known of it holds "
    "no more; a new process reads it again"
)


REFUSALS = (Forbidden, Invalid, Unadmitted)
"""Refused writes that need someone to act: reported in status, and retried."""


class LeadershipLost(Exception):
    """This replica does not hold the Lease, or cannot be sure that it does."""


UNAUTHENTICATED = (
    "the API server refuses these credentials. If they are those of the operator's pod, whose service account was "
    "deleted or recreated: delete the pod, and the next one has a token of the new account"
)

# Server-side apply rejects a field that is not in the schema with 500, though repeating it does not help.
_BAD_PATCH = "failed to create typed patch object"
# Policies and webhooks choose the status of their denial: 404, 409 and 413 would be taken for something else.
_DENIED = re.compile(
    r'^admission webhook "[^"]*" denied the request|'
    r"is forbidden: \w+AdmissionPolicy '[^']*'(?: with binding '[^']*')? denied request"
)
# The answer to a patch repeats the whole object before the server's reason.
_UNKNOWN_FIELD = re.compile(r"strict decoding error: .*", re.DOTALL)
_TOO_LARGE = "etcdserver: request is too large"
# After etcd found a Job too large, the server retries and then rejects labels that it has set itself.
_TOO_LARGE_A_JOB = re.compile(r'^(Job\.batch "[^"]*") is invalid: .*`selector` not auto-generated', re.DOTALL)
_NOT_ASKED = "failed calling webhook"
_BY_STATUS: dict[int, type[KubeError]] = {
    400: Invalid,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: Invalid,
    422: Invalid,
}


def error_for(status: int, reason: str, message: str, retry_after: float | None = None) -> KubeError:
    """The exception for an API server's answer."""
    if status == 422 and (unknown := _UNKNOWN_FIELD.search(message)):
        message = unknown[0]
    if status == 422 and (job := _TOO_LARGE_A_JOB.match(message)):
        message = (
            f"{job[1]} is too large: etcd takes no object beyond 1.5 MiB, and this one has what spec and connection "
            "say of its pod, as volumes with long attributes"
        )
    if status == 401 and message == "Unauthorized":  # the API server's own answer, not that of a server behind it
        message = UNAUTHENTICATED
    if status == 500 and message.startswith((_BAD_PATCH, _TOO_LARGE)):
        return Invalid(status, reason, message)
    if _DENIED.search(message):
        return Forbidden(status, reason, message)
    if status >= 500 and _NOT_ASKED in message:
        return Unadmitted(status, reason, message, retry_after)
    if status == 429:
        return TooManyRequests(status, reason, message, retry_after)
    if status >= 500 or status == 0:
        return Transient(status, reason, message, retry_after)
    return _BY_STATUS.get(status, KubeError)(status, reason, message)


class NoCluster(Exception):
    """There are no credentials for a cluster, or they cannot be read."""
