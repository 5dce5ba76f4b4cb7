"""What is to be done about a job that failed at a provider follows from the provider's words."""

import pytest

from finetune_api.reasons import NEXT_STEP, Reason
from finetune_operator.providers.failed_jobs import failed

BRING, UNSAFE, BASE, AGAIN = (
    "brought there again",
    "usage policies",
    "Choose a base model",
    "Set spec.retryNonce to pay",
)


@pytest.mark.parametrize(
    ("said", "step"),
    [
        ("file_not_found: No such File object: file-abc", BRING),
        ('No S3 objects found under S3 URL "s3://b/p" given in input data source', BRING),
        ("The training file was deleted.", BRING),
        ("model_safety: Error while running moderation eval refusals_v3", UNSAFE),
        ("content_policy_violation: the data violate policy", UNSAFE),
        ("rai_failure: flagged by Responsible AI", UNSAFE),
        ("model_not_found: The model gpt-x has been deprecated", BASE),
        ("modelDeprecated: retired", BASE),
        ("The model is no longer available in this Region", BASE),
        ("unsupported: This region does not support fine tuning of gpt-x.", BASE),
        ("server_error: We encountered an internal error. Please try again.", AGAIN),
        ("InternalServerError: oops", AGAIN),
        ("Insufficient capacity", AGAIN),
        ("Deployment capacity is not available", AGAIN),
        ("Bedrock gives no reason", AGAIN),
        ("Model gpt-x is not supported for fine-tuning", BASE),
        ("The model does not support a batch size of 64", NEXT_STEP[Reason.PROVIDER_FAILED]),
        ("something else", NEXT_STEP[Reason.PROVIDER_FAILED]),
        ("the loss is not a number", NEXT_STEP[Reason.PROVIDER_FAILED]),
    ],
)
def test_the_step_follows_from_the_words(said: str, step: str) -> None:
    found = failed(said)
    assert (found.reason, found.message) == (Reason.PROVIDER_FAILED, said)
    assert step in (found.next_step or "")
