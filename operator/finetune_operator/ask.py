"""`finetune-operator ask MODEL QUESTION`: one way to ask a ModelDeployment, wherever it is served.

A Service of the cluster is called through the API server's proxy, without port-forward or access to the pod network. A
provider is called with the user's own key: the connection's key is only for the operator.
"""

import argparse
import asyncio
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from finetune_api.deployment import Endpoint
from finetune_api.names import GROUP, WAKE_ANNOTATION
from finetune_operator.command_line import print_result
from finetune_operator.providers.calls.failed_calls import known_cause
from finetune_operator.runtime.connection import kubeconfig_path
from finetune_operator.runtime.errors import KubeError, NoCluster
from finetune_operator.runtime.kube import MODEL_DEPLOYMENTS, Kube
from finetune_operator.runtime.service_account import is_in_cluster, namespace_in
from finetune_operator.runtime.settings import Settings

if TYPE_CHECKING:
    import openai

KEY_VARIABLE = "OPENAI_API_KEY"
REGION_VARIABLE = "AWS_REGION"
"""As other AWS tools read it; boto3 itself reads AWS_DEFAULT_REGION, and the profile."""
SERVICE_PORT = "http"
DEFAULT_NAMESPACE = "default"
_NAME = re.compile("[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KINDS = frozenset(
    {"md", "modeldeployment", "modeldeployments", f"modeldeployment.{GROUP}", f"modeldeployments.{GROUP}"}
)
"""Prefixes of names, as `kubectl get -o name` prints them and users type them."""
_MAX_TEMPERATURE = 2
_MESSAGE_LIMIT = 300
OK, FAILED, INTERRUPTED = 0, 1, 130
ANSWER_SECONDS = 120.0
"""For one answer: a model writes a long one word by word."""
_HINTS = {
    403: "it lets this key do other things alone",
    404: "it is not there (any more): kubectl get md shows what is served",
    429: "ask again in a while",
    502: "nothing answers at the address: ask again in a while",
    503: "no server is ready: kubectl get md shows why",
}
"""What to do about an error, by HTTP status."""


class CannotAsk(Exception):
    """The question could not be sent; the message says why and what to do."""


def add_arguments(commands: Any) -> None:
    """Add the command and its flags."""
    ask = commands.add_parser("ask", help="ask a model that is deployed, and print its answer")
    ask.add_argument("model", type=_name, metavar="MODEL", help="name of a ModelDeployment")
    ask.add_argument("question", type=_text, metavar="QUESTION", help="what to ask")
    ask.add_argument("-n", "--namespace", type=_name, help="its namespace (default: as for kubectl)")
    ask.add_argument("--system", help="system message")
    ask.add_argument("--max-tokens", type=_positive, metavar="N", help="tokens of the answer at most")
    ask.add_argument(
        "--temperature",
        type=_temperature,
        metavar="T",
        help="0 for the likeliest answer, up to 2 (default: the model's)",
    )


def _name(text: str) -> str:
    """Parse the name of an object, for argparse.

    Raises:
        ArgumentTypeError: it is invalid.
    """
    namespace, _, name = text.rpartition("/")
    if namespace in _KINDS and _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{text!r} is a name behind its kind: write {name} alone")
    if _NAME.fullmatch(namespace) and _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{text!r} is two names, not one: write {name} -n {namespace}")
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name: write a-z, 0-9, '-' and '.' only")
    return text


def _text(text: str) -> str:
    """Require a text, for argparse: an unset variable would be sent as a question, and paid for.

    Raises:
        ArgumentTypeError: it is blank.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: write the question in quotes")
    return text


def _positive(text: str) -> int:
    """Parse a whole number above 0, for argparse.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _temperature(text: str) -> float:
    """Parse a number from 0 to 2, for argparse.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_TEMPERATURE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {_MAX_TEMPERATURE}")
    return value


async def main(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> int:
    """Ask, and print the answer to stdout or one line to stderr."""
    try:
        args.namespace = args.namespace or _current_namespace()
        async with Kube.connect(Settings(kubeconfig=None, kube_timeout_seconds=ANSWER_SECONDS)) as kube:
            said = print_result(await answer(kube, args, environment))
    except KubeError as error:
        said = f"the API server does not answer: {error.message}" if error.status == 0 else str(error)
    except (CannotAsk, NoCluster) as error:
        said = str(error)
    if said is None:
        return OK
    print(said, file=sys.stderr)  # noqa: T201 - a command's output
    return FAILED


def _current_namespace() -> str:
    """As kubectl: the pod's namespace, or that of the kubeconfig's current context.

    Raises:
        NoCluster: there is no kubeconfig, or it cannot be read.
    """
    if is_in_cluster():
        return namespace_in(Settings().service_account) or DEFAULT_NAMESPACE
    from finetune_operator.runtime.kubeconfig import namespace_of

    return namespace_of(kubeconfig_path()) or DEFAULT_NAMESPACE


async def answer(kube: Kube, args: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """The model's answer.

    Raises:
        CannotAsk: there is no such deployment, it does not answer, or a key is needed.
        KubeError: the API server refuses, or does not answer.
    """
    deployment = await kube.get(MODEL_DEPLOYMENTS, args.model, args.namespace)
    if deployment is None:
        raise CannotAsk(
            f"ModelDeployment {args.model} is not in namespace {args.namespace} (kubectl -n {args.namespace} get md): "
            "write its name, or another namespace with -n"
        )
    status = deployment.get("status") or {}
    if status.get("asleep"):
        wake = f"kubectl -n {args.namespace} annotate md {args.model} --overwrite {WAKE_ANNOTATION}=$(date +%s)"
        raise CannotAsk(f"ModelDeployment {args.model} was stopped, as it received no requests; bring it back: {wake}")
    if status.get("servedVersion") is None or not status.get("endpoint"):
        raise CannotAsk(f"ModelDeployment {args.model} does not answer yet ({_readiness(status)})")
    endpoint = Endpoint.model_validate(status["endpoint"])
    if endpoint.api == "Converse":
        return await _in_daemon_thread(lambda: _ask_aws(endpoint, lambda: _converse(endpoint, args)))
    body = _completion(endpoint.model, args)
    if endpoint.api == "InvokeEndpoint":
        region = environment.get(REGION_VARIABLE)
        return await _in_daemon_thread(lambda: _ask_aws(endpoint, lambda: _invoke_endpoint(endpoint, body, region)))
    if urlsplit(endpoint.url).hostname == f"{args.model}.{args.namespace}.svc":  # a gateway may be a Service as well
        if (deployment.get("spec") or {}).get("apiKeySecretRef"):
            raise CannotAsk(
                f"ModelDeployment {args.model} asks for a bearer key, which the API server does not pass on: "
                f"kubectl -n {args.namespace} port-forward svc/{args.model} 8000:80, and send it with curl"
            )
        return await _ask_in_cluster(kube, endpoint, args, body)
    return await _ask_provider(endpoint, body, environment.get(KEY_VARIABLE, ""))


def _completion(model: str | None, args: argparse.Namespace) -> dict[str, Any]:
    """The request body in the form of OpenAI's chat completions."""
    system = [{"role": "system", "content": args.system}] if args.system else []
    body: dict[str, Any] = {"model": model, "messages": [*system, {"role": "user", "content": args.question}]}
    if args.max_tokens:
        body["max_tokens"] = args.max_tokens
    if args.temperature is not None:
        body["temperature"] = args.temperature
    return body


def _readiness(status: Mapping[str, Any]) -> str:
    """Its phase, and the message of its condition Ready."""
    if not status.get("phase"):
        return "it has no status: see whether the operator runs"
    said = (one.get("message") for one in status.get("conditions") or () if one.get("type") == "Ready")
    return ": ".join([f"phase {status['phase']}", *filter(None, said)])


@contextmanager
def _parsing(endpoint: Endpoint) -> Iterator[None]:
    """Wrap the parsing of a reply.

    Raises:
        CannotAsk: it has an unexpected form.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        said = f"{endpoint.url} answers with something else than a model's words: is a proxy in between?"
        raise CannotAsk(said) from None


def _content(reply: bytes) -> str:
    """The answer in a reply of OpenAI's API."""
    return str(orjson.loads(reply)["choices"][0]["message"]["content"] or "")


async def _ask_in_cluster(kube: Kube, endpoint: Endpoint, args: argparse.Namespace, body: dict[str, Any]) -> str:
    path = "v1/chat/completions"
    try:
        reply = await kube.post_to_service(args.namespace, args.model, SERVICE_PORT, path, orjson.dumps(body))
    except KubeError as error:
        if (error.status, error.reason) == (0, "Timeout"):  # the API server has answered before
            said = f"{error.message}: does it write so long? --max-tokens limits its answer"
            raise CannotAsk(f"ModelDeployment {args.model}: {said}") from None
        if error.status == 0:
            raise  # the API server itself does not answer
        raise CannotAsk(f"ModelDeployment {args.model}: {_with_hint(error.status, error.message)}") from None
    with _parsing(endpoint):
        return _content(reply)


def _with_hint(status: int, said: str) -> str:
    """A server's error message, with a hint what to do about it."""
    words = "it answers with a page" if said.lstrip().startswith("<") else said[:_MESSAGE_LIMIT] or "it refuses"
    hint = _HINTS.get(status, "")
    return f"{words} ({status}){f'; {hint}' if hint else ''}"


async def _ask_provider(endpoint: Endpoint, body: dict[str, Any], key: str) -> str:
    if not key:
        raise CannotAsk(f"{endpoint.url} asks for a key: put yours into {KEY_VARIABLE}")
    import openai

    provider = openai.AsyncOpenAI(base_url=endpoint.url, api_key=key, max_retries=1, timeout=ANSWER_SECONDS)
    async with provider as client:
        with _parsing(endpoint):  # the SDK does not catch errors of the JSON parser
            try:
                reply = await client.chat.completions.create(**body)
            except openai.OpenAIError as error:
                cause = known_cause(error, "SSL_CERT_FILE")
                raise CannotAsk(
                    f"{endpoint.url} {cause}" if cause else f"{endpoint.url}: {_error_message(error)}"
                ) from None
    with _parsing(endpoint):
        return reply.choices[0].message.content or ""


def _converse(endpoint: Endpoint, args: argparse.Namespace) -> str:
    """Ask through bedrock-runtime."""
    import boto3

    asked: dict[str, Any] = {
        "modelId": endpoint.model,
        "messages": [{"role": "user", "content": [{"text": args.question}]}],
    }
    if args.system:
        asked["system"] = [{"text": args.system}]
    limits = {"maxTokens": args.max_tokens, "temperature": args.temperature}
    if any(value is not None for value in limits.values()):
        asked["inferenceConfig"] = {name: value for name, value in limits.items() if value is not None}
    region = endpoint.model.split(":")[3]
    client = boto3.Session().client("bedrock-runtime", region_name=region, endpoint_url=endpoint.url)
    reply = client.converse(**asked)
    with _parsing(endpoint):
        return "".join(block.get("text", "") for block in reply["output"]["message"]["content"])


def _invoke_endpoint(endpoint: Endpoint, body: dict[str, Any], region: str | None) -> str:
    """Ask through sagemaker-runtime, in OpenAI's format. For a private endpoint the caller names the region."""
    import boto3

    public = re.search(r"//runtime\.sagemaker\.([a-z0-9-]+)\.", endpoint.url)
    region = public[1] if public else region
    client = boto3.Session().client("sagemaker-runtime", region_name=region, endpoint_url=endpoint.url)
    reply = client.invoke_endpoint(EndpointName=endpoint.model, ContentType="application/json", Body=orjson.dumps(body))
    with _parsing(endpoint):
        return _content(reply["Body"].read())


async def _in_daemon_thread(call: Callable[[], str]) -> str:
    """Run in a daemon thread: asyncio waits for the threads of its own executor, even after Ctrl-C."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[str] = loop.create_future()

    def run() -> None:
        try:
            said = call()
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            loop.call_soon_threadsafe(answered.set_exception, error)
        else:
            loop.call_soon_threadsafe(answered.set_result, said)

    threading.Thread(target=run, daemon=True).start()
    return await answered


def _ask_aws(endpoint: Endpoint, ask: Callable[[], str]) -> str:
    """Ask with the user's own credentials, from wherever boto3 finds them."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError, NoRegionError

    try:
        return ask()
    except NoCredentialsError:
        message = f"{endpoint.url} asks for credentials of AWS: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret"
        raise CannotAsk(message) from None
    except NoRegionError:
        raise CannotAsk(f"{endpoint.url} does not say its region: set {REGION_VARIABLE}") from None
    except ClientError as error:
        code, said = (error.response["Error"].get(key, "") for key in ("Code", "Message"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise CannotAsk(f"{endpoint.url}: {_with_hint(status, f'{code}: {said}')}") from None
    except HTTPClientError as error:
        cause = known_cause(error, "AWS_CA_BUNDLE") or f"does not answer ({type(error).__name__})"
        raise CannotAsk(f"{endpoint.url} {cause}") from None
    except BotoCoreError as error:
        raise CannotAsk(f"AWS's settings of this shell: {error}") from None


def _error_message(error: "openai.OpenAIError") -> str:
    """The provider's message, except for a refused key, where it contains parts of the key."""
    import openai

    if isinstance(error, openai.AuthenticationError):
        return f"the key in {KEY_VARIABLE} is refused"
    if isinstance(error, openai.APITimeoutError):
        return f"no answer within {ANSWER_SECONDS:g} s: ask again in a while"
    if isinstance(error, openai.APIStatusError):
        told = error.body.get("message") if isinstance(error.body, dict) else error.body
        return _with_hint(error.status_code, str(told or ""))
    if isinstance(error, openai.APIConnectionError):
        return "nothing answers there, or the connection broke before the answer was whole"
    return error.message if isinstance(error, openai.APIError) else type(error).__name__
