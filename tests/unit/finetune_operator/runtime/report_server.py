"""A report server on its own port, and its clients."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import aiohttp
import orjson

from finetune_api.names import REPORT_PATH
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.report_server.route import Outlived
from finetune_operator.runtime.report_server.server import ReportServer, RequestHandlers
from finetune_operator.runtime.settings import Settings
from tests.unit.finetune_operator.runtime.tls import certificates

REPORT = {"namespace": "team", "name": "job", "uid": "u1", "attempt": 1, "phase": "Running"}
POD = TokenIdentity("system:serviceaccount:team:default", "s", (), "team", "default", "job-1-abc", "pod-uid")


def token(name="pod"):
    return f"head.claims-{name}.signature"


class World:
    """One report server and the calls of its callbacks."""

    def __init__(self):
        self.leads = True
        self.reviewed = []
        self.accepted = []
        self.fault = None
        self.gate = None
        self.both_inside = asyncio.Event()
        self.identities = {token(): POD}

    async def review(self, asked, audience):
        self.reviewed.append(audience)
        if self.fault:
            raise self.fault
        if len(self.reviewed) == 2:
            self.both_inside.set()
        if self.gate is not None:
            await self.gate.wait()
        return self.identities.get(asked)

    def authorise(self, identity, report):
        if report.attempt > 1:
            return Outlived("the job has ended")
        return None if (identity.namespace, "u1") == (report.namespace, report.uid) else "not this pod's job"

    def accept(self, report):
        self.accepted.append(report)

    async def send(self, body=REPORT, bearer=None, headers=None, **options):
        data = body if isinstance(body, bytes) or not isinstance(body, dict) else orjson.dumps(body)
        headers = {"Authorization": f"Bearer {bearer or token()}"} | (headers or {})
        async with self.session.post(self.url, data=data, headers=headers, ssl=self.tls, **options) as response:
            return response.status, response.headers, await response.text()


@asynccontextmanager
async def serving(world, path, options, **handlers):
    """Run a report server with `world` as its callbacks; `world` gets a session and the URL of `path`."""
    shown = await certificates()
    made = ReportServer(
        Settings(**{"report_port": 0, "report_bind": "127.0.0.1"} | options), shown.context,
        RequestHandlers(authorise=world.authorise, **handlers), review=world.review, is_leader=lambda: world.leads,
    )  # fmt: skip
    await made.start()
    world.port = made.port
    world.url = f"https://localhost:{made.port}{path}"
    world.tls = ssl.create_default_context(cadata=shown.bundle)
    async with aiohttp.ClientSession() as world.session:
        try:
            yield world
        finally:
            await made.stop()


@asynccontextmanager
async def server(answering=None, **settings):
    world, options = World(), {"report_burst": 100} | settings
    async with serving(world, REPORT_PATH, options, accept=world.accept, answering=answering):
        yield world
