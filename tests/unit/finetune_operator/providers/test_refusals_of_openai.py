"""Refusals in the words of OpenAI, Azure's data plane and services of their API, made into errors by the real SDK."""

from typing import Any

import httpx2
import openai
import pytest

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import Contested, NotThere, ProviderError, Refused, ServerError, TryLater
from finetune_operator.providers.openai.refusals import translated, with_spec_field

HOST = "api.openai.com"
_BILLING = "You exceeded your current quota, please check your plan and billing details."
_NO_MODEL = "The model `gpt-9` does not exist or you do not have access to it."
Q, R, P = Reason.QUOTA_EXCEEDED, Reason.RATE_LIMITED, Reason.PROVIDER_REFUSED


def error(status: int, body: Any, **headers: str) -> openai.APIStatusError:
    request = httpx2.Request("POST", f"https://{HOST}/v1/fine_tuning/jobs")
    response = httpx2.Response(status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response.request = request
    return openai.AsyncOpenAI(api_key="k")._make_status_error_from_response(response)


def said(message: str = "no", code: str | None = None, param: str | None = None, kind: str = "x") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


REFUSALS: dict[str, tuple[openai.APIStatusError, type[ProviderError], Reason, str, float | None]] = {
    "no credit": (error(429, said(_BILLING, "insufficient_quota")), TryLater, Q, _BILLING, 300),
    "no credit, by the type": (
        error(429, said(_BILLING, None, None, "insufficient_quota")),
        TryLater,
        Q,
        _BILLING,
        300,
    ),
    "hard limit": (
        error(400, said("Billing hard limit", "billing_hard_limit_reached")),
        TryLater,
        Q,
        "hard limit",
        300,
    ),
    "payment required": (error(402, said("Insufficient credits")), TryLater, Q, "Insufficient credits", 300),
    "quota of Azure, in capitals": (error(429, said("No quota", "QuotaExceeded")), TryLater, Q, "No quota", 300),
    "quota of Azure with 403": (
        error(403, said("Out of call volume quota", "QuotaExceeded")),
        TryLater,
        Q,
        "quota",
        300,
    ),
    "quota told with a pause": (error(429, said(code="insufficient_quota"), retry_after="9"), TryLater, Q, "", 9),
    "too fast": (error(429, said(code="rate_limit_exceeded"), retry_after="7"), TryLater, R, "rate_limit_exceeded", 7),
    "too fast, no pause": (error(429, said("slow down")), TryLater, R, "slow down", 30),
    "too fast, a pause of nonsense": (error(429, said("slow"), retry_after="soon"), TryLater, R, "slow", 30),
    "no such model": (error(404, said(_NO_MODEL, "model_not_found", "model")), NotThere, P, _NO_MODEL, None),
    "a field": (error(422, {"detail": "n_epochs: at most 10"}), Refused, P, "n_epochs: at most 10", None),
    "too large": (error(413, said("Maximum content size limit exceeded")), Refused, P, "content size", None),
    "not implemented": (error(501, said("no dpo")), Refused, P, "no dpo", None),
    "conflict": (error(409, said("another one")), Contested, Reason.PROVIDER_BUSY, "another one", None),
    "overloaded": (error(503, said("overloaded")), ServerError, Reason.PROVIDER_UNAVAILABLE, "503", None),
    "a proxy that asks who asks": (error(407, {}), ServerError, Reason.PROVIDER_UNAVAILABLE, "407", None),
    "overloaded with a pause": (
        error(529, said(), retry_after="40"),
        ServerError,
        Reason.PROVIDER_UNAVAILABLE,
        "529",
        40,
    ),
    "key": (error(401, said("Incorrect API key sk-xyz")), TryLater, Reason.CREDENTIALS_INVALID, "(401)", 60),
    "key of another organization": (
        error(401, said("OpenAI-Organization header should match", "mismatched_organization")),
        TryLater,
        Reason.CREDENTIALS_INVALID,
        "openAI.organization of the connection",
        60,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_has_its_reason_the_providers_words_and_its_pause(name: str) -> None:
    raised, kind, reason, words, pause = REFUSALS[name]
    found = translated(raised, HOST)
    assert (isinstance(found, kind), found.reason, found.retry_after) == (True, reason, pause), found.message
    assert words in found.message
    assert "sk-" not in found.message
    assert found.failure().next_step


WISHES: dict[str, tuple[int, dict[str, Any], str, str]] = {
    "model, by its parameter": (404, said(_NO_MODEL, "model_not_found", "model"), "baseModel", "Choose a base"),
    "model, by its code": (400, said("not for fine-tuning", "model_not_available"), "baseModel", "Choose a base"),
    "model, in Azure's words": (
        400,
        said("The specified base model does not support fine-tuning.", "invalidPayload"),
        "baseModel",
        "Choose a base",
    ),
    "epochs": (400, said(param="method.supervised.hyperparameters.n_epochs"), "hyperparameters.epochs", "Correct what"),
    "epochs, as it was": (400, said(param="hyperparameters.n_epochs"), "hyperparameters.epochs", "Correct what"),
    "rows of a step": (400, said(param="hyperparameters.batch_size"), "hyperparameters.batchSize", "Correct what"),
    "rate": (400, said(param="learning_rate_multiplier"), "hyperparameters.learningRateMultiplier", "Correct what"),
    "seed": (400, said(param="seed"), "hyperparameters.seed", "Correct what"),
    "pairs": (400, said("no dpo", "unsupported_method", "method.type"), "preference", "Correct what"),
    "training file gone": (400, said(param="training_file"), "dataset.train", "spec.retryNonce"),
    "validation file gone": (400, said(param="validation_file"), "dataset.validation", "spec.retryNonce"),
    "file gone": (404, said("No such File object: file-1", None, "id"), "", "spec.retryNonce"),
    "another field": (400, said(param="colour"), "", "Correct what"),
}


@pytest.mark.parametrize("name", WISHES)
def test_a_job_that_is_refused_names_the_field_and_what_can_be_done(name: str) -> None:
    status, body, field, step = WISHES[name]
    refused = translated(error(status, body), HOST)
    assert isinstance(refused, Refused)
    before = refused.message
    found = with_spec_field(refused)
    assert (isinstance(found, NotThere), found.reason) == (status == 404 and field != "baseModel", P)
    assert found.message == (f"spec.{field}: {before}" if field else before)
    assert step in str(found.failure().next_step)
