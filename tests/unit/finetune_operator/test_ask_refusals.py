"""`finetune-operator ask` where what is asked refuses, breaks off or is not ready: one plain line, and exit code 1."""

import json
import socket
from collections.abc import Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import ClientError, ProfileNotFound, ReadTimeoutError

from finetune_api.deployment import Endpoint
from finetune_operator import ask
from finetune_operator.ask import KEY_VARIABLE, CannotAsk, answer
from finetune_operator.runtime.connection import _error
from finetune_operator.runtime.errors import error_for
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS
from finetune_operator.runtime.settings import Settings
from tests.simulators import certificates
from tests.simulators.openai import OpenAISimulator
from tests.simulators.server import serve
from tests.unit.finetune_operator.reconcilers.fake_kube import FakeKube
from tests.unit.finetune_operator.test_ask import Cluster, args

Said = tuple[int, bytes]


def said(status: int, message: str, code: str | None = None) -> Said:
    return status, json.dumps({"error": {"message": message, "type": "x", "code": code}}).encode()


@pytest.fixture
def provider() -> Iterator[tuple[str, list[Said | str]]]:
    """A URL, and what answers there: a status and a body, `cut` or `half` of one."""
    answers: list[Said | str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return None

        def do_POST(self) -> None:
            status, body = (200, b'{"choices": [') if isinstance(answers[0], str) else answers[0]
            self.rfile.read(int(self.headers["Content-Length"]))
            if answers[0] != "cut":
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if body.startswith(b"<") else "application/json")
                self.send_header("Content-Length", str(len(body) + 100 * (answers[0] == "half")))
                self.end_headers()
                self.wfile.write(body)
            if isinstance(answers[0], str):
                self.connection.shutdown(socket.SHUT_RDWR)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", answers
    server.shutdown()
    server.server_close()
    thread.join()


ANSWERS: dict[str, tuple[Said | str, str]] = {
    "key": (said(401, "Incorrect API key provided: sk-mine"), "the key in OPENAI_API_KEY is refused"),
    "right": (said(403, "no access to this model"), "no access to this model (403); it lets this key do other"),
    "gone": (said(404, "The model `m` does not exist", "model_not_found"), "`m` does not exist (404); it is not there"),
    "gone, at Azure": (
        said(404, "The API deployment for this resource does not exist."),
        "does not exist. (404); it is",
    ),
    "another address": ((404, b"<html>404</html>"), "it answers with a page (404)"),
    "in words alone": ((404, b"404 page not found"), "404 page not found (404)"),
    "too fast": (said(429, "Rate limit reached"), "Rate limit reached (429); ask again in a while"),
    "broken": (said(500, "boom"), "boom (500)"),
    "a gateway": ((503, b"<html>no</html>"), "it answers with a page (503); no server is ready"),
    "nothing but a status": ((422, b'{"detail": []}'), "it refuses (422)"),
    "cut": ("cut", "the connection broke before the answer was whole"),
    "half an answer": ("half", "the connection broke before the answer was whole"),
    "an error with status 200": ((200, b'{"error": {"message": "x"}}'), "something else than a model's words"),
    "nothing at all": ((200, b""), "something else than a model's words"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_provider_that_refuses_is_told_in_a_line(provider: Any, monkeypatch: Any, name: str) -> None:
    monkeypatch.setattr("openai._constants.INITIAL_RETRY_DELAY", 0.01)
    url, answers = provider
    told, words = ANSWERS[name]
    answers.append(told)
    cluster = Cluster()
    cluster.deploy(url, "m")
    with pytest.raises(CannotAsk) as caught:
        await answer(cluster, args(), {KEY_VARIABLE: "sk-mine"})
    message = str(caught.value)
    assert (words in message, url in message, "\n" in message, "sk-" in message) == (True, True, False, False), message


async def test_a_provider_that_cannot_be_reached_is_told_with_the_cause(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("openai._constants.INITIAL_RETRY_DELAY", 0.01)
    cluster = Cluster()
    with serve(OpenAISimulator(), tls=certificates.make(tmp_path)) as url:
        cluster.deploy(url, "m")
        with pytest.raises(CannotAsk, match=r"not trusted .* the bundle that SSL_CERT_FILE names"):
            await answer(cluster, args(), {KEY_VARIABLE: "sk-mine"})
    cluster.deploy(url, "m")
    with pytest.raises(CannotAsk, match="refuses connections"):
        await answer(cluster, args(), {KEY_VARIABLE: "sk-mine"})


SERVICES: dict[str, tuple[int, str, str, str]] = {
    "no pod": (503, "ServiceUnavailable", 'no endpoints available for service "mood:http"', "no server is ready"),
    "no service": (404, "NotFound", 'services "mood" not found', "kubectl get md"),
    "no right": (
        403,
        "Forbidden",
        'services "mood:http" is forbidden: User "a" cannot create resource',
        "cannot create",
    ),
    "its own words": (400, "Bad Request", "max_tokens: at most 512", "max_tokens: at most 512 (400)"),
    "long": (0, "Timeout", "no answer within 120 s", "no answer within 120 s: does it write so long? --max-tokens"),
    "busy": (429, "TooManyRequests", "128 requests wait already", "wait already (429); ask again"),
    "a page": (502, "Bad Gateway", "<html>bad gateway</html>", "it answers with a page (502); nothing answers"),
}


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_refuses_is_told_in_a_line(name: str, monkeypatch: Any, capsys: Any) -> None:
    status, reason, message, words = SERVICES[name]

    class Refusing(Cluster):
        async def post_to_service(self, *_: Any) -> bytes:
            raise error_for(status, reason, message)

    cluster = Refusing()
    cluster.deploy("http://mood.team-a.svc/v1", "mood")

    @asynccontextmanager
    async def connect(settings: Settings) -> Any:
        assert settings.kube_timeout_seconds == ask.ANSWER_SECONDS, "a server on a CPU writes for long"
        yield cluster

    monkeypatch.setattr(ask.Kube, "connect", connect)
    assert await ask.main(args(), {}) == ask.FAILED
    printed = capsys.readouterr()
    assert (words in printed.err, printed.err.count("\n"), printed.out) == (True, 1, ""), printed.err
    assert printed.err.startswith("ModelDeployment mood: ")


def test_what_a_server_says_behind_the_api_servers_proxy_is_kept() -> None:
    class Response:
        status, reason, headers = 404, "Not Found", {}

    assert _error(Response(), said(404, "there is no model m")[1]).message == "there is no model m"  # type: ignore[arg-type]


def at_aws(error: Exception) -> str:
    def refuse() -> str:
        raise error

    endpoint = Endpoint(url="https://bedrock-runtime.us-east-1.amazonaws.com", model="m", api="Converse")
    with pytest.raises(CannotAsk) as caught:
        ask._ask_aws(endpoint, refuse)
    return str(caught.value)


def refusal(code: str, status: int, message: str) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Converse")


AWS: dict[str, tuple[Exception, str]] = {
    "expired": (refusal("ExpiredTokenException", 403, "The security token is expired"), "ExpiredTokenException: The"),
    "gone": (
        refusal("ResourceNotFoundException", 404, "Could not find it"),
        "Could not find it (404); it is not there",
    ),
    "throttled": (refusal("ThrottlingException", 429, "Too many requests"), "Too many requests (429); ask again"),
    "not ready": (
        refusal("ModelNotReadyException", 429, "Model is not ready"),
        "not ready (429); ask again in a while",
    ),
    "broken": (
        refusal("ModelError", 424, "Received server error (500) from primary"),
        "server error (500) from primary",
    ),
    "silent": (ReadTimeoutError(endpoint_url="https://x"), "does not answer (ReadTimeoutError)"),
    "no such profile": (ProfileNotFound(profile="prod"), "of this shell: The config profile (prod) could"),
}


@pytest.mark.parametrize("name", AWS)
def test_aws_that_refuses_is_told_in_a_line(name: str) -> None:
    error, words = AWS[name]
    assert words in at_aws(error)


STATUSES: dict[str, tuple[dict[str, Any], str]] = {
    "being made": ({"phase": "Deploying"}, "does not answer yet (phase Deploying)"),
    "no replicas": (
        {"phase": "Idle", "conditions": [{"type": "Ready", "message": "spec.huggingFace.replicas is 0: set it to 1"}]},
        "(phase Idle: spec.huggingFace.replicas is 0",
    ),
    "nobody has looked yet": ({}, "does not answer yet (it has no status: see whether the operator runs)"),
    "stopped": (
        {"phase": "Idle", "asleep": {"since": "2026-11-01T00:00:00Z", "generation": 1}},
        "finetune.dev/wake=",
    ),
}


@pytest.mark.parametrize("name", STATUSES)
async def test_what_is_not_ready_says_why(name: str) -> None:
    status, words = STATUSES[name]
    kube = FakeKube()
    kube.put(MODEL_DEPLOYMENTS, {"metadata": {"name": "mood", "namespace": "team-a"}, "status": status})
    with pytest.raises(CannotAsk) as caught:
        await answer(kube, args(), {})
    assert words in str(caught.value)
