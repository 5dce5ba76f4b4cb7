"""Lists whose every page leads to another one, by a mark that is new: nobody would notice that nothing ends them."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from finetune_operator.providers.calls import errors
from finetune_operator.providers.calls.errors import Unreadable, parsing_answer
from tests.unit.finetune_operator.decide.given import NOW
from tests.unit.finetune_operator.providers.strange import HOSTED, PROVIDERS, READS, Call, listening

PAGES = 5


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "MOST_PAGES", PAGES)


def of_openai(number: int, _: web.Request) -> Any:
    job = {"id": f"ftjob-{number}", "object": "fine_tuning.job", "status": "running", "model": "m"}
    one = job | {"created_at": NOW.timestamp() + 3600, "filename": "finetune-1.jsonl", "bytes": 1, "purpose": "x"}
    return {"object": "list", "data": [one], "has_more": True}


def of_arm(number: int, request: web.Request) -> Any:
    if "deployments" not in request.path:
        return of_openai(number, request)
    return {"value": [], "nextLink": f"http://{request.host}{request.path}?page={number}"}


def of_bedrock(number: int, _: web.Request) -> Any:
    names = ("modelCustomizationJobSummaries", "modelDeploymentSummaries", "provisionedModelSummaries")
    return {name: [] for name in names} | {"nextToken": str(number)}


def of_sagemaker(number: int, _: web.Request) -> Any:
    return {"TrainingJobSummaries": [], "Endpoints": [], "EndpointConfigs": [], "Models": [], "NextToken": str(number)}


LISTS: dict[str, tuple[Callable[[int, web.Request], Any], dict[str, Call]]] = {
    "openai": (of_openai, {name: READS[name] for name in ("jobs", "files", "find")}),
    "azure": (of_arm, {"jobs": READS["jobs"], "list": HOSTED["list"]}),
    "bedrock": (of_bedrock, {"jobs": READS["jobs"], "list": HOSTED["list"]}),
    "sagemaker": (of_sagemaker, {"jobs": READS["jobs"], "list": HOSTED["list"]}),
}
CASES = [(provider, what) for provider, (_, calls) in LISTS.items() for what in calls]


@pytest.mark.parametrize(("provider", "what"), CASES)
async def test_a_list_without_end_is_read_to_an_end_and_is_no_list(provider: str, what: str) -> None:
    page, calls = LISTS[provider]
    numbers: Iterator[int] = itertools.count()

    async with listening(lambda request: web.json_response(page(next(numbers), request))) as strange:
        api = PROVIDERS[provider](strange.url)
        with pytest.raises(Unreadable, match="gives a list without end"), parsing_answer():
            print(await calls[what](api, provider))
        assert len(strange.asked) <= 2 * (PAGES + 1)  # Bedrock has two lists of deployments
        await api.close()


async def test_an_endless_bucket_is_read_to_an_end() -> None:
    numbers: Iterator[int] = itertools.count()

    def say(_: web.Request) -> web.Response:
        more = f"<NextContinuationToken>{next(numbers)}</NextContinuationToken>"
        text = f"<ListBucketResult><IsTruncated>true</IsTruncated>{more}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")

    async with listening(say) as strange:
        api = PROVIDERS["bedrock"](strange.url)
        with pytest.raises(Unreadable, match="s3 gives a list without end"):
            await READS["files"](api, "bedrock")
        await api.close()
