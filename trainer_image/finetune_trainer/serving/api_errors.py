"""Errors for clients, in OpenAI's format.

Independent of the HTTP framework, except for status codes and headers.
"""

from collections.abc import Mapping
from typing import Any

_SHOWN = 256  # limit of client input that is quoted, in characters


class ApiError(Exception):
    """A refused request: HTTP status, readable message, and the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.allow = allow

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body that OpenAI's clients expect."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After if a retry makes sense; WWW-Authenticate with 401, Allow with 405."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.allow is not None:
            headers["Allow"] = self.allow
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def bad_request(message: str, param: str | None, code: str | None = None) -> ApiError:
    """400: the request itself is wrong."""
    return ApiError(400, message, param=param, code=code)


def wrong_key() -> ApiError:
    """401: no key, or a wrong one."""
    return ApiError(401, "Send the server's key: Authorization: Bearer KEY.", code="invalid_api_key")


def wrong_model(asked: str, served: str) -> ApiError:
    """404: this server has one model, with another name."""
    message = f"The model {asked[:_SHOWN]!r} is not served here; this server's model is {served!r}."
    return ApiError(404, message, param="model", code="model_not_found")


def no_such_route(path: str) -> ApiError:
    """404: an unknown path."""
    known = "/v1/models, /v1/chat/completions, /v1/completions, /health, /metrics"
    return ApiError(404, f"There is no {path[:_SHOWN]} here; there are {known}.", code="not_found")


def wrong_method(method: str, path: str, headers: Mapping[str, str] | None) -> ApiError:
    """405: the path exists for other methods, which `headers` name."""
    allow = (headers or {}).get("Allow", "")
    return ApiError(
        405, f"{path[:_SHOWN]} does not take {method}, but {allow}.", code="method_not_allowed", allow=allow
    )


def body_too_large(limit: int) -> ApiError:
    """413: more bytes than any prompt needs."""
    return ApiError(413, f"The request is larger than {limit} bytes.", code="request_too_large")


def encoded(how: str) -> ApiError:
    """415: the body is compressed."""
    message = f"Content-Encoding {how[:_SHOWN]!r} is not read here; send the body as it is."
    return ApiError(415, message, code="unsupported_encoding")


def prompt_too_long(tokens: int, context: int, param: str, *, apart: bool) -> ApiError:
    """400: the prompt leaves no room for an answer; `apart` if the answer has a limit of its own."""
    may = "it" if apart else "prompt and answer together"
    message = f"The prompt has {tokens} tokens; {may} may have {context}. Shorten the prompt."
    return bad_request(message, param, "context_length_exceeded")


def queue_full(waiting: int) -> ApiError:
    """503: the queue is full."""
    return ApiError(503, f"{waiting} requests are waiting; try again soon.", code="queue_full", retry_after=2)


def not_ready(state: str) -> ApiError:
    """503: the model is not loaded yet, or broken."""
    return ApiError(503, f"The model does not answer: {state}.", code="model_not_ready", retry_after=5)


def bug() -> ApiError:
    """500: an unexpected error."""
    return ApiError(500, "The server failed on this request; its log says why.", code="internal_error")


def generation_failed() -> ApiError:
    """500: the model raised an exception; the traceback is in the log."""
    return ApiError(500, "The model failed on this request; the server's log says why.", code="generation_failed")
