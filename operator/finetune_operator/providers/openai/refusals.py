"""Converts errors of OpenAI's API and compatible services. Those of chat completions are in `models`."""

import re
from http import HTTPStatus

import openai

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import (
    BRING_AGAIN,
    RIGHTS_STEP,
    Contested,
    NotThere,
    ProviderError,
    Refused,
    ServerError,
    TryLater,
)
from finetune_operator.providers.failed_jobs import OTHER_BASE
from finetune_operator.providers.openai.models import foreign_answer, is_quota, retry_after
from finetune_operator.providers.openai.words import ErrorText, error_text

QUOTA_PAUSE_SECONDS = 300.0
KEY_PAUSE_SECONDS = 60.0
FILE_PAUSE_SECONDS = 10.0

_NO_BASE = re.compile(r"\bmodel\b.*\b(support|available|allowed)\b.*\bfine[- ]?tun", re.IGNORECASE)
"""The message of Azure and others, which name no field."""

_NO_FILE = re.compile("no such file", re.IGNORECASE)


class Barred(TryLater):
    """403: the key is valid but lacks a permission."""

    def __init__(self, message: str, code: str, said: str) -> None:
        super().__init__(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS, next_step=RIGHTS_STEP)
        self.code = code
        self.said = said


class Throttled(TryLater):
    """429: rate-limited."""

    def __init__(self, message: str, retry_after: float, said: str) -> None:
        super().__init__(Reason.RATE_LIMITED, message, retry_after)
        self.said = said


class Wrong(Refused):
    """The request is invalid."""

    def __init__(self, message: str, code: str, param: str) -> None:
        super().__init__(Reason.PROVIDER_REFUSED, message)
        self.code = code
        self.param = param


class Missing(Wrong, NotThere):
    """An object named in the request does not exist."""


_FIELDS = {
    "model": "baseModel",
    "training_file": "dataset.train",
    "validation_file": "dataset.validation",
    "n_epochs": "hyperparameters.epochs",
    "batch_size": "hyperparameters.batchSize",
    "learning_rate_multiplier": "hyperparameters.learningRateMultiplier",
    "seed": "hyperparameters.seed",
    "beta": "preference.beta",
    "type": "preference",  # of method
}
"""The job's field by the last part of the provider's field name."""


def with_spec_field(error: Refused) -> Refused:
    """The refusal of a job's creation, with the job's own field and a next step."""
    code, param = getattr(error, "code", ""), getattr(error, "param", "")
    field = "baseModel" if code.startswith("model_not") else _FIELDS.get(param.rpartition(".")[2])
    if field is None and _NO_BASE.search(error.message):
        field = "baseModel"
    named = f"spec.{field}: {error.message}" if field else error.message
    # A file may just not be visible yet; for a missing model waiting does not help.
    absent = isinstance(error, NotThere) and field != "baseModel"
    step = OTHER_BASE if field == "baseModel" else None
    if param in {"training_file", "validation_file"} or _NO_FILE.search(named):
        step = BRING_AGAIN
    return (NotThere if absent else Refused)(error.reason, named, next_step=step)


_MISMATCHED = "mismatched_"
"""Prefix of OpenAI's error code if the key belongs to another organization or project than the configured one."""


def _key_error(code: str, host: str) -> TryLater:
    """The error for a bad key, without the provider's message, which contains parts of the key."""
    message, step = f"{host} does not accept the API key (401)", None
    what = code.removeprefix(_MISMATCHED)
    if code.startswith(_MISMATCHED) and what in {"organization", "project"}:
        message = f"openAI.{what} of the connection is not the API key's, says {host} (401 {code})"
        step = f"Ask an admin to correct openAI.{what} of the connection, or to leave it out."
    return TryLater(Reason.CREDENTIALS_INVALID, message, KEY_PAUSE_SECONDS, next_step=step)


def translated(error: openai.APIStatusError, host: str) -> ProviderError:  # noqa: PLR0911 - a table
    """Convert an error. `host`: the provider's name for users."""
    told, pause = _error_text(error), retry_after(error)
    code, param, words = told.code, told.param, f": {told.words}" if told.words else ""
    if (strange := foreign_answer(error, host)) is not None:
        return strange
    if error.status_code == HTTPStatus.PAYMENT_REQUIRED or is_quota(error):
        return TryLater(
            Reason.QUOTA_EXCEEDED, f"{host}{f': {code}' if code else ''}{words}", pause or QUOTA_PAUSE_SECONDS
        )
    match error.status_code:
        case 401:
            return _key_error(code, host)
        case 403:
            message = f"{host} does not let this key do that (403){words}"
            return Barred(message, code, told.words)
        case 404:
            return Missing(f"{host} has no such thing (404){words}", code, param)
        case 429:
            why = f": {code}" if code else words
            return Throttled(f"{host} asks for patience{why}", pause or 30.0, told.words)
        case 409:
            return Contested(Reason.PROVIDER_BUSY, f"{host} says that something else is under way (409){words}", pause)
        case status if (status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED) or status in {407, 408}:
            return ServerError(Reason.PROVIDER_UNAVAILABLE, f"{host} answers with status {status}", pause)
        case 400 if "not ready" in words:
            return TryLater(Reason.PROVIDER_UNAVAILABLE, f"{host} still looks at the files", FILE_PAUSE_SECONDS)
    return Wrong(f"{host} refuses ({f'{error.status_code} {code}'.rstrip()}){words}", code, param)


def _error_text(error: openai.APIStatusError) -> ErrorText:
    """The provider's message. Parsed from the raw answer, as the SDK keeps only its `error` field."""
    try:
        return error_text(error.response.json())
    except (ValueError, RecursionError):
        return error_text(error.body)
