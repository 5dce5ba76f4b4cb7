"""How to ask the operator for answers of a provider's models: with the pod's token, and with many retries.

It may restart, and the provider may request a pause: neither costs an answer. Its error messages start with a reason
and quote nothing of the dataset.
"""

import time
from http import HTTPStatus

import httpx
import orjson

from finetune_api.reasons import Reason
from finetune_trainer.attempt.report import ADMISSION_SECONDS, operator_tls, pod_token, retry_after
from finetune_trainer.evaluation.endpoint import Way
from finetune_trainer.evaluation.response import AgainError, FailedError

PATIENCE_SECONDS = 900.0
"""How long to retry one question: the operator may restart, or serve other evaluations first."""

_OF_ONE_QUESTION = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_SENTENCE_LIMIT = 300


def operator_way() -> Way:
    """The way to the operator; its admission time starts now."""
    began = time.monotonic()

    def require_ok(response: httpx.Response, content: bytes) -> None:
        explain(response, content, patient=time.monotonic() < began + ADMISSION_SECONDS)

    return Way(
        headers=lambda: {"Authorization": f"Bearer {pod_token()}"},
        trust=operator_tls(),
        require_ok=require_ok,
        patience_seconds=PATIENCE_SECONDS,
    )


def explain(response: httpx.Response, content: bytes, *, patient: bool) -> None:
    """Return if the response is an answer.

    Raises:
        AgainError: a retry may succeed.
        FailedError: it will not.
    """
    status = response.status_code
    if status == HTTPStatus.OK:
        return
    reason, why = _told(status, content)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if patient:
            raise AgainError(why, reason=reason or Reason.INTERRUPTED)
        raise FailedError(why, for_good=True, reason=reason or Reason.INTERRUPTED)
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT) or status >= 500:
        pause = retry_after(response.headers.get("Retry-After")) or None
        raise AgainError(why, pause, reason or Reason.PROVIDER_UNAVAILABLE)
    concerns_all = status not in _OF_ONE_QUESTION
    raise FailedError(why, for_good=concerns_all, reason=reason if concerns_all else None)


def _told(status: int, content: bytes) -> tuple[Reason | None, str]:
    """The reason and the message in the operator's error response."""
    try:
        said = str(orjson.loads(content)["error"])[:_SENTENCE_LIMIT]
    except (ValueError, KeyError, TypeError):
        return None, f"the operator answers with status {status}"
    word, _, sentence = said.partition(": ")
    return (Reason(word), sentence) if word in set(Reason) else (None, said)
