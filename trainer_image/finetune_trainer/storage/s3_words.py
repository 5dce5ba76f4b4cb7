"""What S3's error codes mean, in plain words, with a next step.

A status alone says little: 400 is also that of an expired session token, and 403 that of a wrong clock.
The listed errors are permanent: none of them is worth a retry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from finetune_api.reasons import Reason
from finetune_trainer.storage.store_errors import chain, status_of

_KEYS_IN = "the Secret with its keys (at a shell: into the environment)"
_NEW_TOKEN = (
    f"Put a new AWS_SESSION_TOKEN and the pair of keys that came with it into {_KEYS_IN}, or keys that last: "
    "they have no token."
)
_SAME_PAIR = f"Put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of one pair into {_KEYS_IN}, as they were given out."
_RESTORE = "Have it restored (aws s3api restore-object), or copied to another storage class, and name the copy."


class Refusal(NamedTuple):
    """Why a request was refused."""

    reason: Reason
    why: str
    step: str


def _denied(why: str, step: str) -> Refusal:
    return Refusal(Reason.ACCESS_DENIED, why, step)


_EXPIRED = _denied("the session token of its keys has expired", _NEW_TOKEN)
_OTHER_TOKEN = _denied("the session token does not belong to its keys", _NEW_TOKEN)
_CLOSED = _denied(
    "the account that the bucket belongs to is closed, unpaid or not signed up",
    "Ask whoever the account belongs to, or name a copy in another one.",
)
_KMS = _denied(
    "the KMS key that it is encrypted with cannot be used",
    "Have that key enabled, and allow kms:Decrypt with it to the keys (kms:GenerateDataKey to write).",
)
_OWN_KEY = _denied(
    "it is encrypted with a key of its owner's own (SSE-C), which is not given here",
    "Name a copy that is encrypted by S3 itself or with KMS.",
)

_REFUSALS = {
    "AccountProblem": _CLOSED,
    "AllAccessDisabled": _CLOSED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidAccessKeyId": _denied(
        "it does not know AWS_ACCESS_KEY_ID",
        f"Put a pair of keys of this store into {_KEYS_IN}; of a compatible store also AWS_ENDPOINT_URL, of AWS in "
        "China or GovCloud AWS_REGION.",
    ),
    "InvalidBucketName": Refusal(
        Reason.DATASET_NOT_FOUND,
        "no bucket may have that name",
        "Check the uri: s3://BUCKET/PATH, and the bucket without the address of its store.",
    ),
    "InvalidObjectState": _denied("it is in an archive (Glacier), which is not read from", _RESTORE),
    "InvalidToken": _OTHER_TOKEN,
    "KMS.DisabledException": _KMS,
    "KMS.InvalidStateException": _KMS,
    "KMS.KMSInvalidStateException": _KMS,
    "KMS.NotFoundException": _KMS,
    "NotSignedUp": _CLOSED,
    "RequestTimeTooSkewed": _denied(
        "the clock of this machine is more than 15 minutes away from that of the store",
        "Have the clock set, on a cluster by an admin on the pod's node (NTP), then try again (in a cluster by "
        "spec.retryNonce).",
    ),
    "SignatureDoesNotMatch": _denied("AWS_SECRET_ACCESS_KEY is not that of AWS_ACCESS_KEY_ID", _SAME_PAIR),
    "TokenRefreshRequired": _EXPIRED,
}
"""By code, from the error lists of S3 and of its token services."""

_BEFORE_A_REQUEST = {
    "InvalidRegionError": _denied(
        "AWS_REGION is not a name of a region", f"Put one such as eu-central-1 into {_KEYS_IN}."
    ),
    "ProfileNotFound": _denied(
        "AWS_PROFILE names a profile that is not there", "Correct AWS_PROFILE at this shell, or take it out."
    ),
    "ParamValidationError": _REFUSALS["InvalidBucketName"],
}
"""By class of botocore's errors that are raised before a request is sent."""

_WRONG_REGION = {
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "PermanentRedirect",
}
"""Codes for a bucket in another region, which botocore could not correct itself."""


def refusal_of(error: BaseException) -> Refusal | None:
    """The meaning of S3's error, if known."""
    response = _response(error)
    kinds = {type(one).__name__ for one in chain(error)}
    if response is None and (unasked := kinds & _BEFORE_A_REQUEST.keys()):
        return _BEFORE_A_REQUEST[min(unasked)]
    if response is None:
        # botocore looks up the bucket's region; if that fails, it looks up the region for the look-up, and so on
        return _wrong_region({"Error": {}}) if any(isinstance(one, RecursionError) for one in chain(error)) else None
    said: dict[str, Any] = response["Error"]
    code = str(said.get("Code"))
    if code in _WRONG_REGION:
        return _wrong_region(response)
    if code == "InvalidRequest" and "Server Side Encryption" in str(said.get("Message")):
        return _OWN_KEY
    return _REFUSALS.get(code)


@contextmanager
def error_body(files: Any, path: str) -> Iterator[None]:
    """For code that requests an object's size with HEAD, whose error has no body: repeats it with GET to learn why."""
    try:
        yield
    except OSError as error:
        if status_of(error) in (301, 307, 400, 403):
            bucket, key, _ = files.split_path(path)
            files.call_s3("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
        raise


def _wrong_region(response: dict[str, Any]) -> Refusal:
    said, headers = response["Error"], response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = said.get("Region") or headers.get("x-amz-bucket-region")
    if not region or not str(region).replace("-", "").isalnum():
        return _denied(
            "the bucket is in another region than the one that is asked",
            f"Put AWS_REGION, the bucket's own, into {_KEYS_IN}; an address of AWS (AWS_ENDPOINT_URL, endpointURL of "
            "artifacts) has to be one of that region.",
        )
    return _denied(
        f"the bucket is in region {region}, which is not the one that is asked",
        f"Put AWS_REGION: {region} into {_KEYS_IN}; an address of AWS (AWS_ENDPOINT_URL, or endpointURL of artifacts) "
        "has to be one of that region, or is left out.",
    )


def _response(error: BaseException) -> dict[str, Any] | None:
    """The response kept by botocore."""
    found = (getattr(one, "response", None) for one in chain(error))
    return next((one for one in found if isinstance(one, dict) and isinstance(one.get("Error"), dict)), None)
