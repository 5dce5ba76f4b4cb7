"""Limits the size of AWS's answers and rejects those that are not AWS's.

botocore reads answers of any size, and parses foreign ones as an object without fields: a list would seem empty and a
deletion done.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.model import OperationModel
from botocore.response import StreamingBody

from finetune_operator.providers.calls.errors import Unreadable, is_html
from finetune_operator.providers.calls.failed_calls import ANSWER_MAX_BYTES, redirected, too_long

_CHUNK_BYTES = 64 * 1024

_OF_AWS = frozenset({"x-amz-request-id", "x-amzn-requestid", "x-amz-bucket-region"})
"""Headers that identify an answer as AWS's own."""
_IN_JSON = frozenset({"json", "rest-json"})
_IN_EACH_PAGE = b"IsTruncated"
"""Present in every page of S3's XML lists, which omit an empty list itself."""


@dataclass(frozen=True)
class _Read:
    """A body that has been read, with the interface that botocore reads from."""

    content: bytes

    def stream(self) -> Iterator[bytes]:
        """The whole body."""
        yield self.content


class Bounded:
    """A botocore HTTP session that limits the size of answers. Streamed ones are passed through.

    Args:
        http: the wrapped session, such as botocore's URLLib3Session.
    """

    def __init__(self, http: Any) -> None:
        self._http = http

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """See botocore's URLLib3Session.

        Raises:
            Unreadable: the answer is too long.
        """
        streams, request.stream_output = request.stream_output, True
        response = self._http.send(request)
        if streams and response.status_code < 300:
            return response  # callers that stream limit the size themselves
        content, body = bytearray(), StreamingBody(response.raw, None)
        for chunk in body.iter_chunks(_CHUNK_BYTES):
            content += chunk
            if len(content) > ANSWER_MAX_BYTES:
                body.close()
                raise too_long(urlsplit(request.url).hostname)
        return AWSResponse(response.url, response.status_code, response.headers, _Read(bytes(content)))

    def close(self) -> None:
        """See botocore's URLLib3Session."""
        self._http.close()


def require_answer(operation_model: OperationModel, response_dict: Mapping[str, Any], **_: Any) -> None:
    """Handler of botocore's event `before-parse`.

    Raises:
        Unreadable: the answer is a web page, truncated, or of another format; streamed S3 objects may be anything.
        TryLater: it is a redirect that is not S3's own to another region, which botocore follows.
    """
    service, status = operation_model.service_model.service_name, response_dict["status_code"]
    headers = {name.casefold(): value for name, value in response_dict["headers"].items()}
    if status in range(300, 400) and not _OF_AWS & headers.keys():
        raise redirected(service, status, headers.get("location", ""))
    if status >= 500 or (operation_model.has_streaming_output and status < 300):
        return
    if is_html(response_dict["body"]):
        raise Unreadable(f"{service} answers with a web page and status {status}")
    if status < 300 and _is_something_else(operation_model, response_dict["body"], own=bool(_OF_AWS & headers.keys())):
        raise Unreadable(f"{service} answers with something else")


def _is_something_else(operation_model: OperationModel, body: bytes, *, own: bool) -> bool:
    """Whether a body has another format than the operation's model, or is missing although the model has fields."""
    shape = operation_model.output_shape
    if shape is None or "payload" in shape.serialization:
        return False  # the body is ignored, or returned to the caller as it is
    if not body:
        return any("location" not in one.serialization for one in shape.members.values())  # else all are in headers
    lists = operation_model.name.startswith("List")
    if operation_model.service_model.resolved_protocol not in _IN_JSON:
        return lists and _IN_EACH_PAGE not in body  # the parser rejects other malformed XML
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return True
    return not isinstance(found, dict) or (lists and _lacks_its_list(shape, found, own=own))


def _lacks_its_list(shape: Any, found: Mapping[str, Any], *, own: bool) -> bool:
    """Whether a page lacks its list, so that nothing may be concluded from it.

    Bedrock's model allows it to omit an empty list; such a page is accepted if it has AWS's headers.
    """
    lists = [(name, one) for name, one in shape.members.items() if one.type_name == "list"]
    return not any(
        one.serialization.get("name", name) in found or (own and name not in shape.required_members)
        for name, one in lists
    )
