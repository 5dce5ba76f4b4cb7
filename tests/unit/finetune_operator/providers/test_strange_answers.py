"""Answers that no provider gives, to each call of each provider's SDK: told as such, and taken for nothing else."""

import logging
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from aiohttp import web
from azure.core.exceptions import ClientAuthenticationError, DecodeError, ServiceRequestError

from finetune_api.reasons import Reason
from finetune_operator.providers.azure.api import token_of
from finetune_operator.providers.calls.errors import (
    ProviderError,
    Refused,
    TryLater,
    Unknown,
    Unreadable,
    parsing_answer,
)
from tests.unit.finetune_operator.providers.strange import (
    BY_HEAD,
    CHANGES,
    DATA,
    HOSTED,
    PROVIDERS,
    READS,
    SECRETS,
    SERVED,
    TOLD,
    Answer,
    Call,
    answer,
    listening,
)

PAGE = "<html><body>Please sign in</body></html>"
CUT = '{"object": "list", "data": [{"id": "ftjob-1", "sta'
ELSEWHERE = "http://elsewhere.invalid/v1?token=secret"


def says(text: str, content_type: str = "application/json", **more: Any) -> Answer:
    return lambda _: web.Response(text=text, content_type=content_type, **more)


NONE: dict[str, Answer] = {
    "a page": says(PAGE, "text/html"),
    "a page that is said to be JSON": says(PAGE),
    "JSON that is cut": says(CUT),
    "a word": says("OK", "text/plain"),
    "null": says("null"),
    "a list": says("[]"),
    "JSON that is too deep": says("[" * 200_000),
    "bytes": lambda _: web.Response(body=bytes(range(256)) * 10, content_type="application/json"),
    "no gzip": lambda _: web.Response(body=b"no", headers={"Content-Encoding": "gzip"}),
    "no body": lambda _: web.Response(),
    "elsewhere by 302": lambda _: web.Response(status=302, headers={"Location": ELSEWHERE}),
    "elsewhere by 307": lambda _: web.Response(status=307, headers={"Location": ELSEWHERE}),
    "elsewhere, but not where": lambda _: web.Response(status=301),
    "a page of a portal": says(PAGE, "text/html", status=511),
    "a page that forbids": says(PAGE, "text/html", status=403),
}
ODD: dict[str, Answer] = {
    "an empty object": says("{}"),
    "nothing new": lambda _: web.Response(status=304),
    "a refusal that is cut": says('{"error": {"mess', status=400),
    "a refusal that is a list": says('["no"]', status=400),
    "a refusal of other kinds": says(
        '{"error": {"code": 17, "message": {"a": 1}, "type": [1]}, "__type": 5}', status=400
    ),
    "a teapot": says("", status=418),
}
BY_PROXIES = {"a page", "a page of a portal", "a page that forbids", *(name for name in NONE if "elsewhere" in name)}
DELETIONS = {"delete_file", "delete_model", "delete"}


def calls(provider: str) -> dict[str, Call]:
    hosted = {} if provider == "openai" else HOSTED | SERVED
    return READS | CHANGES | DATA | TOLD | hosted | {"answer": answer}


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Any:
    """The log names what is strange in a line: such answers come again and again, and tracebacks quote them."""
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@pytest.mark.alike
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", ODD)
async def test_an_odd_answer_to_whatever_is_asked_is_an_error_of_the_provider_if_it_is_one(
    provider: str, name: str
) -> None:
    async with listening(ODD[name]) as strange:
        api = PROVIDERS[provider](strange.url)
        for call in calls(provider).values():
            with suppress(ProviderError), parsing_answer():
                await call(api, provider)
        await api.close()


@pytest.mark.alike
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", NONE)
async def test_what_is_no_answer_is_neither_nothing_nor_a_refusal(provider: str, name: str) -> None:
    """An empty list would have a job made again, what is not there be taken for deleted, and a refusal end a job."""
    async with listening(NONE[name]) as strange:
        api = PROVIDERS[provider](strange.url)
        for what, call in calls(provider).items():
            sure = what in READS.keys() | CHANGES.keys() | {"list"} and (provider, what) not in BY_HEAD
            sure = sure or (what in DELETIONS and name in BY_PROXIES)
            with pytest.raises((TryLater, Unknown)) if sure else suppress(ProviderError), parsing_answer():
                print(what, await call(api, provider))
        await api.close()


@pytest.mark.parametrize("name", ["a page", "JSON that is cut", "null", "no body"])
async def test_a_model_at_bedrock_that_was_not_looked_at_stays(name: str) -> None:
    async with listening(NONE[name]) as strange:
        api = PROVIDERS["bedrock"](strange.url)
        with pytest.raises(Unreadable), parsing_answer():
            await DATA["delete_model"](api, "bedrock")
        assert {method for method, _, _ in strange.asked} == {"GET"}
        await api.close()


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_neither_key_nor_data_follow_a_redirect_to_another_host(provider: str, status: int) -> None:
    async with listening(says("{}")) as elsewhere:
        there = elsewhere.url.replace("127.0.0.1", "localhost")

        def lead(request: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": f"{there}{request.path}"})

        async with listening(lead) as strange:
            api = PROVIDERS[provider](strange.url)
            for call in calls(provider).values():
                with suppress(ProviderError), parsing_answer():
                    await call(api, provider)
            await api.close()
            assert strange.asked
        assert [(method, path) for method, path, _ in elsewhere.asked if not path.endswith("/content")] == []
        assert not any(secret in str(asked) for secret in SECRETS for asked in elsewhere.asked)


async def test_a_file_that_lies_in_a_store_of_another_host_is_read_without_the_key() -> None:
    async with listening(says("step,train_loss\n1,0.5\n", "text/csv")) as store:
        there = store.url.replace("127.0.0.1", "localhost")

        def lead(request: web.Request) -> web.Response:
            if not request.path.endswith("/content"):
                return web.json_response({"object": "list", "data": []})
            return web.Response(status=302, headers={"Location": f"{there}/bucket/results.csv?signature=1"})

        async with listening(lead) as strange:
            api = PROVIDERS["openai"](strange.url)
            found = await TOLD["metrics"](api, "openai")
            assert [point.step for point in found.train] == [1]
            await api.close()
        assert "Authorization" not in store.asked[0][2]


async def test_a_redirect_on_the_same_host_is_followed_by_what_reads() -> None:
    """As a gateway that has TLS, or another path, says."""

    def lead(request: web.Request) -> web.Response:
        if request.path.startswith("/v2"):
            return web.json_response({"object": "list", "data": []})
        return web.Response(status=308, headers={"Location": request.path.replace("/v1", "/v2")})

    async with listening(lead) as strange:
        api = PROVIDERS["openai"](strange.url)
        await api.check()
        assert [path for _, path, _ in strange.asked] == ["/v1/fine_tuning/jobs", "/v2/fine_tuning/jobs"]
        assert strange.asked[1][2]["Authorization"] == f"Bearer {SECRETS[0]}"
        await api.close()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """400 MiB of spaces, in pieces that say the same: compressing them took seconds."""
    packed, spaces, start = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS), b" " * 2**20, b"[\n"
    head = packed.compress(start) + packed.flush(zlib.Z_FULL_FLUSH)
    piece = packed.compress(spaces) + packed.flush(zlib.Z_FULL_FLUSH)
    return head + 400 * piece


@pytest.mark.parametrize("provider", ["openai", "azure"])
async def test_what_is_compressed_a_thousandfold_is_not_held(provider: str, bomb: bytes) -> None:
    """AWS's SDK uncompresses nothing by itself."""
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with listening(lambda _: web.Response(body=bomb, headers=headers)) as strange:
        api = PROVIDERS[provider](strange.url)
        tracemalloc.start()
        try:
            with pytest.raises(Unknown), parsing_answer():
                await (HOSTED["list"] if provider == "azure" else READS["jobs"])(api, provider)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        await api.close()
    assert peak < 200 * 2**20, f"{peak / 2**20:.0f} MiB"


async def without_end() -> AsyncIterator[bytes]:
    yield b"["
    while True:
        yield b" " * 2**20


@pytest.mark.alike
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_of_an_answer_without_end_no_more_is_held_than_could_be_one(provider: str, status: int) -> None:
    def say(_: web.Request) -> web.Response:
        return web.Response(body=without_end(), status=status, content_type="application/json")

    async with listening(say) as strange:
        api = PROVIDERS[provider](strange.url)
        for call in [READS["jobs"], *([] if provider == "openai" else [HOSTED["list"]])]:
            tracemalloc.start()
            try:
                with pytest.raises(Unknown), parsing_answer():
                    await call(api, provider)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 200 * 2**20, f"{peak / 2**20:.0f} MiB"
        await api.close()


OF_AWS = {"x-amzn-RequestId": "11111111-2222-3333-4444-555555555555"}
LISTS: dict[str, tuple[str, dict[str, Call]]] = {
    "bedrock": ('"customModelDeployments": []', READS | HOSTED),
    "sagemaker": ('"NextToken": "", "Training": []', READS | HOSTED),
}


@pytest.mark.parametrize("inside", ["", "others"])
@pytest.mark.parametrize("provider", LISTS)
async def test_an_object_without_what_is_listed_is_no_list(provider: str, inside: str) -> None:
    """That nothing is there must not be concluded from it: a job would be made again, a deployment be gone."""
    others, known = LISTS[provider]
    async with listening(says(f"{{{others if inside else ''}}}")) as strange:
        api = PROVIDERS[provider](strange.url)
        for what in ("check", "jobs", "list"):
            with pytest.raises(Unreadable), parsing_answer():
                print(what, await known[what](api, provider))
        await api.close()


@pytest.mark.parametrize(("provider", "empty"), [("bedrock", True), ("sagemaker", False)])
async def test_what_the_model_of_a_service_lets_it_leave_out_it_may_if_it_is_known_to_be_awss(
    provider: str, empty: bool
) -> None:
    async with listening(says("{}", headers=OF_AWS)) as strange:
        api = PROVIDERS[provider](strange.url)
        with nullcontext() if empty else pytest.raises(Unreadable), parsing_answer():
            assert await READS["jobs"](api, provider) == []
        await api.close()


@pytest.mark.parametrize("said", ['<?xml version="1.0"?><answer/>', "<a><b>c</b></a>"])
async def test_xml_that_is_no_page_of_a_bucket_is_no_empty_bucket(said: str) -> None:
    async with listening(says(said, "application/xml")) as strange:
        api = PROVIDERS["bedrock"](strange.url)
        with pytest.raises(Unreadable), parsing_answer():
            await READS["files"](api, "bedrock")
        await api.close()


@pytest.mark.parametrize("said", ["{}", '{"error": null, "choices": null}', '{"status": "ok"}'])
@pytest.mark.parametrize("provider", ["azure", "bedrock", "sagemaker"])
async def test_a_deployment_answers_when_it_gives_an_answer_and_not_by_200_alone(provider: str, said: str) -> None:
    async with listening(says(said)) as strange:
        api = PROVIDERS[provider](strange.url)
        with pytest.raises(Unreadable), parsing_answer():
            print(await HOSTED["answers"](api, provider))
        await api.close()


@pytest.mark.parametrize("provider", ["azure", "bedrock", "sagemaker"])
async def test_figures_that_are_none_do_not_make_a_deployment_idle(provider: str) -> None:
    async with listening(says("{}")) as strange:
        api = PROVIDERS[provider](strange.url)
        with pytest.raises(ProviderError) as told:
            print(await HOSTED["usage"](api, provider))
        assert told.value.reason is Reason.USAGE_UNKNOWN
        await api.close()


OF_ENTRA: dict[str, tuple[Any, type[ProviderError], Reason]] = {
    "a refusal": (ClientAuthenticationError("AADSTS7000215: my-value"), TryLater, Reason.CREDENTIALS_INVALID),
    "a page": (DecodeError("<html>my-value"), Unreadable, Reason.PROVIDER_UNAVAILABLE),
    "silence": (ServiceRequestError("my-value"), Unknown, Reason.PROVIDER_UNAVAILABLE),
}


@pytest.mark.parametrize("name", OF_ENTRA)
async def test_an_entra_that_cannot_be_asked_is_no_bad_credential(name: str) -> None:
    error, kind, reason = OF_ENTRA[name]

    class Silent:
        async def get_token(self, *_: str) -> Any:
            raise error

        async def close(self) -> None:
            return None

    with pytest.raises(kind) as told:
        await token_of(Silent(), "scope")()
    assert (told.value.reason, "Entra" in told.value.message, "my-value" in told.value.message) == (reason, True, False)


async def test_a_question_that_a_proxy_refuses_is_no_answer_of_a_model() -> None:
    for status in (301, 405, 418):
        async with listening(lambda _, status=status: web.Response(status=status)) as strange:
            api = PROVIDERS["openai"](strange.url)
            with pytest.raises((Refused, TryLater)):
                await READS["has_model"](api, "openai")
            await api.close()


async def test_a_question_that_would_go_to_another_host_is_told_as_that() -> None:
    async with listening(NONE["elsewhere by 307"]) as strange:
        api = PROVIDERS["openai"](strange.url)
        with pytest.raises(TryLater, match=r"to another address \(307, http://elsewhere.invalid/v1\)"):
            await answer(api, "openai")
        await api.close()
