"""OpenAI's refusals in its own words, as far as they are publicly quoted; README.md says where they are not."""

from tests.simulators.http import ApiError, Reply

BILLING = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)


def refusal(status: int, message: str, param: str | None = None, code: str | None = None,
            kind: str = "invalid_request_error") -> ApiError:  # fmt: skip
    """Any refusal."""
    return ApiError(status, code, message, param=param, type=kind)


def shaped(error: ApiError, request_id: str) -> Reply:
    """The body of a refusal; 5xx and 429 have their own types."""
    usual = {429: "requests", 500: "server_error", 503: "server_error"}.get(error.status, "invalid_request_error")
    body = {"error": {"message": error.message, "type": error.details.get("type", usual),
                      "param": error.details.get("param"), "code": error.code}}  # fmt: skip
    return Reply.json(body, error.status, {"x-request-id": request_id, **error.headers})


def no_key() -> ApiError:
    return refusal(401, "You didn't provide an API key. You need to provide your API key in an Authorization header "
                        "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).")  # fmt: skip


def wrong_key(key: str) -> ApiError:
    shown = f"{key[:3]}{'*' * max(0, len(key) - 7)}{key[-4:]}" if len(key) > 7 else "*" * len(key)
    return refusal(401, f"Incorrect API key provided: {shown}. You can find your API key at "
                        "https://platform.openai.com/account/api-keys.", code="invalid_api_key")  # fmt: skip


def mismatched(what: str) -> ApiError:
    message = f"OpenAI-{what} header should match {what.lower()} for API key"
    return refusal(401, message, None, f"mismatched_{what.lower()}")


def no_file(file_id: str) -> ApiError:
    return refusal(404, f"No such File object: {file_id}", "id")


def invalid_file(param: str, file_id: str) -> ApiError:
    return refusal(400, f"invalid {param}: {file_id}", param)


def file_not_ready(file_id: str) -> ApiError:
    return refusal(400, f"File '{file_id}' is still being processed and is not ready to be used for fine-tuning. "
                        "Please try again later.")  # fmt: skip


def no_job(job_id: str) -> ApiError:
    return refusal(404, f"Could not find fine tune: {job_id}", "fine_tune_id", "fine_tune_not_found")


def no_model(name: str) -> ApiError:
    return refusal(404, f"The model '{name}' does not exist", "model", "model_not_found")


def no_model_to_ask(name: str) -> ApiError:
    return refusal(404, f"The model `{name}` does not exist or you do not have access to it.", None, "model_not_found")


def shut_down(name: str) -> ApiError:
    return refusal(404, f"The model `{name}` has been deprecated, learn more here: "
                        "https://platform.openai.com/docs/deprecations", None, "model_not_found")  # fmt: skip


def not_tunable(name: str) -> ApiError:
    return refusal(
        400, f"Model {name} is not available for fine-tuning or does not exist.", None, "model_not_available"
    )


def no_method(name: str, method: str) -> ApiError:
    return refusal(400, f"Method {method} is not available for model {name}.", "method.type", "unsupported_method")


def closed() -> ApiError:
    return refusal(403, "Fine-tuning is not available to your organization: the fine-tuning platform no longer takes "
                        "new jobs.", None, "fine_tuning_closed")  # fmt: skip


def too_many_jobs(limit: int, running: int, pending: int, model: str) -> ApiError:
    return refusal(429, "This fine-tune request has been rate-limited. Your organization has reached the maximum of "
                        f"{limit} active requests ({running} running, {pending} pending) for the model '{model}'.",
                   None, "rate_limit_exceeded")  # fmt: skip


def too_many_today(limit: int, model: str) -> ApiError:
    return refusal(429, "This fine-tune request has been rate-limited. Your organization has reached the maximum of "
                        f"{limit} fine-tuning requests per day for the model '{model}'.",
                   None, "daily_rate_limit_exceeded")  # fmt: skip


def no_money() -> ApiError:
    return refusal(429, BILLING, None, "insufficient_quota", "insufficient_quota")


def not_stoppable(job_id: str, state: str, verb: str) -> ApiError:
    return refusal(400, f"Job {job_id} cannot be {verb}: its status is {state}.")
