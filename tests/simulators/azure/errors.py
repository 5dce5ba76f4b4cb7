"""Azure's errors: of the data plane, of ARM, and of the token endpoint."""

from tests.simulators.http import ApiError, Reply

DATA_PLANE_CODES = {
    400: "invalidPayload", 401: "401", 403: "forbidden", 404: "notFound", 409: "conflict", 413: "invalidPayload",
    429: "tooManyRequests", 500: "internalFailure", 503: "serviceUnavailable",
}  # fmt: skip
FROM_OPENAI = {"rate_limit_exceeded": "quotaExceeded", "insufficient_quota": "quotaExceeded"}
OPENAI_ONLY = {"model_not_available", "model_not_found", "fine_tune_not_found", "unknown_parameter", "invalid_type",
               "missing_required_parameter", "string_above_max_length", "invalid_api_key", "fine_tuning_closed",
               "daily_rate_limit_exceeded"}  # fmt: skip
NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again."
)
WRONG_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)


def data_plane(error: ApiError, request_id: str) -> Reply:
    """`{"error": {"code": …, "message": …}}`, the code one of the authoring API's own."""
    code = FROM_OPENAI.get(str(error.code), error.code)
    if code is None or code in OPENAI_ONLY:
        code = DATA_PLANE_CODES.get(error.status, "internalFailure")
    body = {"error": {"code": code, "message": error.message}}
    return Reply.json(body, error.status, {"apim-request-id": request_id, **error.headers})


def arm(error: ApiError, request_id: str) -> Reply:
    """ARM's common error response."""
    code = error.code or {429: "TooManyRequests", 503: "ServiceUnavailable"}.get(error.status, "InternalServerError")
    body = {"error": {"code": code, "message": error.message}}
    return Reply.json(body, error.status, {"x-ms-request-id": request_id, **error.headers})


def entra(error: ApiError, request_id: str) -> Reply:
    """OAuth's error response with Entra's number."""
    number = error.details.get("number", 90033)
    body = {"error": error.code or "temporarily_unavailable", "error_codes": [number], "trace_id": request_id,
            "error_description": f"AADSTS{number}: {error.message} Trace ID: {request_id}",
            "correlation_id": request_id}  # fmt: skip
    return Reply.json(body, error.status, error.headers)


def no_deployment() -> ApiError:
    return ApiError(404, "DeploymentNotFound", NO_DEPLOYMENT)


def wrong_key() -> ApiError:
    return ApiError(401, "401", WRONG_KEY)


def busy(account_id: str) -> ApiError:
    return ApiError(409, "RequestConflict", "Another operation is being performed on the parent resource "
                                            f"'{account_id}'. Please try again later.")  # fmt: skip


def no_resource(kind: str, name: str, group: str) -> ApiError:
    return ApiError(404, "ResourceNotFound", f"The Resource '{kind}/{name}' under resource group '{group}' was not "
                    "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix")  # fmt: skip


def no_rights(action: str, scope: str) -> ApiError:
    return ApiError(403, "AuthorizationFailed", "The client does not have authorization to perform action "
                    f"'{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please "
                    "refresh your credentials.")  # fmt: skip


def unsupported_model(name: str, version: str) -> ApiError:
    return ApiError(400, "DeploymentModelNotSupported", f"The model 'Format: OpenAI, Name: {name}, Version: {version}' "
                                                        "of account deployment is not supported.")  # fmt: skip


def unsupported_sku(sku: str, model: str, location: str) -> ApiError:
    return ApiError(400, "InvalidResourceProperties", f"The specified SKU '{sku}' for model '{model}' is not supported "
                                                      f"in this region '{location}'.")  # fmt: skip


def no_capacity(asked: int, free: int) -> ApiError:
    return ApiError(400, "InsufficientQuota", f"The specified capacity '{asked}' of account deployment is bigger than "
                    f"available capacity '{free}' for UsageName 'Tokens Per Minute (thousands)'.")  # fmt: skip
