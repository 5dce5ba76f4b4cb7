"""The report server over real TLS with a real client: who is let in, how much, how often, in which shape."""

import asyncio
import gzip
import logging
import socket
import ssl
import tracemalloc

import aiohttp
import orjson
import pytest
import yaml

from finetune_api.names import REPORT_MAX_BYTES, REPORT_PATH, TOKEN_AUDIENCE
from finetune_operator.runtime import listener
from finetune_operator.runtime.errors import Transient
from finetune_operator.runtime.kube import TokenIdentity
from finetune_operator.runtime.report_server import bodies, tokens
from finetune_operator.runtime.settings import Settings
from tests.unit.finetune_operator.runtime.report_server import POD, REPORT, server, token
from tests.unit.helm.charts import CHART


async def test_a_report_of_the_pods_own_job_is_taken():
    async with server() as world:
        status, _, _ = await world.send()
        assert status == 202
        assert [report.name for report in world.accepted] == ["job"]
        assert world.reviewed == [TOKEN_AUDIENCE]


async def test_a_client_that_does_not_trust_the_ca_gets_no_connection():
    async with server() as world:
        world.tls = ssl.create_default_context()
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await world.send()
        assert world.accepted == []


async def test_plain_http_gets_no_answer():
    async with server() as world:
        with pytest.raises(aiohttp.ClientError):
            await world.session.post(world.url.replace("https", "http"), json=REPORT)


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer ", "Bearer not-a-jwt"])
async def test_no_token_no_entry_and_the_api_server_is_not_bothered(header):
    async with server() as world:
        status, answer, _ = await world.send(headers={"Authorization": header})
        assert status == 401
        assert answer["WWW-Authenticate"] == "Bearer"
        assert world.reviewed == []


async def test_a_token_that_is_not_valid_is_refused():
    async with server() as world:
        status, _, _ = await world.send(bearer=token("stranger"))
        assert status == 401
        assert world.accepted == []


async def test_another_job_is_forbidden_with_the_reason(caplog):
    caplog.set_level(logging.INFO)
    async with server() as world:
        status, _, text = await world.send(REPORT | {"uid": "u2"})
        assert (status, orjson.loads(text)) == (403, {"error": "not this pod's job"})
        assert world.accepted == []
    assert "job-1-abc" in caplog.text


async def test_who_has_outlived_its_attempt_is_told_that_no_report_will_be_taken_again():
    async with server() as world:
        status, _, text = await world.send(REPORT | {"attempt": 2})
        assert (status, orjson.loads(text)) == (410, {"error": "the job has ended"})
        assert world.accepted == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"no json", "body: Invalid JSON"),
        (b"", "body: Invalid JSON"),
        (b"[1]", "body"),
        (REPORT | {"attempt": 0}, "attempt: Input should be greater"),
        (REPORT | {"phase": "Dreaming"}, "phase"),
        ({k: v for k, v in REPORT.items() if k != "uid"}, "uid: Field required"),
        (REPORT | {"loss": {"train": [{"step": "x"}]}}, "loss.train.0"),
        (REPORT | {"surprise": 1}, "surprise"),
    ],
)
async def test_a_malformed_report_is_answered_with_the_field(body, field):
    async with server() as world:
        status, _, text = await world.send(body)
        assert status == 400
        assert field in text
        assert world.accepted == []


async def test_what_stood_in_a_refused_report_is_neither_answered_nor_logged(caplog):
    caplog.set_level(logging.DEBUG)
    async with server() as world:
        _, _, text = await world.send(REPORT | {"phase": "Anna Müller, 12 Main St"})
        await world.send(REPORT | {"uid": "u2"})
    assert "Anna" not in text
    assert "Anna" not in caplog.text
    assert token() not in caplog.text


async def test_a_declared_size_above_the_limit_is_refused_before_anything_is_read():
    async with server() as world:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=world.tls, server_hostname="localhost"
        )
        head = (f"POST {REPORT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token()}\r\n"
                f"Content-Length: {REPORT_MAX_BYTES + 1}\r\n\r\n")  # fmt: skip
        writer.write(head.encode())
        line = await asyncio.wait_for(reader.readline(), 60)
        assert b"413" in line
        assert world.reviewed == []
        writer.close()


async def test_an_undeclared_size_above_the_limit_is_cut_off():
    async def endless():
        for _ in range(64):
            yield b"x" * 8192

    async with server() as world:
        try:
            status, _, _ = await world.send(endless())
        except aiohttp.ClientError:
            status = 413  # the server hung up while we still sent
        assert status == 413
        assert world.accepted == []


async def test_exactly_the_limit_fits():
    async with server() as world:
        body = orjson.dumps(REPORT)
        status, _, _ = await world.send(body + b" " * (REPORT_MAX_BYTES - len(body)))
        assert status == 202


async def test_compressed_bodies_are_refused():
    async with server() as world:
        status, _, _ = await world.send(gzip.compress(orjson.dumps(REPORT)), headers={"Content-Encoding": "gzip"})
        assert status == 415


async def test_a_pod_that_reports_too_often_has_to_wait_and_others_do_not():
    async with server(report_burst=3, report_rate=0.5) as world:
        world.identities[token("other")] = TokenIdentity("x", "s", (), "team", "default", "job-2", "other-uid")
        answers = [await world.send() for _ in range(4)]
        assert [status for status, _, _ in answers] == [202, 202, 202, 429]
        assert 1 <= int(answers[-1][1]["Retry-After"]) <= 2
        status, _, _ = await world.send(bearer=token("other"))
        assert status == 202


async def test_a_follower_sends_the_pod_elsewhere():
    async with server() as world:
        world.leads = False
        status, headers, _ = await world.send()
        assert status == 503
        assert headers["Retry-After"] == "2"
        assert headers["Connection"] == "close"
        assert world.reviewed == []


async def test_trouble_with_the_api_server_is_the_pods_reason_to_try_again():
    async with server() as world:
        world.fault = Transient(503, "Unavailable", "etcd is away")
        status, headers, text = await world.send()
        assert (status, headers["Retry-After"]) == (503, "5")
        assert "etcd" not in text


async def test_a_token_is_reviewed_once_for_many_reports():
    async with server() as world:
        for status, _, _ in await asyncio.gather(*(world.send() for _ in range(8))):
            assert status == 202
        assert len(world.reviewed) == 1


async def test_one_address_cannot_make_the_api_server_review_tokens_without_end(monkeypatch):
    monkeypatch.setattr(tokens, "UNKNOWN_PER_SECOND", 1e-6)  # so that it does not matter how long the 30 requests take
    async with server() as world:
        statuses = [(await world.send(bearer=token(f"guess-{n}")))[0] for n in range(30)]
        assert statuses == [401] * 10 + [429] * 20
        assert len(world.reviewed) == 10


async def test_more_reports_at_once_than_can_be_worked_on_are_told_to_wait():
    async with server(report_concurrency=2) as world:
        world.gate = asyncio.Event()
        world.identities[token("other")] = POD
        waiting = [asyncio.create_task(world.send(bearer=token(name))) for name in ("pod", "other")]
        async with asyncio.timeout(10):
            await world.both_inside.wait()
            answer = await world.send()
        assert answer[0] == 503
        assert answer[1]["Retry-After"] == "1"
        world.gate.set()
        assert [(await task)[0] for task in waiting] == [202, 202]


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)

    async def slow():
        yield b"{"
        await asyncio.sleep(3)
        yield b"}"

    async with server() as world:
        try:
            status, _, _ = await world.send(slow())
        except aiohttp.ClientError:
            status = 408
        assert status == 408


@pytest.mark.parametrize("sent", [b"", b"POST /v1/reports HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_without_a_whole_request_head_is_closed(monkeypatch, sent):
    original = listener.Listener.__init__
    monkeypatch.setattr(
        listener.Listener, "__init__", lambda self, *a, **k: original(self, *a, **(k | {"idle_seconds": 0.3}))
    )
    async with server() as world:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=world.tls, server_hostname="localhost"
        )
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_more_connections_than_allowed_are_hung_up_on():
    async with server(report_connections=2) as world:
        held = [
            await asyncio.open_connection("127.0.0.1", world.port, ssl=world.tls, server_hostname="localhost")
            for _ in range(2)
        ]
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await world.send()
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(5):
            while True:
                try:
                    status, _, _ = await world.send()
                    break
                except (aiohttp.ClientError, ConnectionError):
                    continue
        assert status == 202


async def test_as_many_connections_as_are_allowed_leave_most_of_the_memory_that_the_chart_grants():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    granted = int(values["resources"]["limits"]["memory"].removesuffix("Mi")) * 2**20
    held, number = [], 24
    async with server() as world:

        def connect():
            raw = socket.create_connection(("127.0.0.1", world.port))
            held.append(world.tls.wrap_socket(raw, server_hostname="localhost"))
            held[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held[-1].recv(64)

        await asyncio.to_thread(connect)
        tracemalloc.start()
        try:
            for _ in range(number):
                await asyncio.to_thread(connect)
            each = tracemalloc.get_traced_memory()[0] / number
        finally:
            tracemalloc.stop()
            for client in held:
                client.close()
    assert each * Settings.model_fields["report_connections"].default < granted / 4, f"{each / 1024:.0f} KiB for each"


async def test_other_paths_and_methods_are_not_there():
    async with server() as world:
        async with world.session.get(world.url, ssl=world.tls) as response:
            assert response.status == 405
        async with world.session.post(world.url + "x", ssl=world.tls) as response:
            assert response.status == 404
