"""Operations of an AWS service over HTTP, by botocore's model of it: rest-json, and json with a target header."""

from collections.abc import Callable
from functools import cache
from typing import Any

import botocore.session
import orjson
from aiohttp import web
from botocore.model import OperationModel, ServiceModel

from tests.simulators.aws.shapes import from_json, from_text, problems, to_json
from tests.simulators.http import ApiError, Call, Reply, Route
from tests.simulators.shapes import DriftError

Operation = Callable[[dict[str, Any]], dict[str, Any]]


@cache
def service_model(name: str) -> ServiceModel:
    """Botocore's model of a service."""
    return botocore.session.get_session().get_service_model(name)


class Service:
    """One service; `operations` by their names in the model."""

    def __init__(self, name: str, operations: dict[str, Operation]) -> None:
        self.name = name
        self.model = service_model(name)
        self._operations = operations

    def routes(self) -> list[Route]:
        """The service's routes; with the json protocol the target header chooses among them."""
        found = {name: self._route(self.model.operation_model(name), do) for name, do in self._operations.items()}
        if self.model.protocol == "rest-json":
            return list(found.values())
        prefix = self.model.metadata["targetPrefix"] + "."
        unknown = Route("POST", "/", "unknown", _unknown)

        def choose(request: web.Request) -> Route:
            return found.get(request.headers.get("X-Amz-Target", "").removeprefix(prefix), unknown)

        return [Route("POST", "/", "unknown", _unknown, choose=choose)]

    def _route(self, operation: OperationModel, do: Operation) -> Route:
        def handle(call: Call) -> Reply:
            asked = _received(operation, call)
            if wrong := problems(operation.input_shape, asked):
                raise ApiError(
                    400, "ValidationException", f"{len(wrong)} validation error detected: {'; '.join(wrong)}"
                )
            return _answer(operation, do(asked))

        method, path = operation.http["method"], operation.http["requestUri"].partition("?")[0]
        return Route(method, path, operation.name, handle)

    def error(self, error: ApiError, request_id: str) -> Reply:
        """A refusal in the service's protocol, with the status that its model gives the code."""
        shape = self.model.shape_for_error_code(error.code) if error.code else None
        declared = shape.metadata.get("error", {}).get("httpStatusCode", error.status) if shape else error.status
        code = error.code or {429: "ThrottlingException", 503: "ServiceUnavailableException"}.get(
            error.status, "InternalServerException"
        )
        headers = {"x-amzn-RequestId": request_id, "x-amzn-ErrorType": code, **error.headers}
        body = {"message": error.message, "__type": code}
        return Reply.json(body, declared, headers)


def _unknown(_: Call) -> Reply:
    raise ApiError(404, "UnknownOperationException", "The operation is not simulated.")


def _received(operation: OperationModel, call: Call) -> dict[str, Any]:
    shape: Any = operation.input_shape
    asked: dict[str, Any] = {}
    payload = shape.serialization.get("payload") or next(
        (
            name
            for name, member in shape.members.items()
            if member.type_name == "blob" and "location" not in member.serialization
        ),
        None,
    )
    if payload:
        asked[payload] = call.body
    else:
        asked |= from_json(shape, call.json())
    for name, member in shape.members.items():
        where, key = member.serialization.get("location"), member.serialization.get("name", name)
        source = {"uri": call.path, "querystring": call.query, "header": call.headers}.get(where, {})
        if key in source:
            asked[name] = from_text(member, source[key])
    return asked


def _answer(operation: OperationModel, given: dict[str, Any]) -> Reply:
    shape: Any = operation.output_shape
    status = operation.http.get("responseCode", 200)
    if shape is None:
        return Reply(status, content_type="application/x-amz-json-1.1")
    if wrong := problems(shape, given):
        raise DriftError("; ".join(wrong))
    headers = {member.serialization["name"]: str(given[name]) for name, member in shape.members.items()
               if member.serialization.get("location") == "header" and name in given}  # fmt: skip
    if payload := shape.serialization.get("payload"):
        return Reply(status, given[payload], headers, headers.get("Content-Type", "application/octet-stream"))
    return Reply(status, orjson.dumps(to_json(shape, given)), headers)
