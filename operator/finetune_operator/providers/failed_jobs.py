"""Next steps for jobs that failed at a provider, by the wording of its message. Pure.

Providers have few error codes and many messages. Unknown wordings get the reason's default step.
"""

import re

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import BRING_AGAIN

UNSAFE = re.compile(
    r"moderation|unsafe|safety|usage polic|content[ _](policy|filter|violat)|harmful|responsible ai|\brai\b|\brai_",
    re.IGNORECASE,
)
"""Rejected for the provider's usage policies, not for the data's format."""
UNSAFE_STEP = (
    "Take out the rows that break the provider's usage policies (OpenAI's moderation API names such rows), and apply "
    "the job under a new name."
)
GONE = re.compile(
    r"no such (file|object)|no s3 objects found|file_?not_?found|\bfile\b.{0,60}\b(was|been) deleted", re.IGNORECASE
)
"""An uploaded file no longer exists."""
TRANSIENT = re.compile(
    r"gives no reason|internal\w*[ _](\w+[ _])?error|server_?error|try again|please retry|retry the job|temporar|"
    r"timed? ?out|preempt|"
    r"(insufficient|no|not available|unavailable|lack of)\W+(\w+\W+){0,3}capacity|\bcapacity\b.{0,40}\bavailable",
    re.IGNORECASE,
)
"""An internal or temporary error of the provider, not caused by the request."""
_NO_BASE = re.compile(
    r"\bmodel.{0,80}\b(deprecated|retired|no longer|not available|not.found)|"
    r"\b(deprecated|retired)\b.{0,40}\bmodel|support\w* (for )?fine[- ]?tun|model_?(not_?found|deprecated|retired)",
    re.IGNORECASE,
)
OTHER_BASE = "Choose a base model that the provider tunes, in that region and now, and apply the job under a new name."
_AGAIN = "Set spec.retryNonce to pay for another attempt."
_STEPS = (
    (GONE, BRING_AGAIN),
    (UNSAFE, f"{UNSAFE_STEP} If none of them does, set spec.retryNonce to pay for another attempt."),
    (_NO_BASE, OTHER_BASE),
    (TRANSIENT, _AGAIN),
)


def failed(said: str) -> Failure:
    """The failure of a job for the reason in the provider's message."""
    found = Failure.because(Reason.PROVIDER_FAILED, said)
    step = next((step for words, step in _STEPS if words.search(said)), found.next_step)
    return found.model_copy(update={"next_step": step})
