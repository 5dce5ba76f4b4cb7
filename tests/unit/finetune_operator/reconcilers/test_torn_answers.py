"""Half an answer, an upload that breaks off, lists that repeat themselves, and pauses that nobody can mean."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import orjson
import pytest

from finetune_operator.runtime.report_server.refusals import Refusal
from tests.simulators.clock import DAY
from tests.simulators.conftest import start
from tests.simulators.http import Reply
from tests.simulators.openai import OpenAISimulator
from tests.unit.finetune_operator.reconcilers.cloud import (
    CloudCluster,
    begin,
    go_on,
    provider,
    rows,
    with_cloud_job,
)

__all__ = ["begin", "provider", "start"]

Begin = Callable[..., Awaitable[CloudCluster]]
CREATE, LIST, UPLOAD = "fine_tuning.jobs.create", "fine_tuning.jobs.list", "files.create"
READS = [
    LIST,
    "fine_tuning.jobs.retrieve",
    "fine_tuning.jobs.list_events",
    "files.retrieve",
    "files.list",
    "files.content",
]
BREAKS: dict[str, dict[str, Any]] = {
    "cut": {"outcome": "cut", "midway": True},
    "refused in the midst of it": {"status": 503, "midway": True},
    "its answer is cut": {"outcome": "cut", "after_commit": True},
    "its answer is torn": {"outcome": "torn"},
    "answered with a 500": {"status": 500, "after_commit": True},
}


async def succeed(cluster: CloudCluster, provider: OpenAISimulator) -> None:
    await go_on(cluster, 600)
    await cluster.pass_time(3600)
    await go_on(cluster, 300)
    assert (cluster.status()["phase"], provider.count(CREATE)) == ("Succeeded", 1), cluster.status()
    assert [one.kind for one in provider.left()] == ["file", "model"], (
        "the record of its losses lasts as long as its model"
    )


@pytest.mark.parametrize("operation", READS)
async def test_half_an_answer_to_whatever_is_read_ends_nothing(
    provider: OpenAISimulator, begin: Begin, operation: str
) -> None:
    provider.fault(operation, outcome="torn", times=3)
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    file = None
    for _ in range(5):
        with suppress(Refusal):  # the pod tries again
            file = await cluster.send(rows())
            break
        await cluster.pass_time(30)
    assert file is not None
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.settle()
    await succeed(cluster, provider)


async def test_half_an_answer_to_a_create_is_no_reason_to_pay_twice(provider: OpenAISimulator, begin: Begin) -> None:
    provider.fault(CREATE, outcome="torn")
    await succeed(await begin(), provider)


@pytest.mark.alike
@pytest.mark.parametrize("name", BREAKS)
async def test_an_upload_that_breaks_off_is_made_again_and_leaves_one_file(
    provider: OpenAISimulator, begin: Begin, name: str
) -> None:
    cluster = await begin(with_cloud_job)
    cluster.run_pod()
    await cluster.settle()
    provider.fault(UPLOAD, **BREAKS[name])
    with pytest.raises(Refusal) as refused:
        await cluster.send(rows(4000))
    assert refused.value.status == 503, refused.value.sentence
    await cluster.wait(61)
    file = await cluster.send(rows(4000))
    assert [one.kind for one in provider.left()] == ["file"]
    cluster.end_pod(0, cluster.checked([file]))
    await cluster.settle()
    await succeed(cluster, provider)


def lists(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """What stands between a provider and those who list its jobs, or files."""

    async def meddle(operation: str, carry_out: Callable[[], Reply]) -> Reply:
        reply = carry_out()
        if not operation.endswith(".list") or reply.status != 200:
            return reply
        assert isinstance(reply.body, bytes)
        return Reply.json(change(orjson.loads(reply.body)))

    return meddle


ODD_LISTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "says that more follows, forever": lambda page: {**page, "has_more": True},
    "each row twice": lambda page: {**page, "data": [row for row in page["data"] for _ in "ab"], "has_more": True},
    "backwards": lambda page: {**page, "data": page["data"][::-1]},
    "without has_more": lambda page: {key: value for key, value in page.items() if key != "has_more"},
}


@pytest.mark.parametrize("name", ODD_LISTS)
async def test_a_list_that_repeats_itself_is_read_once_and_its_rows_count_once(
    provider: OpenAISimulator, begin: Begin, name: str
) -> None:
    provider.meddle = lists(ODD_LISTS[name])
    await succeed(await begin(), provider)


@pytest.mark.parametrize("seconds", [-DAY, -1, 7, 10 * DAY])
async def test_a_pause_until_a_moment_ends_within_an_hour_whatever_moment_that_is(
    provider: OpenAISimulator, begin: Begin, seconds: float
) -> None:
    cluster = await begin(with_cloud_job)
    until = formatdate(provider.clock.now + seconds, usegmt=True)
    provider.fault(CREATE, status=429, code="rate_limit_exceeded", headers={"Retry-After": until})
    await cluster.check()
    await cluster.settle()
    assert cluster.status()["failure"]["reason"] == "RateLimited"
    await cluster.pass_time(60 if seconds < 60 else 3660)
    assert provider.count(CREATE) == 1
    await succeed(cluster, provider)
