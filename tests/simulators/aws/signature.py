"""Signature version 4: who called, and whether the secret key is right."""

import re

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.simulators.aws.settings import AwsSettings
from tests.simulators.http import ApiError, Call

FORM = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]+)"
)


def check(call: Call, settings: AwsSettings) -> None:
    """Refuse a call that is not signed with a valid key.

    Raises:
        ApiError: with AWS's code for what is wrong.
    """
    signed = FORM.fullmatch(call.headers.get("Authorization", ""))
    if signed is None:
        raise ApiError(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    key = signed["key"]
    temporary = settings.temporary_keys and key.startswith("ASIA") and "X-Amz-Security-Token" in call.headers
    secret = settings.access_keys.get(key)
    if key in settings.revoked_keys or (secret is None and not temporary):
        raise ApiError(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if secret is not None and _signature(call, signed, secret) != signed["signature"]:
        message = "The request signature we calculated does not match the signature you provided."
        raise ApiError(403, "InvalidSignatureException", message)
    if call.operation in settings.denied:
        user = f"arn:{settings.partition}:iam::{settings.account}:user/simulated"
        action = f"{signed['service']}:{call.operation}"
        raise ApiError(403, "AccessDeniedException", f"User: {user} is not authorized to perform: {action}")


def _signature(call: Call, signed: re.Match[str], secret: str) -> str:
    headers = {name: call.headers[name] for name in signed["headers"].split(";")}
    request = AWSRequest(method=call.method, url=call.url + call.raw_path, headers=headers, data=call.body)
    request.context["timestamp"] = call.headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials(signed["key"], secret), signed["service"], signed["region"])
    canonical = signer.canonical_request(request)
    return str(signer.signature(signer.string_to_sign(request, canonical), request))
