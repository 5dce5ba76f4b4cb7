"""An address that is not the one at which a service has OpenAI's API: what is told of it, and when nothing is."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from aiohttp import web

from finetune_operator.providers.calls.errors import NotThere, ProviderError
from finetune_operator.providers.openai.api import OpenAIApi
from tests.unit.finetune_operator.providers.test_odd_answers import NOON, answering, body

__all__ = ["answering"]


def not_found(_: Any) -> web.Response:
    return web.json_response({"detail": "Not Found"}, status=404)


NOBODY_THERE: dict[str, Callable[[Any], web.Response]] = {
    "FastAPI's": not_found,
    "Go's": lambda _: web.Response(status=404, text="404 page not found"),
    "a page": lambda _: web.Response(status=404, text="<!doctype html><p>none</p>", content_type="text/html"),
    "a user interface": lambda _: web.Response(text="<html>Welcome</html>", content_type="text/html"),
}
WRITTEN = ("", "/", "/api", "/openai/")
CALLS: dict[str, Callable[[OpenAIApi], Any]] = {
    "check": lambda api: api.check(),
    "upload": lambda api: api.upload("finetune-1.jsonl", 4, body()),
    "jobs": lambda api: api.jobs(NOON),
}


async def test_where_nothing_of_the_api_is_found_the_address_is_told_that_may_have_been_meant(answering):
    for said, written, call in product(NOBODY_THERE, WRITTEN, CALLS):
        api = answering(NOBODY_THERE[said], written)
        with pytest.raises(ProviderError) as refused:
            await CALLS[call](api)
        base = str(api._sdk.base_url).rstrip("/")
        told = f"; baseURL is {base}, and most services have this API at {base}/v1"
        assert refused.value.message.endswith(told), (said, written, call, refused.value.message)
        await api.close()


@pytest.mark.parametrize("written", ["/v1", "/openai/v1/", "/v1beta/openai", "/v1/account/gateway/openai"])
async def test_an_address_with_a_version_in_it_is_not_corrected(answering, written):
    api = answering(not_found, written)
    with pytest.raises(NotThere) as refused:
        await api.check()
    assert "baseURL" not in refused.value.message
    await api.close()


async def test_an_address_that_has_models_is_right_though_it_has_no_jobs(answering):
    def say(request: Any) -> web.Response:
        return web.json_response({"data": []}) if request.path.endswith("/models") else not_found(request)

    api = answering(say, "/gateway")
    with pytest.raises(NotThere) as refused:
        await api.check()
    assert "baseURL" not in refused.value.message
    await api.close()
