"""Uploads a converted file to the operator, which passes it on to the provider with credentials that no pod has."""

import http.client
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

import orjson
from pydantic import ValidationError

from finetune_api.job_status import ProviderFile
from finetune_api.reasons import Reason
from finetune_api.trainer import PrepareJob, UploadTarget
from finetune_trainer.attempt.report import ADMISSION_SECONDS, to_operator
from finetune_trainer.data.provider.file import ConvertedFile
from finetune_trainer.errors import TrainerError

UPLOAD_SECONDS = 1800.0
"""How long to retry a file, for example while the operator restarts or the provider asks to wait."""

_ANSWER_SECONDS = 600.0
_ANSWER_BYTES = 64 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """Response to an upload."""

    status: int
    body: bytes
    pause: float = 0.0
    """Seconds in Retry-After."""


Send = Callable[[str, ConvertedFile], Answer]


def upload(
    job: PrepareJob,
    file: ConvertedFile,
    *,
    send: Send | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ProviderFile:
    """Upload one file, with retries for half an hour; the operator makes sure that it is stored once.

    A requested pause is kept exactly: the operator schedules all waiting pods one after another.

    Raises:
        TrainerError: ProviderRefused with the operator's sentence, or StoreUnavailable after the time limit.
    """
    deadline, pause = clock() + UPLOAD_SECONDS, _FIRST_PAUSE
    while True:
        why, asked_pause = "the operator does not answer", 0.0
        try:
            answer = (send or _put)(_url(job, file), file)
        except (OSError, http.client.HTTPException) as error:
            logger.warning("The upload broke off (%s); again.", error)
        else:
            if answer.status == http.HTTPStatus.OK:
                return _file(answer)
            why, asked_pause = _sentence(answer), answer.pause
            if not _is_passing(answer.status, patient=clock() < deadline - UPLOAD_SECONDS + ADMISSION_SECONDS):
                raise TrainerError(Reason.PROVIDER_REFUSED, why)
            logger.warning("The file is not taken yet (%s); again.", why)
        wait = asked_pause or pause
        if clock() + wait > deadline:
            raise TrainerError(Reason.STORE_UNAVAILABLE, f"{file.path.name} could not be passed on: {why}")
        sleep(wait)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _is_passing(status: int, *, patient: bool) -> bool:
    """Whether a retry may succeed a little later."""
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return patient
    return status >= 500 or status in (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)


def _url(job: PrepareJob, file: ConvertedFile) -> str:
    target = UploadTarget(
        namespace=job.namespace,
        name=job.name,
        uid=job.uid,
        attempt=job.attempt,
        split=file.split,
        sha256=file.sha256,
    )
    return f"{job.upload_url}?{urlencode(target.wire())}"


def _put(url: str, file: ConvertedFile) -> Answer:
    headers = {"Content-Type": "application/jsonl", "Content-Length": str(file.bytes)}
    with file.path.open("rb") as body:
        return Answer(*to_operator("PUT", url, body, headers, seconds=_ANSWER_SECONDS, most=_ANSWER_BYTES))


def _file(answer: Answer) -> ProviderFile:
    try:
        return ProviderFile.model_validate_json(answer.body)
    except ValidationError as error:
        raise TrainerError(Reason.PROVIDER_REFUSED, "the operator's answer to an upload cannot be read") from error


def _sentence(answer: Answer) -> str:
    """The operator's error message, which never quotes the file."""
    try:
        return str(orjson.loads(answer.body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"the operator answers with status {answer.status}"
