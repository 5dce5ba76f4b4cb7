"""The report server's answer when it refuses something: one sentence, and when to retry."""

import math

from aiohttp import hdrs, web
from pydantic import ValidationError

_PROBLEMS_NAMED = 10


class Refusal(Exception):
    """An error answer.

    Args:
        status: HTTP status.
        sentence: for people; never quotes the request.
        retry_after: seconds after which to retry.
        close: whether to close the connection, so that the rest of the request is not read.
    """

    def __init__(self, status: int, sentence: str, retry_after: float | None = None, close: bool = False) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after
        self.close = close

    def response(self) -> web.Response:
        """The answer."""
        response = web.json_response({"error": self.sentence}, status=self.status)
        if self.retry_after is not None:
            response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
        if self.close:
            response.force_close()
        return response


def invalid_fields(error: ValidationError) -> str:
    """The invalid fields and what is wrong; never quotes their values."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    named = [f"{'.'.join(str(place) for place in p['loc']) or 'body'}: {p['msg']}" for p in problems]
    return "; ".join(named[:_PROBLEMS_NAMED])
