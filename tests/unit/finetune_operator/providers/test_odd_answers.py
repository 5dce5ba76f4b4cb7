"""What services with OpenAI's API send that OpenAI does not: read as far as it goes, and never what ends a watch."""

import base64
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from finetune_api.aws import Bedrock
from finetune_api.connection import LLMConnectionSpec
from finetune_api.reasons import Reason
from finetune_operator.decide.job.remote import UNDATED, JobKey
from finetune_operator.providers.bedrock import wire as bedrock_wire
from finetune_operator.providers.bedrock.api import BedrockApi
from finetune_operator.providers.calls.errors import Refused, TryLater, Unreadable, parsing_answer
from finetune_operator.providers.calls.values import KEPT_POINTS, parse_time, sanitized
from finetune_operator.providers.openai import wire
from finetune_operator.providers.openai.api import OpenAIApi
from finetune_operator.providers.openai.client import client
from finetune_operator.providers.sdks import build_api
from tests.simulators.openai import OpenAISimulator
from tests.simulators.server import serve

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

MOMENTS: dict[str, tuple[Any, datetime | None]] = {
    "seconds": (NOON.timestamp(), NOON),
    "a number as text": (str(int(NOON.timestamp())), NOON),
    "milliseconds": (NOON.timestamp() * 1000, NOON),
    "ISO 8601 with Z": ("2026-11-21T12:00:00Z", NOON),
    "with an offset": ("2026-11-21T13:00:00.000+01:00", NOON),
    "without a zone": ("2026-11-21T12:00:00", NOON),
    "nothing": (None, None),
    "zero": (0, None),
    "before all time": (-1, None),
    "after all time": (1e300, None),
    "not a number": ("NaN", None),
    "words": ("yesterday", None),
    "a list": ([1], None),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_are_read_in_every_form(name):
    said, moment = MOMENTS[name]
    assert parse_time(said) == moment
    job = wire.job({"id": "j", "status": "running", "created_at": said, "finished_at": said})
    assert (job.created, job.ends, job.dated) == (moment or UNDATED, moment, moment is not None)


STATES = {
    "SUCCEEDED": "Succeeded",
    "completed": "Succeeded",
    "error": "Failed",
    "canceled": "Cancelled",
    "cancelling": "Active",
    "SUCCESS": "Succeeded",
    "JOB_STATE_SUCCEEDED": "Succeeded",
    "Failed-Validation": "Failed",
    "aborted": "Cancelled",
    "CANCELLATION_REQUESTED": "Active",
    "compressing": "Active",
}


@pytest.mark.parametrize("status", STATES)
def test_other_services_words_for_an_end(status):
    assert wire.job({"id": "j", "status": status, "fine_tuned_model": "ft"}).state == STATES[status]


def test_the_fields_of_a_job_tell_its_end_where_nobody_knows_the_word_for_it():
    at = {"id": "j", "status": "ready", "finished_at": 1_800_000_000}
    assert wire.job({"id": "j", "status": "ready", "fine_tuned_model": "ft"}).state == "Active"
    assert wire.job(at | {"fine_tuned_model": "ft"}).state == "Succeeded"
    assert wire.job(at | {"error": {"message": "no room"}}).state == "Failed"
    assert wire.job(at | {"error": {"message": None}}).state == "Active"


def test_a_job_that_has_succeeded_is_followed_until_its_model_has_a_name():
    job = wire.job({"id": "j", "status": "succeeded"})
    assert (job.state, job.note) == ("Active", "the provider has not named the model yet")


ODD: dict[str, dict[str, Any]] = {
    "an error in words": {"status": "failed", "error": "no room"},
    "a list of errors": {"status": "failed", "error": ["no room"]},
    "metadata that is a list": {"metadata": ["uid"]},
    "files as objects": {"result_files": [{"id": "file-1"}]},
    "one file alone": {"result_files": "file-1"},
    "tokens as text": {"trained_tokens": "1000.0"},
    "tokens beyond all numbers": {"trained_tokens": 1e300},
    "fewer tokens than none": {"trained_tokens": -7},
    "fields that nobody knows": {"quantum": {"deep": [1]}},
}


TOLD = {
    "an error in words": ("Failed", "no room", None),
    "a list of errors": ("Failed", "no room", None),
    "tokens as text": ("Active", None, 1000),
}
"""State, failure and tokens of those that say anything."""


@pytest.mark.parametrize("name", ODD)
def test_odd_fields_end_nothing_that_has_not_failed(name):
    job = wire.job({"id": "j", "status": "running", **ODD[name]})
    said = (job.state, job.failure.message if job.failure else None, job.tokens)
    assert (job.id, said) == ("j", TOLD.get(name, ("Active", None, None)))


SENTENCES = {
    "colours of a terminal": ("\x1b[31mno\x1b[0m\x00", "[31mno [0m"),
    "lines": ("no\r\nroom\u2028here", "no room here"),
    "text that runs backwards": ("\u202eoom on", "oom on"),
    "half a character": ("no \ud83d room", "no ? room"),
    "a book": ("x" * 10_000_000, "x" * 500),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_of_a_provider_are_one_short_line(name):
    said, shown = SENTENCES[name]
    assert sanitized(said) == shown
    json.dumps(sanitized(said)).encode()


def test_why_a_job_failed_is_a_short_line_whatever_its_code_is():
    failure = wire.failure({"code": "c\x1b" * 900, "message": "m" * 9000, "param": "training_file\x00" * 900})
    assert (failure.reason, len(failure.message) < 600, "\x1b" in failure.message) == (
        Reason.PROVIDER_FAILED,
        True,
        False,
    )


RECORDS: dict[str, tuple[bytes, list[int]]] = {
    "with a mark": (b"\xef\xbb\xbfstep,train_loss\n1,0.5\n2,0.4\n", [1, 2]),
    "columns in another order": (b"train_loss,valid_loss,step\n0.5,,1\n0.4,0.3,2\n", [1, 2]),
    "names with capitals and blanks": (b" Step , Train_Loss \n1,0.5\n", [1]),
    "columns that nobody knows": (b"step,train_loss,moon\n1,0.5,full,more\n", [1]),
    "no losses": (b"step,train_accuracy\n1,0.5\n", []),
    "no steps": (b"train_loss\n0.5\n", []),
    "steps that are none": (b"step,train_loss\n-1,0.5\n1e300,0.5\nNaN,0.5\n3,inf\n4,0.4\n", [4]),
    "nothing": (b"", []),
    "a head alone": (b"step,train_loss\n", []),
    "a field without end": (b"step,train_loss\n1,0.5\n2," + b"9" * 200_000, [1]),
    "zeros": (b"step,train_loss\n1,0.5\n\x00\x00\n", [1]),
    "a page": (b"<html>sign in</html>", []),
    "names as they once were": (b"step,elapsed_tokens,training_loss,validation_loss\n1,64,0.5,0.6\n", [1]),
    "names of others": (b"epoch,step_number,train_loss,eval_loss\n1,7,0.5,0.6\n", [7]),
    "base64": (base64.b64encode(b"step,train_loss\n1,0.5\n"), [1]),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_losses_is_read_as_far_as_it_is_one(name):
    content, steps = RECORDS[name]
    assert [point.step for point in wire.metrics_of_results(content).train] == steps


EVENTS: dict[str, tuple[dict[str, Any], int]] = {
    "a step before the first": ({"data": {"step": -5, "train_loss": 0.5}}, 0),
    "a step beyond all numbers": ({"message": f"Step {'9' * 40}/{'9' * 40}: training loss=0.5"}, 0),
    "data in words": ({"data": "step 1", "message": "Step 1/9: training loss=0.5"}, 1),
}


@pytest.mark.parametrize("name", EVENTS)
def test_odd_events_are_no_progress(name):
    event, step = EVENTS[name]
    found = wire.metrics_of_events([event])
    assert (found.step, found.total_steps <= 9) == (step, True)


def test_bedrocks_record_as_well():
    record = b"\xef\xbb\xbfEpoch_number,Training_Loss,Step_Number\n0,0.5,0\n0,0.4,1\n0," + b"9" * 200_000
    assert [point.step for point in bedrock_wire.metrics(record, b"").train] == [1, 2]


@pytest.fixture
def forgetful(monkeypatch: Any) -> Iterator[OpenAIApi]:
    """A service that tells times in words, and gives its first page for ever."""
    provider = OpenAISimulator()
    job = {"id": "ftjob-1", "status": "running", "created_at": "yesterday"}
    jobs = {"object": "list", "has_more": True, "data": [job]}

    async def handle(*_: Any) -> web.Response:
        return web.json_response(jobs)

    monkeypatch.setattr("tests.simulators.server.Front.handle", handle)
    with serve(provider) as url:
        yield OpenAIApi(client(f"{url}/v1", "sk-simulated"))


@pytest.mark.filterwarnings("error")  # Python's warnings would show the fields' values
async def test_a_list_without_end_is_read_once(forgetful):
    assert [job.id for job in await forgetful.jobs(NOON)] == ["ftjob-1"]
    key = JobKey("team-a", "sentiment-1", "uid", 1, NOON)
    assert [job.id for job in await forgetful.find(key, NOON)] == ["ftjob-1"]
    assert await forgetful.files("finetune-") == []
    await forgetful.close()


@pytest.fixture
def terse(monkeypatch: Any) -> Iterator[OpenAIApi]:
    """A service that says of what it deletes nothing at all."""
    provider = OpenAISimulator()

    async def handle(_: Any, request: web.Request) -> web.Response:
        jobs: dict[str, Any] = {"object": "list", "data": []}
        return web.Response(status=204) if request.method == "DELETE" else web.json_response(jobs)

    monkeypatch.setattr("tests.simulators.server.Front.handle", handle)
    with serve(provider) as url:
        yield OpenAIApi(client(f"{url}/v1", "sk-simulated"))


async def test_an_end_without_words_is_one(terse):
    await terse.delete_file("file-1")
    await terse.delete_model("ft:gpt")
    await terse.close()


@pytest.fixture
def answering(monkeypatch: Any) -> Iterator[Callable[..., OpenAIApi]]:
    """Makes a service that answers whatever is asked in one way; its address may lead to another one."""
    with ExitStack() as held:

        def answer(said: Callable[[Any], web.StreamResponse], path: str = "/v1") -> OpenAIApi:
            async def handle(_: Any, request: Any) -> web.StreamResponse:
                return said(request)

            monkeypatch.setattr("tests.simulators.server.Front.handle", handle)
            url = held.enter_context(serve(OpenAISimulator()))
            reference = {"apiKeySecretRef": {"name": "openai", "key": "api-key"}}
            spec = {"openAI": {"baseURL": f"{url}{path}"} | reference}
            made = build_api(LLMConnectionSpec.model_validate(spec), {"api-key": "sk-simulated"})
            assert isinstance(made, OpenAIApi)
            return made

        yield answer


async def body() -> AsyncIterator[bytes]:
    yield b"row\n"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_an_address_that_leads_elsewhere_is_told_and_no_post_becomes_a_get_there(answering, status):
    asked: list[str] = []

    def moved(request: Any) -> web.Response:
        asked.append(request.method)
        return web.Response(status=status, headers={"Location": "https://moved.example/v1/files?token=secret"})

    api = answering(moved)
    with pytest.raises(TryLater) as told:
        await api.upload("finetune-1.jsonl", 4, body())
    assert "https://moved.example/v1/files)" in told.value.message
    if status < 307:
        with pytest.raises(TryLater, match="let the LLMConnection lead there itself"):
            await api.cancel("ftjob-1")
    assert set(asked) == {"POST"}
    await api.close()


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1//"])
async def test_an_address_is_the_same_whatever_slashes_it_ends_in(answering, path):
    asked: list[str] = []

    def empty(request: Any) -> web.Response:
        asked.append(request.path)
        return web.json_response({"object": "list", "data": None})

    api = answering(empty, path)
    assert await api.jobs(NOON) == []
    assert asked == ["/v1/fine_tuning/jobs"]
    await api.close()


@pytest.mark.parametrize("said", [None, [], "ok", 1, {"error": {"message": "no"}}, {"object": "list"}])
async def test_what_is_no_answer_of_the_api_is_neither_an_empty_list_nor_a_model(answering, said):
    """For an empty list a job that is there would be made again."""
    api = answering(lambda _: web.json_response(said))
    with pytest.raises(Unreadable), parsing_answer():
        await api.jobs(NOON)
    if not isinstance(said, dict):
        with pytest.raises(Unreadable), parsing_answer():
            await api.has_model("ft:gpt")
    await api.close()


async def test_what_comes_compressed_is_read(answering):
    content = gzip.compress(json.dumps({"data": [{"id": "projects/1/jobs:7", "status": "running"}]}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json; charset=utf-8"}
    api = answering(lambda _: web.Response(body=content, headers=headers))
    assert [job.id for job in await api.jobs(NOON)] == ["projects/1/jobs:7"]
    await api.close()


SENTENCES_OF_REFUSALS: dict[str, tuple[Any, str]] = {
    "OpenAI's form": ({"error": {"message": "no such file", "code": None}}, "no such file"),
    "FastAPI's": ({"detail": "Method Not Allowed"}, "Method Not Allowed"),
    "a word": ({"error": "no such file"}, "no such file"),
    "a list of faults": ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required$"),
}


@pytest.mark.parametrize("name", SENTENCES_OF_REFUSALS)
async def test_what_a_service_says_when_it_refuses_is_told(answering, name):
    said, told = SENTENCES_OF_REFUSALS[name]
    api = answering(lambda _: web.json_response(said, status=405))
    with pytest.raises(Refused, match=told):
        await api.file("file-1")
    await api.close()


@pytest.mark.parametrize("answers", [True, False])
async def test_a_service_whose_unknown_paths_are_pages_has_the_models_that_answer(answering, answers):
    def say(request: Any) -> web.Response:
        if request.path.endswith("/chat/completions") and answers:
            choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}}
            return web.json_response({"id": "c", "choices": [choice]})
        return web.Response(status=404, text="<!doctype html><html>no such page</html>", content_type="text/html")

    api = answering(say)
    with nullcontext() if answers else pytest.raises(Unreadable):
        assert await api.has_model("ft:gpt")
    await api.close()


async def test_a_model_at_bedrock_whose_results_are_not_told_is_deleted_all_the_same(monkeypatch):
    asked: list[str] = []

    async def call(_: Any, __: str, operation: str, **___: Any) -> dict[str, Any]:
        asked.append(operation)
        return {"modelArn": "arn", "modelName": "m", "creationTime": NOON} if operation.startswith("get") else {}

    block = {"region": "us-east-1", "roleARN": "arn:aws:iam::123456789012:role/r", "s3": {"bucket": "tuning"}}
    settings = Bedrock.model_validate(block | {"credentials": {"podIdentity": True}})
    monkeypatch.setattr("finetune_operator.providers.aws.client.Aws.call", call)
    api = BedrockApi(settings, {})
    await api.delete_model("m")
    assert asked == ["get_custom_model", "delete_custom_model"]
    await api.close()


MORE_RECORDS: dict[str, tuple[bytes, list[int]]] = {
    "semicolons": (b"\xef\xbb\xbfstep;train_loss;valid_loss\n1;0.5;\n2;0.4;0.3\n", [1, 2]),
    "tabs": (b"step\ttrain_loss\n1\t0.5\n", [1]),
    "UTF-16": ("step,train_loss\n1,0.5\n".encode("utf-16"), [1]),
    "base64 in lines": (base64.encodebytes(b"step,train_loss\n" + b"1,0.5\n" * 40 + b"2,0.4\n"), [1, 2]),
    "base64 that was read in part": (base64.b64encode(b"step,train_loss\n1,0.5\n2,0.4\n")[:-6], [1]),
    "losses that are none": (b"step,train_loss\n1,NaN\n2,Infinity\n3,-Infinity\n4,\n5,0.4\n", [5]),
    "the same step again and again, in no order": (b"step,train_loss\n3,0.3\n1,0.5\n3,0.3\n2,0.4\n", [1, 2, 3]),
}


@pytest.mark.parametrize("name", MORE_RECORDS)
def test_a_record_of_losses_in_another_form_is_read(name):
    content, steps = MORE_RECORDS[name]
    assert sorted({point.step for point in wire.metrics_of_results(content).train}) == steps


MANY = 200_000


@pytest.mark.parametrize("form", [bytes, base64.b64encode])
@pytest.mark.parametrize("left", [1, 7, 10, 15])
def test_the_line_in_which_a_record_that_is_too_long_to_be_read_was_cut_is_no_point(monkeypatch, form, left):
    """Half of 12,1.25 would be step 1, or a loss of 1."""
    head, row = b"step,step_number,train_loss,training_loss\n1,1,0.5,0.5\n", b"12,12,1.25,1.25\n"
    cut = head + row[:left]
    monkeypatch.setattr("finetune_operator.providers.calls.values.RESULTS_MAX_BYTES", len(cut))
    assert [(point.step, point.value) for point in wire.metrics_of_results(form(cut)).train] == [(1, 0.5)]
    assert [(point.step, point.value) for point in bedrock_wire.metrics(cut, b"").train] == [(2, 0.5)]


@pytest.mark.alike
@pytest.mark.parametrize("of", [wire.metrics_of_results, lambda content: bedrock_wire.metrics(content, content)])
def test_of_a_record_with_a_row_for_each_of_many_steps_only_what_is_shown_is_held(of):
    head = b"step,step_number,train_loss,training_loss,validation_loss\n"
    rows = b"".join(b"%d,%d,0.5,0.5,0.5\n" % (step, step - 1) for step in range(1, MANY + 1))
    found = of(head + rows)
    for curve in (found.train, found.validation):
        steps = [point.step for point in curve]
        assert len(steps) <= KEPT_POINTS + 2
        assert (steps[0], steps[-1]) == (1, MANY)
        gaps = {after - before for before, after in pairwise(steps[:-1])}
        assert len(gaps) == 1, "evenly spread"
    assert found.step == MANY
