"""Many jobs of many connections at once, with the real queue, SDK and servers: who is in trouble delays nobody else."""

import asyncio
import base64
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import pytest

from bench.cloud.phase import busiest
from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import ProviderFile
from finetune_operator.decide.connection import lacking
from finetune_operator.decide.job.remote import JobKey
from finetune_operator.providers.accounts.client import Sources
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import ProviderError
from finetune_operator.providers.calls.rate_limit import AT_ONCE, CALLS_PER_SECOND
from finetune_operator.providers.connection_secret import ConnectionSecrets
from finetune_operator.providers.openai import client as openai_client
from finetune_operator.providers.ports import JobRequest
from finetune_operator.runtime.queue import Key, Requeue, WorkQueue
from finetune_operator.runtime.settings import Settings
from tests.simulators.clock import Clock
from tests.simulators.openai import OpenAISimulator
from tests.simulators.server import serve
from tests.unit.finetune_operator.reconcilers.cloud import KEY, MINI, in_chunks, rows

WELL, SLOW = "well", "slow"
DEAD = tuple(f"dead-{n}" for n in range(5))
JOBS = {WELL: 16, SLOW: 8} | dict.fromkeys(DEAD, 4)
PATIENCE = 50.0
CALL_SECONDS = 120.0
"""Longer than all of the test: nobody has given up a dead provider by then, on a slow machine either."""


class Secrets:
    """The API server as far as accounts ask it."""

    async def get(self, *_: Any) -> Any:
        return {"data": {"api-key": base64.b64encode(KEY.encode()).decode()}}


class World:
    """As the reconcilers look at cloud jobs: in turns; a job's connection is its key's namespace."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.specs = {name: connection(url) for name, url in urls.items()}
        self.queue = WorkQueue(self.reconcile, Settings.model_fields["workers"].default)
        secrets = ConnectionSecrets(cast("Any", Secrets()), "finetune")
        sources = Sources(secrets, self.specs.get, partial(lacking, is_there=False), guard=lambda: None)
        self.accounts = Accounts(sources, wake=self.queue.add)
        self.files: dict[str, ProviderFile] = {}
        self.made: dict[Key, str] = {}
        self.succeeded: Counter[str] = Counter()
        self.news = asyncio.Event()

    async def upload(self, name: str) -> None:
        content = rows()
        file = await self.accounts.of(name).upload("finetune-a.jsonl", len(content), in_chunks(content))
        self.files[name] = ProviderFile(split="train", id=file.id, bytes=file.bytes, sha256="0" * 64)

    async def reconcile(self, key: Key) -> Requeue | None:
        account = self.accounts.of(key.namespace)
        if key in self.made:
            seen = account.poller.watch(self.made[key], key, NOW)
            self.succeeded[key.namespace] += seen is not None and seen.job.state == "Succeeded"
            self.news.set()
            return None
        request = JobRequest(job_key(key), SPEC, suffix=key.name, files=[self.files[key.namespace]])
        try:
            async with account.turn():
                found = await account.call(lambda api: api.find(request.key, NOW))
                made = found[0] if found else await account.call(lambda api: api.create(request))
        except ProviderError as error:
            return Requeue(error.retry_after or 60.0)
        self.made[key] = made.id
        return Requeue(0)

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                self.news.clear()
                await self.news.wait()


NOW = datetime(2026, 11, 1, tzinfo=UTC)
SPEC = FineTuneJobSpec.model_validate({
    "connectionRef": {"name": "any"}, "baseModel": MINI, "modelRef": {"name": "m"},
    "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
})  # fmt: skip


def connection(url: str) -> LLMConnectionSpec:
    block = {"baseURL": f"{url}/v1", "apiKeySecretRef": {"name": "openai", "key": "api-key"}}
    return LLMConnectionSpec.model_validate({"namespaceSelector": {}, "openAI": block})


def job_key(key: Key) -> JobKey:
    return JobKey(namespace=key.namespace, name=key.name, uid=f"{key.namespace}-{key.name}", attempt=1, created=NOW)


async def running(stack: ExitStack) -> tuple[World, dict[str, OpenAISimulator]]:
    """Providers that have everybody's data, and then fall ill."""
    providers = {name: OpenAISimulator(clock=Clock()) for name in JOBS}
    for provider in providers.values():
        provider.set(job_limit=1000)
    world = World({name: stack.enter_context(serve(provider)) for name, provider in providers.items()})
    await asyncio.gather(*(asyncio.create_task(world.upload(name)) for name in JOBS))
    providers[SLOW].fault("*", outcome="delay", delay_seconds=2.0, times=10_000)
    for name in DEAD:
        providers[name].fault("*", outcome="hang", times=10_000)
    return world, providers


async def test_slow_and_dead_providers_delay_no_other_and_each_is_asked_at_its_pace_and_in_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openai_client, "CALL_SECONDS", CALL_SECONDS)
    with ExitStack() as stack:
        world, providers = await running(stack)
        well = providers[WELL]
        world.queue.start()
        started = asyncio.get_running_loop().time()
        for name in sorted(JOBS):
            for number in range(JOBS[name]):
                world.queue.add(Key("FineTuneJob", name, f"j{number}"))
        try:
            await world.until(lambda: well.count("fine_tuning.jobs.create") == JOBS[WELL])
            hung = {name: providers[name].count("fine_tuning.jobs.list", committed=False) for name in DEAD}
            well.advance(36_000)
            await world.until(lambda: world.succeeded[WELL] == JOBS[WELL])
            seconds = asyncio.get_running_loop().time() - started
        finally:
            await world.queue.drain(0.1)
            await world.accounts.close()
    assert all(count <= AT_ONCE for count in hung.values()), hung
    assert busiest(sorted(call.received for call in well.calls), 1.0) <= CALLS_PER_SECOND + AT_ONCE + 1
    asked = Counter(call.operation for call in well.calls)
    assert asked["fine_tuning.jobs.retrieve"] == 0, "the list has them all"
    assert asked["fine_tuning.jobs.list"] <= JOBS[WELL] + max(15.0, seconds) / 2
    assert asked["files.content"] == JOBS[WELL]
